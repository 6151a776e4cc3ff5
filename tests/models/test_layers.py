from __future__ import annotations

import math

import pytest
import torch

from robustray.models import ModelError
from robustray.models.architectures.layers import (
    ACTIVATIONS,
    NORMALIZATIONS,
    Standardize,
    activation,
    normalization,
)

FORMULAS = {
    "ReLU": lambda v: max(v, 0.0),
    "ELU": lambda v: v if v > 0 else math.expm1(v),
    "LeakyReLU": lambda v: v if v > 0 else 0.01 * v,
    "SiLU": lambda v: v / (1 + math.exp(-v)),
    "GELU": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "Softplus": lambda v: math.log1p(math.exp(v)),
    "Mish": lambda v: v * math.tanh(math.log1p(math.exp(v))),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_its_formula_and_leaves_its_input(name):
    x = torch.linspace(-4, 4, 17, dtype=torch.float64)
    kept = x.clone()
    expected = torch.tensor([FORMULAS[name](v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(activation(name)(x), expected)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", ["Swish", "PReLU", "relu", ""])
def test_unknown_activation_names_the_allowed_ones(name):
    with pytest.raises(ValueError, match="ReLU, ELU, LeakyReLU, SiLU, GELU, Softplus, Mish"):
        activation(name)


def test_unknown_names_come_with_a_suggestion():
    with pytest.raises(ModelError, match="did you mean 'ReLU'"):
        activation("relu")
    with pytest.raises(ModelError, match="did you mean 'BatchNorm'"):
        normalization("BatchNorm2d", 8)


def _moments(x, dims):
    mean = x.mean(dims, keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean(dims, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalization_takes_moments_over_the_right_axes(name, memory_format):
    torch.manual_seed(0)
    x = torch.randn(3, 24, 5, 4, dtype=torch.float64).contiguous(memory_format=memory_format)
    expected = {
        "BatchNorm": lambda: _moments(x, (0, 2, 3)),
        "GroupNorm": lambda: _moments(x.reshape(3, 3, 8, 5, 4), (2, 3, 4)).reshape(x.shape),
        "LayerNorm": lambda: _moments(x, (1,)),
        "InstanceNorm": lambda: _moments(x, (2, 3)),
    }[name]()
    norm = normalization(name, 24).double()
    torch.testing.assert_close(norm(x), expected)
    assert len(list(norm.parameters())) == (0 if name == "InstanceNorm" else 2)


@pytest.mark.parametrize("name", ["GroupNorm", "LayerNorm"])
def test_weights_are_for_channels(name):
    norm = normalization(name, 16)
    norm.weight.data = torch.arange(16.0)
    norm.bias.data = torch.ones(16)
    plain = normalization(name, 16)
    x = torch.randn(2, 16, 3, 3)
    scale = torch.arange(16.0).view(16, 1, 1)
    torch.testing.assert_close(norm(x), plain(x) * scale + 1)


@pytest.mark.parametrize("channels", [4, 7, 17, 25])
def test_group_norm_refuses_unequal_groups(channels):
    with pytest.raises(ValueError, match=f"{channels} channels"):
        normalization("GroupNorm", channels)


def test_standardize_moves_with_the_model_but_is_no_state():
    layer = Standardize()
    assert layer.state_dict() == {}
    assert {buffer.device.type for buffer in layer.to("meta").buffers()} == {"meta"}
    x = torch.rand(2, 3, 4, 4)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
    expected = (x.movedim(1, -1) - mean) / std
    torch.testing.assert_close(Standardize()(x), expected.movedim(-1, 1))
