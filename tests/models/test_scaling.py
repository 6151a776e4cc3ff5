"""RobustScaling: published settings, the split that reproduces them, and settings of equal cost."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.models import create_model, profile
from robustray.scaling.check import known_costs
from robustray.scaling.rules import (
    BY_DEPTH,
    BY_WIDTH,
    COMPOUND,
    DEPTH_SHARE,
    RATIO_SHARES,
    RATIO_TARGETS,
    STANDARD,
    basic_macs,
    compound,
    ratio_settings,
    split,
)

TOTALS = {5: (35, 15), 10: (42, 20), 15: (50, 21), 20: (55, 24), 30: (62, 27), 40: (68, 30)}
# Of basic blocks, in GMACs, as counted from the authors' code.
COUNTED = {5: 5.08, 10: 10.84, 15: 14.60, 20: 20.23, 30: 30.53, 40: 40.40}


@pytest.mark.parametrize("target", COMPOUND)
def test_the_split_reproduces_every_published_setting(target):
    assert split(*TOTALS[target]) == COMPOUND[target]
    assert COMPOUND[target].macs / 1e9 == pytest.approx(COUNTED[target], abs=0.005)
    assert abs(COMPOUND[target].depth_share - DEPTH_SHARE) <= Fraction(1, 40)


@pytest.mark.parametrize("name", ["wrn_a1", "wrn_a2", "wrn_a3", "wrn_a4"])
def test_the_catalogue_holds_the_published_settings(name):
    assert known_costs()[name].recorded.macs == COMPOUND[(5, 10, 20, 40)[int(name[-1]) - 1]].macs


@settings(max_examples=12, deadline=None)
@given(
    depths=st.tuples(*[st.integers(1, 3)] * 3),
    widths=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_the_formula_counts_what_profile_counts(depths, widths):
    with torch.device("meta"):
        model = create_model("preact_resnet", depths=depths, widths=widths)
    assert basic_macs(depths, widths) == profile(model, (3, 32, 32)).macs


@given(st.integers(5, 200), st.integers(3, 120))
def test_a_split_keeps_its_totals_and_leaves_no_stage_empty(depth, width):
    found = split(depth, width)
    assert (sum(found.depths), sum(found.widths)) == (depth, width)
    assert min(found.depths + found.widths) >= 1
    assert abs(found.depths[0] - found.depths[1]) <= 1
    assert found.depth_share == Fraction(depth, depth + width)


@pytest.mark.parametrize("target", RATIO_TARGETS)
def test_the_ratio_study_compares_settings_of_equal_cost(target):
    found = ratio_settings(target * 1e9)
    assert len(set(found)) == len(RATIO_SHARES)
    for setting, share in zip(found, RATIO_SHARES, strict=True):
        assert abs(setting.depth_share - share) <= Fraction(1, 40)
        assert abs(setting.macs / (target * 1e9) - 1) <= 0.05
    assert all(Fraction(3, 10) <= s.depth_share < Fraction(19, 20) for s in found)


def test_independent_scaling_keeps_the_totals_of_the_even_networks():
    for target, setting in BY_DEPTH.items():
        assert sum(setting.depths) == sum(STANDARD[target].depths)
        assert setting.widths == STANDARD[target].widths
    for target, setting in BY_WIDTH.items():
        assert sum(setting.widths) == sum(STANDARD[target].widths)
        assert setting.depths == STANDARD[target].depths


@pytest.mark.parametrize("target", [1e3, 1e6, 1e7])
def test_an_impossible_budget_is_refused(target):
    with pytest.raises(ValueError, match="too few: the smallest network"):
        compound(target)


@pytest.mark.parametrize("totals", [(4, 9), (9, 2)])
def test_empty_stages_are_refused(totals):
    with pytest.raises(ValueError, match="leave a stage empty"):
        split(*totals)
