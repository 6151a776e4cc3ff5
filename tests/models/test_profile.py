from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustray.models import ModelError, Profile, counting, create_model, profile
from robustray.models.counting import building_on_meta
from robustray.models.options import SE_POSITIONS
from tests.helpers.closed_form_costs import cost_of

SHAPE = (3, 32, 32)


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options)


def test_robust_network_with_other_block_options_has_another_cost():
    """What the released files describe, which leave the block's options out."""
    model = on_meta(
        "preact_resnet", depths=(14, 14, 7), widths=(5, 7, 3), block="robust",
        scales=4, base_width=64, cardinality=8, se_reduction=16,
    )  # fmt: skip
    assert profile(model, SHAPE).parameters == 144_344_330


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("rrn_a1", 19_291_948),
        ("rrn_a2", 39_126_232),
        ("rrn_a3", 75_971_988),
        ("rrn_a4", 147_400_788),
        ("wrn_28_10", 36_536_884),
        ("wrn_34_r", 68_162_868),
        ("robnet_large_v2", 33_418_916),
        ("advrush", 32_713_348),
        ("racl", 32_659_532),
    ],
)
def test_parameters_for_a_hundred_classes(name, parameters):
    assert profile(on_meta(name, num_classes=100), SHAPE).parameters == parameters


stages = st.integers(1, 4)
one_of = st.sampled_from


@st.composite
def networks(draw):
    n = draw(stages)

    def each(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    options = {
        "depths": each(st.integers(1, 3)),
        "channels": [16, *each(one_of((16, 32, 48, 80)))],
        "strides": each(st.integers(1, 2)),
        "stem_stride": draw(st.integers(1, 2 if n < 4 else 1)),
        "block": each(one_of(("basic", "robust"))),
        "kernel_sizes": each(one_of((1, 3, 5))),
        "normalizations": each(one_of(("BatchNorm", "LayerNorm", "InstanceNorm"))),
        "activations": each(one_of(("ReLU", "SiLU", "Softplus"))),
        "num_classes": draw(st.integers(1, 100)),
    }
    if "robust" in options["block"]:
        options |= {
            "scales": draw(st.integers(1, 8)),
            "base_width": draw(one_of((10, 26, 64))),
            "cardinality": draw(one_of((1, 2, 4))),
            "se": draw(one_of(SE_POSITIONS)),
        }
        if options["se"] != "none":
            options["se_reduction"] = draw(one_of((7, 16, 64)))
    return options


@settings(max_examples=60, deadline=None)
@given(options=networks(), side=one_of((28, 32, 33)))
def test_agrees_with_the_closed_forms(options, side):
    model = on_meta("preact_resnet", **options)
    expected = cost_of(model.config, side)
    counted = profile(model, (3, side, side))
    assert counted.parameters == expected.parameters
    assert counted.conv_linear_macs == expected.products
    assert counted.macs == expected.products + expected.elementwise


@pytest.mark.parametrize("name", ["wrn_28_r", "wrn_46_r", "wrn_70_r"])
def test_points_of_the_figure_agree_with_the_closed_forms(name):
    model = on_meta(name)
    expected = cost_of(model.config)
    assert profile(model, SHAPE) == Profile(
        expected.parameters, expected.products + expected.elementwise, expected.products
    )


@settings(max_examples=15, deadline=None)
@given(widths=st.tuples(*[one_of((4, 6, 8, 10, 12, 14, 16, 20))] * 3))
def test_members_of_the_width_grid(widths):
    model = on_meta("preact_resnet", depths=(4, 4, 4), widths=widths)
    expected = cost_of(model.config)
    assert profile(model, SHAPE) == Profile(
        expected.parameters, expected.products + expected.elementwise, expected.products
    )


class Own(nn.Module):
    """A user's network: constants that are no buffers, functional layers, products."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(3, 1, 1)
        self.conv = nn.Conv2d(3, 8, 3, groups=1, bias=True)
        self.up = nn.ConvTranspose2d(8, 6, 4, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.gate = nn.Linear(6, 6, bias=False)
        self.head = nn.Sequential(nn.LayerNorm(6), nn.Dropout(), nn.Linear(6, 5))

    def forward(self, x):
        x = torch.relu_(self.norm(self.up(self.conv((x - self.mean) / 2))))
        x = nn.functional.max_pool2d(nn.functional.avg_pool2d(x, 2), 3)
        z = nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(z * torch.sigmoid(self.gate(z)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_network_of_the_users(device):
    with torch.device(device):
        model = Own()
    conv = 8 * 3 * 9 * 14**2
    up = 8 * 14**2 * (6 // 2) * 16
    products = conv + up + 6 * 6 + 6 * 5
    elementwise = 6 * 15**2 + 6 + 6 + 6  # average pools, product, layer norm
    parameters = 8 * 27 + 8 + 8 * 3 * 16 + 6 + 36 + 12 + 35
    assert profile(model, (3, 16, 16)) == Profile(parameters, products + elementwise, products)


def test_the_model_is_left_as_it_was():
    model: Any = create_model("preact_resnet", depths=(1, 1), widths=(1, 1)).train()
    model.blocks[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    profile(model, SHAPE)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_any_precision():
    model = create_model("preact_resnet", depths=(1,), widths=(1,))
    assert profile(model, SHAPE) == profile(model.bfloat16(), SHAPE)


def test_mode_is_restored_when_the_shape_does_not_fit():
    model = create_model("preact_resnet", depths=(1,), widths=(1,)).train()
    with pytest.raises(ModelError, match=r"PreActResNet can't be run on shapes \(1, 32, 32\)"):
        profile(model, (1, 32, 32))
    assert all(module.training for module in model.modules())


def test_pre_process_costs_nothing():
    plain, standard = (on_meta("rrn_a1", pre_process=flag) for flag in (False, True))
    assert profile(plain, SHAPE) == profile(standard, SHAPE)


@pytest.mark.parametrize(
    "options", [{"block": "basic"}, {"block": "robust", "activations": "SiLU"}]
)
def test_a_network_on_shapes_counts_like_one_with_memory_however_often(options, monkeypatch):
    monkeypatch.setattr(counting, "_RESULTS", {})
    options |= {"depths": (2, 1, 1), "widths": (1, 2, 1)}
    plain = create_model("preact_resnet", **options)
    with building_on_meta():
        shapes = create_model("preact_resnet", **options)
    assert all(parameter.is_meta for parameter in shapes.parameters())
    first, *more = [profile(model, SHAPE) for model in (plain, shapes, plain)]
    assert more == [first, first]


def test_scalars_of_another_type_are_not_taken_for_each_other():
    class Halves(nn.Module):
        def forward(self, x):
            whole = torch.ones(x.shape, dtype=torch.int64, device=x.device)
            assert (whole + 1).dtype == torch.int64
            assert (whole + 1.0).dtype == torch.float32
            return x * (whole + True)

    assert profile(Halves(), (1, 2, 2)).macs == 4
