"""Networks of users', and the published ones, at a budget; all counted by the real counter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustray.cli import main
from robustray.errors import UserError
from robustray.models import RobustResBlock, create_model, profile
from robustray.scaling import Rule, ScaledNetwork, scale
from robustray.scaling.rules import COMPOUND
from tests.helpers.user_packages import put_package

ROBUST = {"block": "robust"}


def plain(depths, widths, num_classes=10, in_channels=3):
    """Stages of single convolutions, the first of each with a stride."""
    layers: list[nn.Module] = []
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for place in range(depth):
            stride = 2 if stage > 0 and place == 0 else 1
            layers.append(nn.Conv2d(in_channels, width, 3, stride, padding=1))
            in_channels = width
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes)]
    return nn.Sequential(*layers, *tail)


def growing(depths, widths, in_channels=3):
    """Block number n of a stage has n convolutions."""
    more = [depth * (depth + 1) // 2 for depth in depths]
    return plain(more, widths, 10, in_channels)


def grouped(depths, widths):
    """A network whose widths have to be multiples of 32."""
    return nn.Sequential(nn.Conv2d(3, widths[0], 3), nn.GroupNorm(32, widths[0]))


def unsized(depths, widths):
    """A network that can't be built without numbers."""
    assert float(torch.ones(2).sum()) == 2
    return plain(depths, widths)


def test_the_first_published_network_follows_the_rule():
    found = scale("preact_resnet", 5e9, arguments=ROBUST)
    assert (found.depths, found.widths) == (COMPOUND[5].depths, COMPOUND[5].widths)
    with torch.device("meta"):
        published = profile(create_model("rrn_a1"), (3, 32, 32))
    assert found.profile == published
    assert (published.parameters, published.macs) == (19_222_738, 5_105_232_768)
    assert found.depth_share == pytest.approx(0.7)
    assert found.off == pytest.approx(0.021, abs=5e-4)
    assert found.builds <= 25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "depths", "widths"),
    [
        (10, (18, 18, 8), (6, 9, 4)),
        (20, (22, 23, 11), (8, 11, 5)),
        (40, (28, 28, 14), (10, 14, 6)),
    ],
)
def test_the_others_differ_by_at_most_one_block_or_factor(target, depths, widths):
    found = scale("preact_resnet", target * 1e9, arguments=ROBUST)
    assert (found.depths, found.widths) == (depths, widths)
    published = COMPOUND[target]
    pairs = zip((*depths, *widths), (*published.depths, *published.widths), strict=True)
    assert all(abs(a - b) <= 1 for a, b in pairs)
    assert abs(found.off) <= 0.03


def check_rule(found: ScaledNetwork, multiple: int) -> None:
    """Whether some total gives every depth and width within one step of it."""
    low, high = 0.0, math.inf
    depths, factors = found.rule.ideal(1)
    units = [16 * 2**stage for stage in range(len(depths))]
    for slope, value, step in (
        *((d, v, 1.0) for d, v in zip(depths, found.depths, strict=True)),
        *((u * f, w, multiple) for u, f, w in zip(units, factors, found.widths, strict=True)),
    ):
        low, high = max(low, (value - step) / slope), min(high, (value + step) / slope)
    assert low <= high * (1 + 1e-9)


@settings(max_examples=5, deadline=None)
@given(
    stages=st.integers(2, 6),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(16, 96), st.integers(16, 96)),
    power=st.floats(0.3, 1.8),
    multiple=st.sampled_from([2, 4, 8]),
)
def test_any_network_at_any_budget(stages, shape, power, multiple):
    def find(target: float) -> ScaledNetwork:
        return scale(plain, target, input_shape=shape, stages=stages, multiple=multiple,
                     tolerance=0.5)  # fmt: skip

    base = plain((4,) * stages, [16 * 2**i for i in range(stages)], 10, shape[0])
    target = profile(base, shape).macs * 10**power
    found, larger = find(target), find(1.3 * target)
    with torch.device("meta"):
        assert profile(found.build(), shape) == found.profile
    assert abs(found.off) <= 0.1
    check_rule(found, multiple)
    assert all(width % multiple == 0 for width in found.widths)
    assert all(a <= b for a, b in zip(found.depths, larger.depths, strict=True))
    assert all(a <= b for a, b in zip(found.widths, larger.widths, strict=True))


def test_blocks_that_differ_are_counted_whole():
    found = scale(growing, 2e9, "uniform")
    assert profile(growing(found.depths, found.widths), (3, 32, 32)) == found.profile
    assert abs(found.off) <= 0.1


def test_what_can_t_be_built_without_numbers_is_built_with_them():
    state = torch.random.get_rng_state()
    found = scale(unsized, 2e8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found.profile == scale(plain, 2e8).profile
    assert found.depths == scale(plain, 2e8).depths


def test_widths_are_what_the_factory_takes():
    channels = scale("preact_resnet", 1e9, widths=[1, 1, 1])

    def factors(depths, widths):
        return create_model("preact_resnet", depths=depths, widths=widths)

    assert scale(factors, 1e9, widths="factors").profile == channels.profile
    halves = scale("preact_resnet", 1.4e9, multiple="1/2")
    assert all(float(2 * width).is_integer() for width in halves.widths)
    assert any(not float(width).is_integer() for width in halves.widths)
    assert abs(halves.off) <= 0.03
    given = scale(plain, 1e9, widths=(64, 128, 256))
    assert given.factors == tuple(w / u for w, u in zip(given.widths, (64, 128, 256), strict=True))


def test_even_networks_stay_even():
    found = scale("preact_resnet", 5.2e9, "uniform", tolerance=0.3)
    assert (found.depths, found.widths) == ((4, 4, 4), (10, 10, 10))  # WRN-28-10


def test_ratios_of_ones_own():
    rule = Rule("mine", (1, 3, 1, 1), (1, 1, 1, 2), 0.6)
    found = scale(plain, 3e9, rule, input_shape=(3, 48, 64))
    assert found.rule is rule
    assert found.depth_share == pytest.approx(0.6, abs=0.03)
    assert found.depths[1] / found.depths[0] == pytest.approx(3, abs=0.6)


@pytest.mark.parametrize(
    ("factory", "wanted", "words"),
    [
        (plain, {"target_macs": 1e4}, "too few: the smallest .*, depths 2-2-1 and"),
        (plain, {"target_macs": 0}, "target_macs: 0 is not a number above 0"),
        (plain, {"target_macs": math.nan}, "target_macs: nan"),
        (plain, {"target_macs": True}, "target_macs: True"),
        (plain, {"stages": 1}, "stages: 1 is not a whole number from 2 to 6"),
        (plain, {"input_shape": (3, 32)}, "input_shape: .* is not"),
        (plain, {"input_shape": (3, 32, 0)}, "input_shape: .* is not"),
        (plain, {"tolerance": 1}, "tolerance: 1 is not a share"),
        (plain, {"widths": "channel"}, "did you mean 'channels'"),
        (plain, {"widths": (16, 32)}, "for each of 3 stages"),
        (plain, {"multiple": "1/2"}, "multiple: '1/2' is not a whole number"),
        (plain, {"arguments": {"depths": (1, 1, 1)}}, "depths is what the rule finds"),
        (plain, {"rule": "robust"}, "did you mean 'robust_resnet'"),
        (lambda depths: nn.Identity(), {}, "takes no widths, so it can't be scaled"),
        ("wrn_a1", {}, "wrn_a1 takes no depths and no widths"),
        ("preact_resne", {}, "preact_resnet"),
        ("preact_resnet", {"arguments": {"blocks": 1}}, "does not take the option 'blocks'"),
        ("nothere.net:make", {}, "can't be imported"),
        (unsized, {"num_classes": 3}, "takes no num_classes"),
        (lambda depths, widths: 3, {}, "returns a int, not a torch.nn.Module"),
        (grouped, {}, "depths 2-2-1 and widths 8-32-32: .*multiple"),
        ("preact_resnet", {"target_macs": 0.06e9}, "nearest networks .*: depths .*; depths"),
        (lambda depths, widths: nn.Conv2d(3, 8, 3), {}, "the largest network of the rule"),
    ],
)  # fmt: skip
def test_what_can_t_be_scaled_is_one_message(factory, wanted, words):
    with pytest.raises(UserError, match=words):
        scale(factory, **({"target_macs": 1e9} | wanted))


def test_a_network_with_robust_blocks_learns_and_is_counted():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        first := RobustResBlock(16, 16),
        second := RobustResBlock(first.out_channels, 32, stride=2),
        nn.BatchNorm2d(second.out_channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(second.out_channels, 2),
    )
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 2
    x[y == 1] = x[y == 1] * 0.5
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    counted = profile(network, (1, 8, 8))
    # the closed forms of the study: in * M + 7 * 9 * w**2 / 4 + M * e and the shortcut, per pixel
    stem = 9 * 1 * 16 * 64
    one = 64 * (16 * 32 + 7 * 9 * 4 + 32 * 64 + 16 * 64) + 2 * 64 * 1
    two = 64 * 64 * 64 + 16 * (7 * 9 * 16 + 64 * 128 + 64 * 128) + 2 * 128 * 2
    assert counted.conv_linear_macs == stem + one + two + 2 * 128


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels: 0 is not a whole number of at least 1"),
        ({"stride": 0}, "stride: 0"),
        ({"kernel_size": 2}, "kernel_size: 2 is even"),
        ({"se": "residul"}, "did you mean 'residual'"),
        ({"activation_name": "relu6"}, "unknown activation"),
        ({"channels": 8}, "at least 160"),
    ],
)
def test_a_robust_block_that_can_t_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RobustResBlock(**({"in_channels": 16, "channels": 16} | options))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(put_package(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))


def plan(*words: str) -> int:
    return main(["plan", *words])


def test_a_users_network_is_planned(folder, capsys):
    words = ["--target-gmacs", "0.5", "--model", "toyplugin.nets:staged", "--input", "1x48x64"]
    assert plan(*words, "--stages", "4", "--num-classes", "7") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:20].strip(): line[20:].split() for line in lines[4:10]}
    assert list(rows) == [
        *(f"stage {n}" for n in range(1, 5)),
        "stem, firsts, head",
        "whole network",
    ]
    for column in (-1, -2):
        numbers = [float(row[column].replace(",", "")) for row in rows.values()]
        assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=3e-4)
    assert float(rows["whole network"][-1]) == pytest.approx(0.5, rel=0.1)
    assert "num_classes=7, in_channels=1, depths=(" in lines[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rule", "uniform"], "--rule: only with --target-gmacs"),
        (["--model", "preact_resnet"], "--model: only with --target-gmacs"),
        (["--target-gmacs", "5", "--stages", "4"], "--stages: only with --model"),
        (["--target-gmacs", "5", "--set", "block=robust"], "--set: only with --model"),
        (["--target-gmacs", "5", "--model", "preact_resnet", "--large"], "leave out --large"),
        (["--target-gmacs", "5", "--model", "preact_resnet", "--input", "3x64"], "CxHxW"),
        (["--target-gmacs", "5", "--model", "preact_resnet", "--input", "0x8x8"], "CxHxW"),
        (["--target-gmacs", "5", "--model", "preact_resnet", "--rule", "x.y"], "unknown rule"),
        (["--target-gmacs", "0", "--model", "preact_resnet"], "a number above 0"),
        (["--target-gmacs", "5", "--model", "preact_resnet", "--stages", "9"], "from 2 to 6"),
        (["--target-gmacs", "5", "--model", "preact_resnet", "--set", "x"], "option=value"),
        (["--target-gmacs", "5", "--model", "timm"], "unknown model 'timm'"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_one_message(capsys, words, message):
    assert plan(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("error: ")
