from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.reports.frontier import columns, is_uniform, shares, shown_totals, total
from tests.helpers.made_up_studies import WIDTHS, grid, trial


def with_accuracy(setting: tuple[float, ...], accuracy: float):
    return trial((4,) * len(setting), setting, metrics={"cw-40": accuracy})


def test_shares_and_totals():
    row = trial((1, 2, 5), (4, 6, 10))
    assert total(row, "width") == 20
    assert shares(row, "width") == (0.2, 0.3, 0.5)
    assert shares(row, "depth") == (0.125, 0.25, 0.625)


def test_uniform_needs_two_equal_stages():
    assert is_uniform(trial((4, 4), (3, 5)), "depth")
    assert not is_uniform(trial((4, 4), (3, 5)), "width")
    assert not is_uniform(trial((4,), (3,)), "depth")


def test_published_width_grid_shows_its_crowded_middle():
    assert shown_totals(grid("width", WIDTHS), "width") == tuple(range(24, 43, 2))


def test_few_totals_are_all_shown():
    assert shown_totals(grid("width", (4, 8)), "width") == (12, 16, 20, 24)
    assert shown_totals([], "width") == ()


def test_best_worst_and_most_even_of_a_total():
    rows = [
        with_accuracy((6, 2, 4), 0.9),
        with_accuracy((4, 4, 4), 0.5),
        with_accuracy((2, 4, 6), 0.1),
        with_accuracy((8, 8, 8), 0.6),
    ]
    best, single = columns(rows, "cw-40", "width", "best")
    assert (best.total, best.accuracy, best.trials) == (12, 0.9, 1)
    assert best.shares == pytest.approx((0.5, 1 / 6, 1 / 3))
    assert single.total == 24
    assert columns(rows, "cw-40", "width", "worst")[0].accuracy == 0.1
    assert columns(rows, "cw-40", "width", "uniform")[0].accuracy == 0.5


def test_ties_are_averaged_and_not_decided_by_name():
    rows = [with_accuracy(s, 0.5) for s in ((2, 4, 6), (6, 4, 2), (4, 6, 2))]
    (column,) = columns(rows, "cw-40", "width", "best")
    assert column.trials == 3
    assert column.shares == pytest.approx((1 / 3, 14 / 36, 10 / 36))


def test_five_of_many_are_averaged():
    rows = [
        with_accuracy((k, 60 - k), k / 100) for k in range(1, 31)
    ]  # k and 60 - k differ: no two settings are equally even
    (best,) = columns(rows, "cw-40", "width", "best")
    (worst,) = columns(rows, "cw-40", "width", "worst")
    (even,) = columns(rows, "cw-40", "width", "uniform")
    assert (best.trials, worst.trials, even.trials) == (5, 5, 5)
    assert best.accuracy == pytest.approx(0.28)
    assert worst.accuracy == pytest.approx(0.03)
    assert even.shares[0] == pytest.approx(28 / 60)


def test_trials_without_result_are_left_out():
    rows = grid("width", (4, 8))
    rows = [replace(r, status="failed") if r.name.endswith("8-8-8") else r for r in rows]
    assert [c.total for c in columns(rows, "cw-40", "width", "best")] == [12, 16, 20]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from(["best", "worst", "uniform"]), st.integers(1, 5))
def test_shares_sum_to_one_and_order_does_not_matter(seed, pick, stages):
    rows = grid("depth", (2, 3), stages, seed=seed)
    found = columns(rows, "cw-40", "depth", pick)
    assert found == columns(rows[::-1], "cw-40", "depth", pick)
    for column in found:
        assert len(column.shares) == stages
        assert sum(column.shares) == pytest.approx(1)


def test_best_is_never_below_worst():
    rows = grid("width", WIDTHS)
    best, worst = (columns(rows, "cw-40", "width", pick) for pick in ("best", "worst"))
    assert all(b.accuracy > w.accuracy for b, w in zip(best, worst, strict=True))
