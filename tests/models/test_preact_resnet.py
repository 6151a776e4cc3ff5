from __future__ import annotations

import copy
import hashlib
import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from robustray.models import create_model
from robustray.models.architectures.layers import ACTIVATIONS, NORMALIZATIONS
from robustray.models.architectures.preact_resnet import BasicBlock

TINY = {"depths": (2, 2), "channels": (16, 16, 32), "block": ("basic", "robust")}
TINY |= {"se_reduction": 16}


def tiny(**options) -> nn.Module:
    torch.manual_seed(0)
    return create_model("preact_resnet", **(TINY | options))


def digest(model: nn.Module) -> str:
    lines = [f"{k}:{','.join(map(str, v.shape))}" for k, v in model.state_dict().items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "entries", "expected"),
    [
        ("rrn_a1", 2146, "01fb2426ff84213bff43f6574ee1e9c696664db5de00ebbf9d6513de3e81a4bc"),
        ("wrn_28_10", 155, "2d643595a36e08e5ed9e2bc1fe250c8fefecb80ea0afdda9aa7854d608fec212"),
    ],
)
@pytest.mark.parametrize("pre_process", [False, True])
def test_names_and_shapes_are_those_of_the_published_weights(name, entries, expected, pre_process):
    with torch.device("meta"):
        model = create_model(name, pre_process=pre_process)
    assert len(model.state_dict()) == entries
    assert digest(model) == expected


@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (8, 2), (5, 1)])
def test_basic_block_is_its_formula(in_channels, stride):
    torch.manual_seed(1)
    block: Any = BasicBlock(in_channels, 8, stride=stride).double()
    x = torch.randn(2, in_channels, 6, 6, dtype=torch.float64)

    def norm(z):
        mean = z.mean((0, 2, 3), keepdim=True)
        return (z - mean) / (z.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()

    a = norm(x).clamp(min=0)
    inner = nn.functional.conv2d(a, block.conv1.weight, stride=stride, padding=1)
    out = nn.functional.conv2d(norm(inner).clamp(min=0), block.conv2.weight, padding=1)
    if in_channels == 8 and stride == 1:
        assert block.shortcut is None
        out = out + x
    else:
        out = out + nn.functional.conv2d(a, block.shortcut[0].weight, stride=stride)
    torch.testing.assert_close(block(x), out)


def test_seed_gives_the_published_draws():
    """All layers by their default, in order; then all convolutions again, fan-out normal."""
    model = tiny()
    torch.manual_seed(0)
    expected = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            size = module.in_channels, module.out_channels, module.kernel_size
            expected.append(nn.Conv2d(*size, groups=module.groups, bias=False))
        elif isinstance(module, nn.Linear):
            bias = module.bias is not None
            expected.append(nn.Linear(module.in_features, module.out_features, bias=bias))
    for layer in expected:
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / fan_out))
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for layer, other in zip(layers, expected, strict=True):
        assert torch.equal(layer.weight, other.weight)


def test_without_use_init_pytorchs_weights_stay():
    model: Any = tiny(use_init=False)
    fresh: Any = tiny()
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 16, 3, bias=False)
    assert torch.equal(model.stem_conv.weight, stem.weight)
    assert not torch.equal(model.stem_conv.weight, fresh.stem_conv.weight)
    assert torch.any(model.fc.bias != 0)


def test_initial_weights():
    model: Any = tiny(channels=(16, 64, 64))
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan_out = math.prod(module.kernel_size) * module.out_channels
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
    assert torch.all(model.fc.bias == 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_logits_and_input_gradients_with_frozen_weights(activation, normalization):
    options = {"base_width": 80, "scales": 2, "cardinality": 1}
    model = tiny(activations=activation, normalizations=normalization, **options)
    model.eval().requires_grad_(False)
    x = torch.rand(3, 3, 8, 8, requires_grad=True)
    kept = x.detach().clone()
    logits = model(x)
    assert logits.shape == (3, 10)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any(dim=(1, 2, 3)).all()
    assert torch.equal(x.detach(), kept)


@pytest.mark.parametrize("activation", ["SiLU", "Softplus"])
def test_gradients_agree_with_finite_differences(activation):
    model = tiny(depths=(1, 1), activations=activation).double().eval()
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_examples_do_not_depend_on_each_other_in_evaluation(normalization):
    model = tiny(normalizations=normalization, base_width=80, scales=2, cardinality=1).eval()
    x, other = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    mixed = torch.cat((other[:2], x[2:]))
    with torch.no_grad():
        assert torch.equal(model(mixed)[2:], model(x)[2:])
        torch.testing.assert_close(model(x[2:3]), model(x)[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_channels_last_gives_close_logits(normalization):
    model: Any = tiny(normalizations=normalization, base_width=80, scales=2, cardinality=1).eval()
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        logits = last(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-4)


def test_compiles_into_one_graph():
    model = tiny().eval()
    x = torch.rand(2, 3, 8, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), model(x))


def test_pre_process_standardises_the_input():
    plain, standard = tiny().eval(), tiny(pre_process=True).eval()
    assert list(plain.state_dict()) == list(standard.state_dict())
    x = torch.rand(2, 3, 8, 8)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2471, 0.2435, 0.2616]).view(3, 1, 1)
    assert torch.equal(standard(x), plain((x - mean) / std))


@pytest.mark.parametrize("stages", [1, 2, 4, 5])
def test_any_number_of_stages(stages):
    model: Any = create_model(
        "preact_resnet", depths=(1,) * stages, widths=0.5, num_classes=7, in_channels=1
    )
    assert [s.out_channels for s in model.blocks] == [8 * 2**i for i in range(stages)]
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7)


def test_widths_and_channels_say_the_same():
    by_width = tiny(channels=None, widths=(1, 1.25), block="basic", se_reduction=None)
    by_channels = tiny(channels=(16, 16, 40), block="basic", se_reduction=None)
    assert by_width.config == by_channels.config
    states = zip(by_width.state_dict().values(), by_channels.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_options_apply_to_their_stage():
    model: Any = tiny(
        activations=("SiLU", "Mish"), normalizations=("LayerNorm", "BatchNorm"),
        kernel_sizes=(5, 3), strides=(2, 1), stem_stride=2,
    )  # fmt: skip
    assert model.stem_conv.stride == (2, 2)
    first, second = model.blocks[0].layer[0], model.blocks[1].layer[0]
    assert isinstance(first.act, nn.SiLU)
    assert isinstance(second.act, nn.Mish)
    assert isinstance(model.act1, nn.Mish)
    assert isinstance(model.norm1, nn.BatchNorm2d)
    assert first.conv1.kernel_size == (5, 5)
    assert first.conv1.stride == (2, 2)
    assert {c.kernel_size for c in second.conv2} == {(3, 3)}
    assert {c.stride for c in second.conv2} == {(1, 1)}


def test_meta_device_allocates_and_draws_nothing():
    state = torch.get_rng_state()
    with torch.device("meta"):
        model = create_model("wrn_70_16")
    tensors = itertools.chain(model.parameters(), model.buffers())
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert torch.equal(torch.get_rng_state(), state)
