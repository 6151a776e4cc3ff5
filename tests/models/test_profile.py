from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustray.models import ModelError, Profile, create_model, profile

from .closed_forms import cost_of

SHAPE = (3, 32, 32)

# depths, widths, block, parameters, macs, conv_linear_macs: rows of the tables of
# "Revisiting Residual Networks for Adversarial Robustness" as measured on its code.
ROWS = [
    ((4, 4, 4), (10, 10, 10), "robust", 39_588_314, 6_004_667_392, 5_989_239_808),
    ((5, 5, 5), (12, 12, 12), "robust", 70_538_874, 10_566_890_752, 10_544_332_800),
    ((7, 7, 7), (14, 14, 14), "robust", 132_890_938, 19_620_952_960, 19_585_192_448),
    ((11, 11, 11), (16, 16, 16), "robust", 269_940_570, 39_319_757_824, 39_257_300_992),
    ((5, 5, 2), (10, 10, 10), "basic", 24_034_394, 5_245_967_232, 5_243_328_768),
    ((4, 4, 4), (11, 13, 6), "basic", 24_521_434, 5_705_371_776, 5_702_864_640),
    ((14, 14, 7), (5, 7, 3), "basic", 18_707_930, 5_080_950_848, 5_076_862_848),
    ((6, 6, 3), (12, 12, 12), "basic", 48_538_074, 9_586_188_544, 9_582_337_536),
    ((5, 5, 5), (13, 16, 7), "basic", 44_415_386, 10_522_456_896, 10_518_712_704),
    ((17, 17, 8), (7, 9, 4), "basic", 38_323_482, 10_842_852_096, 10_836_167_168),
    ((9, 8, 4), (14, 14, 14), "basic", 90_448_986, 18_591_852_160, 18_585_412_352),
    ((7, 7, 7), (16, 18, 8), "basic", 81_664_218, 20_366_857_728, 20_360_647_680),
    ((22, 22, 11), (8, 11, 5), "basic", 75_302_490, 20_225_879_488, 20_215_680_128),
    ((14, 13, 11), (16, 16, 16), "basic", 279_779_802, 44_816_215_040, 44_804_007_936),
    ((14, 13, 6), (16, 16, 16), "basic", 185_387_482, 38_775_761_920, 38_764_210_176),
    ((11, 11, 11), (18, 21, 9), "basic", 169_657_434, 42_717_165_760, 42_706_065_024),
    ((27, 28, 13), (10, 14, 6), "basic", 147_291_738, 40_397_033_600, 40_381_107_968),
    ((4, 4, 4), (10, 10, 10), "basic", 36_479_194, 5_245_639_552, 5_243_328_768),
    ((14, 14, 7), (5, 7, 3), "robust", 19_222_738, 5_105_232_768, 5_080_232_192),
    ((5, 5, 5), (12, 12, 12), "basic", 66_457_818, 9_585_795_328, 9_582_337_536),
    ((5, 5, 5), (20, 20, 8), "basic", 68_116_698, 19_138_024_960, 19_132_765_184),
    ((17, 17, 8), (7, 9, 4), "robust", 39_033_982, 10_779_416_768, 10_738_805_376),
    ((7, 7, 7), (14, 14, 14), "basic", 128_389_210, 18_591_049_344, 18_585_412_352),
    ((22, 22, 11), (8, 11, 5), "robust", 75_856_698, 19_881_445_120, 19_819_890_176),
    ((11, 11, 11), (16, 16, 16), "basic", 266_796_506, 38_774_320_128, 38_764_210_176),
    ((27, 28, 13), (10, 14, 6), "robust", 147_262_458, 39_368_543_616, 39_272_890_880),
]


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize(("depths", "widths", "block", "parameters", "macs", "products"), ROWS)
def test_measured_rows(depths, widths, block, parameters, macs, products):
    model = on_meta("preact_resnet", depths=depths, widths=widths, block=block)
    assert profile(model, SHAPE) == Profile(parameters, macs, products)


@pytest.mark.parametrize(
    ("options", "parameters", "products"),
    [
        ((1, 160, 1, 16), 295_695_834, 39_041_982_464),
        ((1, 160, 1, 64), 272_987_610, 39_019_274_240),
        ((1, 60, 4, 64), 272_533_466, 39_294_001_152),
    ],
)
def test_bottleneck_variants(options, parameters, products):
    names = ("scales", "base_width", "cardinality", "se_reduction")
    given = dict(zip(names, options, strict=True))
    model = on_meta(
        "preact_resnet", depths=(11, 11, 11), widths=(16, 16, 16), block="robust", **given
    )
    counted = profile(model, SHAPE)
    assert (counted.parameters, counted.conv_linear_macs) == (parameters, products)


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
            "se_reduction": draw(one_of((7, 16, 64))),
        }
    return options


@settings(max_examples=40, deadline=None)
@given(options=networks(), side=one_of((28, 32, 33)))
def test_agrees_with_the_closed_forms(options, side):
    model = on_meta("preact_resnet", **options)
    expected = cost_of(model.config, side)
    counted = profile(model, (3, side, side))
    assert counted.parameters == expected.parameters
    assert counted.conv_linear_macs == expected.products
    assert counted.macs == expected.products + expected.elementwise


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
    model = create_model("preact_resnet", depths=(1, 1), widths=(1, 1)).train()
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
