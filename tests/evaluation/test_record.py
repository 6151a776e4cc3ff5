"""The record: intervals, RobustBench's form, findings, costs, pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from robustray.attacks import Passes, list_suites
from robustray.evaluation.agenda import attack_passes, task_passes
from robustray.evaluation.audit.verdict_findings import black_box_finding
from robustray.evaluation.pictures.exhibits import find_exhibits
from robustray.evaluation.pictures.sheet import example_sheet
from robustray.evaluation.plan import read_images
from robustray.evaluation.record import metrics_of, model_info, result_document
from robustray.evaluation.tally import Tally
from robustray.evaluation.units.merge import merge
from robustray.evaluation.units.store import UnitStore
from robustray.reports import render
from robustray.reports.intervals import wilson
from robustray.reports.words import eps_text
from robustray.store import LocalStore
from tests.helpers.evaluation_tasks import SUITE, compute_all, digits, make_task

DATA = {"name": "digits", "label": "digits test[:60]", "split": "test", "sha256": "0"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    task, units = make_task(folder, 20, adversarial="first 8"), UnitStore(LocalStore(folder / "s"))
    return task, units, compute_all(task, units)


def result_of(task, loaded, suite="small"):
    return result_document(task, merge(task, loaded), suite=suite, data=DATA, findings=[])


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (433, 1000), (1, 1)])
def test_wilson_is_the_score_interval(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_metrics_are_those_of_the_table(made):
    task, _, loaded = made
    result = result_of(task, loaded)
    metrics = metrics_of(result)
    robust = merge(task, loaded).columns["robust"]
    assert metrics["robust_accuracy"] == np.mean(robust.astype(bool))
    assert metrics["robust_accuracy_low"] < metrics["robust_accuracy"]
    assert metrics["after.dlr"] == metrics["robust_accuracy"]
    assert metrics["after.weak"] >= metrics["after.pgd"]


def test_what_is_shown_meanwhile_ends_as_the_table(made):
    task, _, loaded = made
    metrics, tally = metrics_of(result_of(task, loaded)), Tally([task], {})
    bounds = []
    for part in [*loaded, loaded[0]]:  # a unit that is heard of twice counts once
        tally.add(part.unit.prefix, part.record.counts)
        ((heading, words),) = tally.facts()
        assert heading == "robust"
        assert words.endswith("of 60 images")
        bounds.append(tally._tasks[""].robust)
    assert bounds[-1] == pytest.approx(metrics["robust_accuracy"])
    shown = f"{100 * metrics['robust_accuracy']:.1f} %"
    assert tally.facts() == (("robust", f"{shown} so far, of 60 of 60 images"),)
    rows = {label: (units, accuracy) for label, units, _, accuracy in tally.rows()}
    assert list(rows) == task.labels
    assert rows["pgd"] == ("3/3", f"{100 * metrics['after.pgd']:.1f} %")
    assert rows["dlr"] == ("3/3", shown)
    last = next(part for part in loaded if part.unit.position == len(task.attacks))
    tally.forget(last.unit.prefix)
    assert {label: units for label, units, *_ in tally.rows()}["dlr"] == "2/3"
    assert tally._tasks[""].robust >= metrics["robust_accuracy"]


def test_several_tasks_are_shown_while_they_are_under_way(made):
    task, _, loaded = made
    twin = replace(task, name="twin")
    counts = {part.unit.prefix: part.record.counts for part in loaded[:2]}
    tally = Tally([task, twin], counts)
    assert tally.facts() == (("tasks", "0 of 2 complete"),)
    assert [row[:2] for row in tally.rows()] == [
        (name, f"2/{len(loaded)}") for name in ("main", "twin")
    ]
    for part in loaded:
        tally.add(part.unit.prefix, part.record.counts)
    assert tally.facts() == (("tasks", "2 of 2 complete"),)
    assert tally.rows() == ()


def test_the_robustbench_entry_has_its_fields(made):
    task, _, loaded = made
    entry = model_info(result_of(task, loaded), "mine")
    required = {
        "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue",
        "architecture", "eps", "clean_acc", "reported", "autoattack_acc",
    }  # fmt: skip
    assert required <= entry.keys()
    assert json.loads(json.dumps(entry)) == entry
    assert entry["autoattack_acc"] == "", "another suite does not go by AutoAttack's name"
    assert entry["external"] == f"{100 * result_of(task, loaded)['robust']['accuracy']:.2f}"
    by_autoattack = model_info(result_of(task, loaded, "autoattack-standard"), "mine")
    assert by_autoattack["autoattack_acc"] == entry["external"]
    assert "60 images" in entry["footnote"]


@pytest.mark.parametrize(
    ("eps", "text"), [(8 / 255, "8/255"), (0.3, "0.3"), (0.5, "0.5"), (1.0, "255/255")]
)
def test_eps_is_written_as_people_write_it(eps, text):
    assert eps_text(eps) == text


def test_black_box_attacks_that_win_are_a_finding():
    white = {"name": "apgd-ce", "attack": "apgd-ce", "broken": 300}
    black = {"name": "square", "attack": "square", "broken": 2}
    assert black_box_finding([white, black], 1000).severity == "ok"
    finding = black_box_finding([white, {**black, "broken": 3}], 1000)
    assert (finding.severity, finding.measured) == ("warning", 0.003)
    assert black_box_finding([white], 1000) is None
    assert black_box_finding([black, white], 1000) is None, "it was the first to come"


def test_costs_follow_from_budgets():
    pgd = {"attack": "pgd", "options": {"steps": 20, "restarts": 2}}
    square = {"attack": "square", "options": {"n_queries": 5000, "n_restarts": 1}}
    assert (attack_passes(pgd, 10).forwards, attack_passes(pgd, 10).backwards) == (42, 40)
    assert (attack_passes(square, 10).forwards, attack_passes(square, 10).backwards) == (5002, 0)
    total = task_passes([pgd, square], 100, classes=10, attack_all=False, clean=0.8, robust=0.5)
    assert total.forwards == pytest.approx(100 + 80 * 42 + 50 * 5002)
    assert total.backwards == pytest.approx(80 * 40)


def test_deepfool_costs_a_pass_for_each_other_class():
    deepfool = {"attack": "deepfool", "options": {"n_iter": 5}}
    assert attack_passes(deepfool, 1000) == Passes(5 * 999 + 1, 5 * 999)
    assert attack_passes(deepfool, 1000, apart=True) == Passes(5 * 999 + 1 + 5, 5 * 999)
    total = task_passes([deepfool], 10, classes=1000, attack_all=True)
    assert total == Passes(10 + 10 * (5 * 999 + 1), 10 * 5 * 999)


@pytest.mark.skipif("autoattack-standard" not in list_suites(), reason="no such suite yet")
def test_autoattack_costs_what_is_known_of_it():
    from robustray.attacks import attack_suite

    attacks = [spec.describe() for spec in attack_suite("autoattack-standard").attacks]
    total = task_passes(attacks, 1000, classes=10, attack_all=False, clean=0.8, robust=0.5)
    assert total.forwards == pytest.approx(1000 * (102 * 0.8 + 7777 * 0.5), rel=0.05)
    assert total.backwards == pytest.approx(1000 * (101 * 0.8 + 1809 * 0.5), rel=0.05)


def test_the_sheet_shows_the_same_broken_images_whatever_the_shards(made, tmp_path):
    task, units, loaded = made
    images = read_images(digits(), None)
    exhibits = find_exhibits(merge(task, loaded), loaded, units, images, task)
    assert len(exhibits) == 8
    for exhibit in exhibits:
        assert np.abs(exhibit.adversarial - exhibit.clean).max() <= task.eps + 1e-7
        assert exhibit.label != exhibit.prediction
        assert exhibit.attack in {spec.name for spec in SUITE.attacks}
    whole, others = (
        make_task(tmp_path, 60, adversarial="first 8"),
        UnitStore(LocalStore(tmp_path / "s")),
    )
    other = compute_all(whole, others)
    again = find_exhibits(merge(whole, other), other, others, images, whole)
    pictures = {render(example_sheet(found, "digits")) for found in (exhibits, again)}
    assert len(pictures) == 1
