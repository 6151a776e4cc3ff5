"""Depth against width at equal cost: groups, table, fit, figure."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from robustray.reports import StudyReport, render, write_report
from robustray.reports.equal_cost import (
    cost_groups,
    depth_share,
    equal_cost_figure,
    parabola,
)
from robustray.scaling.rules import RATIO_TARGETS, ratio_settings
from tests.helpers.made_up_studies import trial

ROWS = [
    replace(trial(s.depths, s.widths), macs=s.macs)
    for target in RATIO_TARGETS
    for s in ratio_settings(target * 1e9)
]


def test_the_ratio_study_falls_into_its_two_costs():
    groups = cost_groups(ROWS)
    assert [len(group) for group in groups] == [13, 13]
    for group, target in zip(groups, RATIO_TARGETS, strict=True):
        assert all(abs(row.macs / (target * 1e9) - 1) <= 0.05 for row in group)


def test_a_staircase_of_costs_is_no_group():
    rows = [replace(row, macs=int(1e9 * 1.25**i)) for i, row in enumerate(ROWS[:8])]
    assert cost_groups(rows) == []
    assert cost_groups([replace(row, depths=(), widths=()) for row in ROWS]) == []


def test_a_parabola_is_found_and_its_band_closes_without_noise():
    x_N, x_G = np.linspace(0.3, 0.9, 7), np.array([0.2, 0.5, 0.95])
    fitted_G, half_G = parabola(x_N, 54 + 3 * x_N - 2 * x_N**2, x_G)
    assert fitted_G == pytest.approx(54 + 3 * x_G - 2 * x_G**2)
    assert half_G == pytest.approx(0, abs=1e-6)


def test_the_band_covers_the_truth_as_often_as_it_says():
    rng, x_N, x_G = np.random.default_rng(0), np.linspace(0.3, 0.9, 13), np.array([0.7])
    hits = 0
    for _ in range(400):
        fitted_G, half_G = parabola(x_N, 54 - x_N**2 + rng.normal(0, 0.3, 13), x_G)
        hits += abs(fitted_G[0] - (54 - 0.49)) <= half_G[0]
    assert 0.92 <= hits / 400 <= 0.98


def test_table_and_figure_of_a_list_study(tmp_path):
    rows = [*ROWS[1:], replace(ROWS[0], status="unfinished", metrics={})]
    report = StudyReport("ratio", "ratio-1", "list", "cifar10", rows)
    names = {path.name for path in write_report(report, tmp_path)}
    assert {"equal_cost.csv", "equal_cost.png", "table.csv"} <= names
    assert not {"shares_width.png", "shares_depth.png"} & names
    table = list(csv.DictReader((tmp_path / "equal_cost.csv").open()))
    assert len(table) == len(ROWS)
    by_name = {row["name"]: row for row in table}
    assert by_name[ROWS[0].name]["cw-40"] == ""  # missing, and no zero
    for row in rows[:-1]:
        assert float(by_name[row.name]["depth_share"]) == depth_share(row)
        assert float(by_name[row.name]["cw-40"]) == row.metrics["cw-40"]


def test_one_mark_for_each_trial_with_a_result():
    figure = equal_cost_figure(ROWS[:-2], metric="cw-40", caption="x")
    render(figure)
    marks = [len(np.asarray(axes.collections[-1].get_offsets())) for axes in figure.axes]
    assert marks == [13, 11]


def test_three_trials_are_drawn_without_a_curve():
    figure = equal_cost_figure(ROWS[:3], metric="cw-40")
    assert not figure.axes[0].lines
