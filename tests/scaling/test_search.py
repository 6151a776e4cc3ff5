"""Paths of rules, and the network that is found on them, with costs by formula."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.errors import ModelError
from robustray.scaling import RULES, Rule
from robustray.scaling.ratios import ROBUST_RESNET, Division, find_rule, read_multiple
from robustray.scaling.rules import COMPOUND, Setting, compound, split
from robustray.scaling.search import CLOSE, choose

CHANNELS = tuple(16 * 2**stage for stage in range(6))


def macs(at: Division, side: int = 32) -> int:
    """Count stages of 3 x 3 convolutions, each of half the side of the one before."""
    total, before = 0, 3
    for stage, (depth, width) in enumerate(zip(at.depths, at.widths, strict=True)):
        after, pixels = int(width), max(1, side // 2**stage) ** 2
        total += pixels * (9 * before * after + 9 * (depth - 1) * after**2)
        before = after
    return total


rules = st.one_of(
    st.tuples(st.sampled_from(sorted(RULES)), st.integers(2, 6)).map(
        lambda drawn: RULES[drawn[0]].stretch(drawn[1])
    ),
    st.integers(2, 6).flatmap(
        lambda stages: st.builds(
            Rule,
            st.just("drawn"),
            st.tuples(*[st.integers(1, 6)] * stages),
            st.tuples(*[st.sampled_from([1, 1.5, 2, 2.5, 3])] * stages),
            st.sampled_from([0.3, 0.5, 0.7, 0.8]),
        )
    ),
)
multiples = st.sampled_from([4, 8, 16])
targets = st.floats(7, 10).map(lambda power: 10**power)


@cache
def path_of(rule: Rule, multiple: int) -> list[Division]:
    """All networks of a rule that the targets need, and some more."""
    points = rule.path(CHANNELS[: len(rule.depths)], Fraction(multiple))
    return list(takewhile(lambda at: macs(at) < 3e10, points))


@settings(max_examples=40, deadline=None)
@given(rules, multiples)
def test_networks_of_a_path_grow_by_one_step_and_keep_the_ratios(rule, multiple):
    path = path_of(rule, multiple)[:120]
    for one, after in pairwise(path):
        grown = [b - a for a, b in zip(one.depths, after.depths, strict=True)]
        wider = [b - a for a, b in zip(one.widths, after.widths, strict=True)]
        assert sorted([*grown, *(step / multiple for step in wider)])[-2:] == [0, 1]
        assert sum(grown) + sum(wider) / multiple == 1
    for at in path:
        depths, factors = rule.ideal(at.total_width)
        for blocks, exact in zip(at.depths, depths, strict=True):
            assert abs(blocks - exact) <= 1 + 1e-9
        for width, exact, unit in zip(at.widths, factors, at.units, strict=True):
            assert abs(width - exact * unit) <= multiple * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(rules, multiples, targets)
def test_few_networks_are_counted_to_find_the_right_one(rule, multiple, target):
    path, counted = path_of(rule, multiple), []

    def count(at: Division) -> int:
        counted.append(at)
        return macs(at)

    def away(at: Division) -> float:
        return abs(macs(at) - target) / target

    close = [at for at in path if (1 - CLOSE) * target <= macs(at) < (1 + CLOSE) * target]
    nearest = min(path, key=away)
    if not close and away(nearest) > 0.1:
        with pytest.raises(ModelError, match="GMACs"):
            choose(iter(path), rule.depth_share, target, count, 0.1)
        return
    found = choose(iter(path), rule.depth_share, target, count, 0.1)
    assert len(counted) == len(set(counted)) <= 40
    if not close:
        assert away(found) == away(nearest) <= 0.1
        return
    distance = abs(float(found.depth_share) - rule.depth_share)
    assert found in close
    assert distance == min(abs(float(at.depth_share) - rule.depth_share) for at in close)


@settings(max_examples=40, deadline=None)
@given(rules, multiples, targets, targets)
def test_a_larger_budget_shrinks_nothing(rule, multiple, one, other):
    def find(target: float) -> Division:
        return choose(iter(path_of(rule, multiple)), rule.depth_share, target, macs, 0.9)

    try:
        small, large = find(min(one, other)), find(max(one, other))
    except ModelError:
        return
    assert all(a <= b for a, b in zip(small.depths, large.depths, strict=True))
    assert all(a <= b for a, b in zip(small.widths, large.widths, strict=True))


def test_roundings_are_those_of_the_published_networks():
    """Of the totals that the authors chose, the published depths; and all widths but one."""
    for target, setting in COMPOUND.items():
        depth, width = sum(setting.depths), sum(setting.widths)
        two, five = Fraction(2 * depth, 5), Fraction(5 * width, 11)
        assert setting.depths == (round(two), -(-two // 1), depth // 5)
        thin = (2 * width * 2 // 11, int(five + Fraction(1, 2)), -(-2 * width // 11))
        assert (thin == setting.widths) == (target != 30)
        assert split(depth, width) == setting


@pytest.mark.parametrize("target", COMPOUND)
def test_published_networks_are_found_or_neighbours_of_theirs(target):
    found, published = compound(target * 1e9), COMPOUND[target]
    if target in (5, 15, 20):
        assert found == published
    for values, printed in ((found.depths, published.depths), (found.widths, published.widths)):
        assert all(abs(a - b) <= 1 for a, b in zip(values, printed, strict=True))
    assert found.depth_share == pytest.approx(0.7, abs=0.01)


def test_what_is_found_beside_the_published_networks():
    assert compound(10e9) == Setting((17, 18, 8), (6, 9, 4))
    assert compound(30e9) == Setting((26, 26, 12), (10, 12, 5))
    assert compound(40e9) == Setting((28, 28, 14), (10, 14, 6))


def test_a_rule_of_three_stages_is_stretched():
    four = ROBUST_RESNET.stretch(4)
    assert (four.depths, four.widths) == ((2, 2, 2, 1), (2, 2.5, 2.5, 1))
    assert four.depth_rounding == ("nearest", "up", "up", "down")
    assert ROBUST_RESNET.stretch(2).widths == (2, 1)
    assert ROBUST_RESNET.stretch(3) is ROBUST_RESNET
    with pytest.raises(ValueError, match="one of 4 stages, not of 5"):
        Rule("mine", (1, 1, 1, 1), (1, 1, 1, 1), 0.5).stretch(5)
    with pytest.raises(ValueError, match="from 2 to 6"):
        ROBUST_RESNET.stretch(7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widths": (1, 1)}, "as many of both"),
        ({"depths": (1,), "widths": (1,)}, "2 to 6"),
        ({"depths": (1, 0, 1)}, "no ratio"),
        ({"depths": (1, float("nan"), 1)}, "no ratio"),
        ({"depth_share": 1}, "no share"),
        ({"depth_rounding": ("up",)}, "1 roundings for 3 stages"),
        ({"width_rounding": ("up", "up", "dwn")}, "did you mean 'down'"),
    ],
)
def test_what_is_no_rule_is_refused(changes, words):
    fields = {"depths": (1, 1, 1), "widths": (1, 1, 1), "depth_share": 0.5} | changes
    with pytest.raises(ModelError, match=words):
        Rule("mine", **fields)


def test_rules_have_names():
    assert find_rule("uniform") is RULES["uniform"]
    assert find_rule("robustray.scaling.ratios:UNIFORM") is RULES["uniform"]
    with pytest.raises(ModelError, match="did you mean 'robust_resnet'"):
        find_rule("robust-resnet")
    with pytest.raises(ModelError, match="is a int, not a"):
        find_rule("robustray.scaling.search:CLOSE".replace("CLOSE", "_POWER"))


@pytest.mark.parametrize("multiple", [0, -1, "x", "1/0", float("nan"), float("inf"), True, None])
def test_what_widths_can_t_be_multiples_of(multiple):
    with pytest.raises(ModelError, match="multiple: "):
        read_multiple(multiple, whole=False)


def test_multiples_are_exact():
    assert read_multiple("1/4", whole=False) == read_multiple(0.25, whole=False) == Fraction(1, 4)
    assert read_multiple(0.1, whole=False) == Fraction(1, 10)
    with pytest.raises(ModelError, match="whole number"):
        read_multiple("1/4", whole=True)
