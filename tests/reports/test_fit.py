"""A fit of robust accuracy against cost and shares: what it finds, and how it judges itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from robustray.reports import TrialRow
from robustray.reports.drawings import study_figures
from robustray.reports.fit.advice import advise, describe_advice
from robustray.reports.fit.figure import even_shape, fit_title
from robustray.reports.fit.surface import Shape, fit_surface
from tests.reports.test_report import study

JUDGE = "pgd-20"


def rows(noise: float = 0.0, seed: int = 0) -> list[TrialRow]:
    """Return 27 networks whose accuracy grows with cost, and with the share of the last stage."""
    drawn, found = np.random.default_rng(seed), []
    for widths in product((4.0, 8.0, 16.0), repeat=3):
        macs, last = int(1e6 * sum(w * w for w in widths)), widths[2] / sum(widths)
        accuracy = 0.2 + 0.03 * np.log2(macs / 1e8) + 0.2 * last + noise * drawn.normal()
        name = "w" + "-".join(f"{w:g}" for w in widths)
        metrics = {JUDGE: float(np.clip(accuracy, 0, 1))}
        found.append(TrialRow(name, (1, 1, 1), widths, 1, macs, "finished", metrics=metrics))
    return found


def unfinished(row: TrialRow) -> TrialRow:
    return replace(row, status="unfinished", metrics={})


def test_what_is_linear_is_found():
    surface = fit_surface(rows(), JUDGE)
    assert surface is not None
    assert surface.axes == ("width",)
    assert surface.error < 0.002 < 0.02 < surface.blind
    shape = Shape(3e8, (0.25, 0.25, 0.5), (1 / 3,) * 3)
    (found,) = surface.predict([shape])
    assert found.accuracy == pytest.approx(0.2 + 0.03 * np.log2(3) + 0.1, abs=0.003)
    assert found.one_low <= found.low <= found.accuracy <= found.high <= found.one_high


def test_the_error_is_that_of_networks_that_were_left_out():
    found = rows(noise=0.02)
    surface = fit_surface(found, JUDGE)
    assert surface is not None
    assert 0.015 < surface.error < 0.035
    values = np.array([row.metrics[JUDGE] for row in found])
    others = [np.delete(values, place).mean() for place in range(len(values))]
    assert surface.blind == pytest.approx(np.sqrt(np.mean((values - others) ** 2)))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    shape, inside = Shape(3e8, (0.25, 0.25, 0.5), (1 / 3,) * 3), 0
    truth = 0.2 + 0.03 * np.log2(3) + 0.1
    for seed in range(40):
        surface = fit_surface(rows(0.02, seed), JUDGE)
        assert surface is not None
        (found,) = surface.predict([shape])
        inside += found.low <= truth <= found.high
    assert inside >= 32


def test_the_order_of_trials_says_nothing():
    found = rows(noise=0.02)
    one, other = (fit_surface(some, JUDGE) for some in (found, found[::-1]))
    assert one is not None
    assert other is not None
    shape = even_shape(one, 2e8)
    assert one.predict([shape]) == other.predict([shape])


def test_few_networks_are_not_fitted():
    assert fit_surface(rows()[:11], JUDGE) is None
    assert fit_surface(rows()[:12], JUDGE) is not None
    assert fit_surface([rows()[0]] * 20, JUDGE) is None
    few = [*rows()[:11], *map(unfinished, rows()[11:])]
    text = describe_advice(advise(few, JUDGE), "mine")
    assert "11 networks are judged; a fit takes 12" in text


def test_networks_without_stages_are_fitted_by_cost_alone():
    surface = fit_surface([replace(row, widths=(), depths=()) for row in rows()], JUDGE)
    assert surface is not None
    assert surface.axes == ()
    (found,) = surface.predict([Shape(3e8)])
    assert 0 < found.accuracy < 1


def test_advice_names_what_to_train_next_and_flags_what_is_far_away():
    found = [row if place % 2 else unfinished(row) for place, row in enumerate(rows(noise=0.01))]
    told = advise(found, JUDGE, macs=20e9)
    best = max(
        (row for row in rows() if row.name in {r.name for r in found if not r.metrics}),
        key=lambda row: row.metrics[JUDGE],
    )
    assert best.name in [one["name"] for one in told["next"][:3]]
    assert told["at"]["beyond"] > 20
    assert told["at"]["best"]["accuracy"] >= told["at"]["even"]["accuracy"]
    assert told["at"]["best"]["width_shares"][2] > 0.5
    text = describe_advice(told, "mine")
    assert "next: the most promising trials" in text
    assert "at 20.0G MACs, EXTRAPOLATED" in text
    inside = describe_advice(advise(rows(), JUDGE, macs=3e8), "mine")
    assert "no trial of the grid is left" in inside
    assert "EXTRAPOLATED" not in inside


def test_a_fit_that_says_nothing_says_so():
    drawn = np.random.default_rng(0)
    blind = [replace(row, metrics={JUDGE: float(drawn.uniform())}) for row in rows()]
    assert "predicts no better than the mean" in describe_advice(advise(blind, JUDGE), "mine")


def test_a_report_shows_it_where_there_is_one():
    surface = fit_surface(rows(), JUDGE)
    assert surface is not None
    drawn = {one.name: one for one in study_figures(study(rows(), curves={}), bare=True)}
    assert drawn["fit"].title == fit_title(surface)
    assert "27 networks" in drawn["fit"].title
    assert len(drawn["fit"].figure.axes) == 2
    assert "fit" not in {one.name for one in study_figures(study(rows()[:11], curves={}))}


def test_advice_is_of_networks_that_the_fit_can_tell_of():
    found = [row if place % 2 else unfinished(row) for place, row in enumerate(rows(noise=0.01))]
    left = [row for row in found if not row.metrics]
    stopped = replace(left[0], status="stopped")
    none = replace(left[1], name="mixture", depths=(), widths=())
    more = replace(left[2], name="four", depths=(1,) * 4, widths=(1.0,) * 4)
    told = advise([*(row for row in found if row.metrics), stopped, none, more, left[3]], JUDGE)
    assert [one["name"] for one in told["next"]] == [left[3].name]
