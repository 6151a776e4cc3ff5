"""Merging: what is missing, twice or of another evaluation is refused; what is partial says so."""

import dataclasses

import pytest

from robustray.evaluation.record import result_document, summary_text, write_csv, write_parquet
from robustray.evaluation.task import Range
from robustray.evaluation.units.merge import MergeError, merge
from robustray.evaluation.units.store import UnitStore
from robustray.store import LocalStore
from tests.helpers.evaluation_tasks import compute_all, make_task


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A task of three ranges and its units."""
    folder = tmp_path_factory.mktemp("made")
    task = make_task(folder, 20)
    return task, compute_all(task, UnitStore(LocalStore(folder / "store")))


def another(folder, **options):
    task = make_task(folder, 20, **options)
    return task, compute_all(task, UnitStore(LocalStore(folder / "store")))


def document(task, merged):
    data = {"name": "digits", "label": "digits", "split": "test", "sha256": "0"}
    return result_document(task, merged, suite="small", data=data, findings=[])


def test_order_does_not_matter(made):
    task, units = made
    assert write_parquet(merge(task, units)) == write_parquet(merge(task, units[::-1]))


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (lambda u: u.unit.range.start == 20, "images 20 to 39 lack clean, weak, pgd, dlr"),
        (lambda u: u.unit.position == 3, "images 0 to 19 lack dlr"),
        (
            lambda u: (u.unit.range.start, u.unit.position) == (40, 1),
            "images 40 to 59 lack weak, pgd, dlr",
        ),
        (lambda u: True, "images 0 to 19 lack clean"),
    ],
)
def test_gaps_are_refused_and_named(made, lost, words):
    task, units = made
    with pytest.raises(MergeError, match=words):
        merge(task, [unit for unit in units if not lost(unit)])


def test_overlaps_are_refused(made, tmp_path):
    task, units = made
    longer = make_task(tmp_path, 30)
    others = compute_all(longer, UnitStore(LocalStore(tmp_path / "other")))
    with pytest.raises(MergeError, match="images 20 to 29 are there twice"):
        merge(task, [*others[:4], *units[4:]])
    with pytest.raises(MergeError, match="under the same attack"):
        merge(task, [*units, units[-1]])


@pytest.mark.parametrize(
    ("options", "field"),
    [({"seed": 1}, "seed"), ({"eps": 0.1}, "threat"), ({"adversarial": "first 8"}, "adversarial")],
)
def test_units_of_another_evaluation_are_refused(made, tmp_path, options, field):
    task, units = made
    _, others = another(tmp_path, **options)
    mixed = [*units[:-1], others[-1]]
    with pytest.raises(MergeError, match=f"different evaluations: {field} is"):
        merge(task, mixed)


def test_units_of_other_weights_or_another_place_in_the_suite_are_refused(made):
    task, units = made
    subject = dataclasses.replace(task.subject, weights_sha256="0" * 64)
    with pytest.raises(MergeError, match="different evaluations: subject"):
        merge(dataclasses.replace(task, subject=subject), units)
    swapped = dataclasses.replace(task, attacks=task.attacks[::-1])
    with pytest.raises(MergeError, match="different evaluations: attacks"):
        merge(swapped, units)


def test_units_of_other_images_are_refused(made):
    task, units = made
    first = Range(0, 20, "0" * 64)
    with pytest.raises(MergeError, match="images 0 to 19 are others"):
        merge(dataclasses.replace(task, ranges=(first, *task.ranges[1:])), units)
    shorter = dataclasses.replace(task, ranges=task.ranges[:2])
    with pytest.raises(MergeError, match="images 40 to 59 reach beyond"):
        merge(shorter, units)


def test_an_attack_that_continued_from_other_verdicts_is_refused(made):
    task, units = made
    last = units[-1]
    record = dataclasses.replace(last.record, previous="0" * 64)
    with pytest.raises(MergeError, match="dlr continued from other verdicts"):
        merge(task, [*units[:-1], dataclasses.replace(last, record=record)])


def test_partial_results_say_so_everywhere(made):
    task, units = made
    whole = document(task, merge(task, units))
    some = [
        u
        for u in units
        if u.unit.range.start < 40 and (u.unit.position, u.unit.range.start) != (3, 20)
    ]
    merged = merge(task, some, allow_partial=True)
    assert merged.partial
    result = document(task, merged)
    assert result["partial"]
    assert result["robust"] is None
    assert result["missing"] == [
        "images 20 to 39 lack dlr",
        "images 40 to 59 lack clean, weak, pgd, dlr",
    ]
    low, high = result["bounds"]
    assert low <= whole["robust"]["accuracy"] <= high
    assert low < high
    text = summary_text(result)
    assert text.startswith("PARTIAL")
    assert "PARTIAL: robust accuracy is between" in text
    lines = write_csv(merged).decode().splitlines()
    assert len(lines) == 1 + 40
    assert sum("pending" in line for line in lines) == 20
    assert [attack["accuracy_after"] for attack in result["attacks"]] == [None] * 3


def test_nothing_at_all_is_a_partial_result_too(made):
    task, _ = made
    result = document(task, merge(task, [], allow_partial=True))
    assert result["partial"]
    assert result["bounds"] == [0.0, 1.0]
    assert result["clean"]["accuracy"] is None
    assert summary_text(result).startswith("PARTIAL")


def test_counts_add_up(made):
    task, units = made
    merged = merge(task, units)
    result = document(task, merged)
    broken = sum(attack["broken"] for attack in result["attacks"])
    assert result["clean"]["correct"] == result["robust"]["correct"] + broken
    assert result["attacks"][0]["attacked"] == result["clean"]["correct"]
    assert result["forwards"] == merged.columns["forwards"].sum()
    assert result["attacks"][-1]["accuracy_after"] == result["robust"]["accuracy"]
