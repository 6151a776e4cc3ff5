"""What runs answer: the sentence on top of pages, with its interval."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import norm

from robustray.reports.accuracy import accuracy_title
from robustray.reports.answers import (
    Answer,
    answer_corruptions,
    answer_evaluation,
    answer_study,
    measured,
    write_note,
)
from robustray.reports.intervals import difference, wilson
from tests.helpers.made_up_studies import grid, trial
from tests.reports.test_report import study

IMAGES = {"clean": 1000, "pgd-20": 1000, "cw-40": 1000}
EVEN = trial((4, 4, 4), (8, 8, 8), metrics={"cw-40": 0.518})
BEST = trial((4, 4, 4), (12, 8, 4), metrics={"cw-40": 0.531}, macs=int(EVEN.macs * 1.01))


def answered(*rows, **changes):
    return answer_study(study(rows, tested=IMAGES, **changes))


def test_a_sweep_names_its_best_with_intervals():
    found = answered(EVEN, BEST)
    assert found.question.startswith("Which of 2 networks is the most robust on digits[:500]")
    assert found.sentence == (
        "Best: d4-4-4_w12-8-4, 53.1 % [50.0, 56.2] under CW-40; +1.3 points [-3.1, +5.7] over the "
        "uniform network of equal cost, not significant."
    )
    assert found.numbers["CW-40"] == "53.1 % [50.0, 56.2]"
    assert not found.partial


def test_a_difference_that_many_images_show_is_not_called_chance():
    many = dict.fromkeys(IMAGES, 50_000)
    found = answer_study(study([EVEN, BEST], tested=many))
    assert "+1.3 points [+0.7, +1.9] over the uniform network of equal cost." in found.sentence


def test_equal_accuracies_are_level():
    cheaper = replace(BEST, metrics=EVEN.metrics, macs=int(EVEN.macs * 0.95))
    found = answered(EVEN, cheaper)
    assert found.sentence.endswith("CW-40; level with the uniform network of equal cost.")
    title = accuracy_title([EVEN, cheaper], "cw-40", ["width"])
    assert title.endswith("robust under CW-40, level with the uniform network of equal cost")


@pytest.mark.parametrize(
    "rows",
    [
        [BEST],  # of several: there is none to compare with
        [replace(EVEN, macs=2 * EVEN.macs), BEST],
        [replace(EVEN, metrics={"cw-40": 0.6}), BEST],  # the best is uniform itself
        [replace(EVEN, status="failed", metrics={}), BEST],
    ],
)
def test_nothing_is_compared_without_a_uniform_network_of_its_cost(rows):
    assert "points over" not in answered(*rows, planned_trials=2).sentence


def test_a_lone_network_is_compared_with_none():
    found = answered(BEST, grid="none")
    assert found.question.startswith("How robust is d4-4-4_w12-8-4, trained on digits[:500]")
    assert found.sentence == "53.1 % [50.0, 56.2] under CW-40."
    both = replace(BEST, metrics={"clean": 0.9, **BEST.metrics})
    assert answered(both, grid="none").sentence.endswith("; 90.0 % [88.0, 91.7] without attack.")
    assert not any("Median" in word for word in found.numbers)


def test_what_is_not_known_is_not_said():
    waiting = trial((4,), (4,), status="unfinished", metrics={})
    found = answered(waiting, planned_trials=8)
    assert (
        found.sentence == "Nothing is known yet: 0 of 8 trials finished, 1 unfinished, 7 missing."
    )
    assert found.partial
    assert answered(BEST, waiting).sentence.startswith("Best so far: ")
    assert answer_study(study([EVEN, BEST])).sentence == (
        "Best: d4-4-4_w12-8-4, 53.1 % under CW-40; +1.3 points over the uniform network of equal "
        "cost."
    )


def test_grids_of_both_axes_want_both_uniform():
    uneven_depth = replace(EVEN, name="uneven", depths=(3, 4, 5))
    assert "uniform" not in answered(uneven_depth, BEST, grid="both").sentence
    assert "uniform" in answered(EVEN, BEST, grid="both").sentence
    assert "uniform" in answered(EVEN, BEST, grid="list").sentence


def evaluation(**changes):
    rate = {"correct": 80, "total": 100, "accuracy": 0.8, "interval_95": list(wilson(80, 100))}
    robust = {"correct": 30, "total": 100, "accuracy": 0.3, "interval_95": list(wilson(30, 100))}
    attack = {"label": "fgsm", "attacked": 80, "broken": 50, "accuracy_after": 0.3}
    return {
        "subject": {"network": {"factory": "mine:net"}}, "audit": [], "attacks": [attack],
        "data": {"label": "digits", "count": 100}, "threat": {"norm": "linf", "eps": 8 / 255},
        "suite": {"name": "autoattack-standard"}, "partial": False, "clean": rate,
        "robust": robust, "bounds": None,
    } | changes  # fmt: skip


def test_an_evaluation_says_what_withstands():
    found = answer_evaluation(evaluation())
    assert found.question == "How robust is mine:net on 100 images of digits (linf, eps = 8/255)?"
    assert found.sentence == (
        "30.0 % [21.9, 39.6] of 100 images withstand AutoAttack; 80.0 % [71.1, 86.7] are "
        "classified correctly without attack."
    )
    assert found.numbers["After fgsm"] == "30.0 %, 50 of 80 broken"
    doubt = {"check": "zero_gradient", "severity": "error", "message": "gradients vanish"}
    assert answer_evaluation(evaluation(audit=[doubt])).doubts == ["gradients vanish"]


def test_a_partial_evaluation_gives_bounds():
    nothing = {"correct": 0, "total": 0, "accuracy": None, "interval_95": None}
    found = answer_evaluation(
        evaluation(partial=True, robust=None, bounds=[0.1, 0.9], clean=nothing)
    )
    assert found.partial
    assert found.sentence.startswith("Robust accuracy lies between 10.0 and 90.0 % so far")


def test_corruptions_name_the_best_network():
    def network(mean):
        cells = [{"total": 200}]
        return {"mean_accuracy": mean, "clean": None, "corruptions": {"fog": {"severities": cells}}}

    result = {
        "networks": {"one": network(0.5), "two": network(0.75)}, "averaged": ["fog"],
        "subjects": {"one": {}, "two": {}},
        "data": {"name": "cifar10-c"}, "severities": [3, 1, 2],
    }  # fmt: skip
    found = answer_corruptions(result)
    assert found.question == (
        "How well do 2 networks classify cifar10-c under 1 corruption, severities 1 to 3?"
    )
    assert found.sentence == f"Best: two, {measured(0.75, 200)} mean accuracy over 1 corruption."
    result["networks"].pop("one")
    part = answer_corruptions(result)
    assert part.partial
    assert part.sentence.startswith("Best so far: two, 75.0 %")
    result["subjects"].pop("one")
    assert not answer_corruptions(result).partial
    assert answer_corruptions(result).question.startswith("How well does two classify")


@pytest.mark.parametrize(("p", "q", "n"), [(0.5, 0.4, 200), (0.9, 0.1, 50), (1.0, 0.98, 1000)])
def test_the_interval_of_a_difference_holds_it_and_narrows_with_images(p, q, n):
    low, high = difference(p, q, n)
    assert -1 <= low < p - q < high <= 1 or p == 1.0
    wide = high - low
    assert difference(p, q, 100 * n)[1] - difference(p, q, 100 * n)[0] < wide / 3
    assert difference(q, p, n) == pytest.approx((-high, -low))


def test_the_interval_of_a_difference_is_the_normal_one_for_many_images():
    p, q, n = 0.5, 0.4, 1_000_000
    half = norm.ppf(0.975) * ((p * (1 - p) + q * (1 - q)) / n) ** 0.5
    assert difference(p, q, n) == pytest.approx((p - q - half, p - q + half), abs=1e-6)


def test_best_of_a_grid_is_the_first_of_the_table():
    rows = grid("width", (4, 8))
    best = max(rows, key=lambda row: row.metrics["cw-40"])
    assert answer_study(study(rows)).sentence.startswith(f"Best: {best.name}, ")


def test_a_note_is_markdown_that_shows_names_as_they_are():
    answer = Answer(
        "Which of w_1 and w_2?", "Best: w_1 (50.0 %).", {"Median": "4 *"}, doubts=["a|b"]
    )
    note = write_note("See [this](https://a.b).", answer, ["The end."])
    assert note.split("\n\n") == [
        "See [this](https://a.b).",
        r"*Which of w\_1 and w\_2?*",
        r"**Best: w\_1 (50.0 %).**",
        r"- Median: 4 \*",
        r"Doubt: a\|b",
        "The end.",
    ]
    assert write_note("", None) == ""
