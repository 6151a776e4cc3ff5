"""Minimal distances in evaluations: curve, medians and optimality from one run."""

import csv
import io

import numpy as np
import pytest
import torch

from robustray.attacks import AttackSpec, attack_suite, find_nearest
from robustray.attacks.distances import local_optimality
from robustray.cli import main
from robustray.evaluation.distances import BEST, find_distances, write_curves
from robustray.evaluation.images import load_images
from robustray.evaluation.record import metrics_of, result_document, summary_text
from robustray.evaluation.units.merge import merge
from robustray.evaluation.units.store import UnitStore
from robustray.reports.words import eps_text
from robustray.store import LocalStore
from tests.evaluation.test_commands import here, refused
from tests.evaluation.test_run import evaluate as run
from tests.evaluation.test_run import monkeypatch_module, tracking
from tests.helpers.evaluation_tasks import compute_all, digits, make_task, trained_net

__all__ = ["here", "monkeypatch_module", "tracking"]

pytestmark = pytest.mark.timeout(600)

FMN = AttackSpec("fmn", options={"n_iter": 20})
DEEPFOOL = AttackSpec("deepfool", options={"n_iter": 10})
DATA = {"name": "digits", "label": "digits test[:60]", "split": "test", "sha256": "0"}


def made(folder, suite, eps, **options):
    task = make_task(folder, 20, suite=suite, eps=eps)
    return task, merge(task, compute_all(task, UnitStore(LocalStore(folder / "s")), **options))


def document(task, merged):
    return result_document(task, merged, suite="custom", data=DATA, findings=[])


def rows_of(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    suite = attack_suite([FMN, DEEPFOOL], suite_mode="independent")
    return made(tmp_path_factory.mktemp("both"), suite, 0.5)


def test_distances_are_those_of_the_attacks_alone(both):
    task, merged = both
    images = load_images(digits(), None)
    x, y = images.x_NCHW.float() / 255, images.y_N
    distances = find_distances(task, merged)
    assert list(distances) == ["fmn", "deepfool", BEST]
    for spec in (FMN, DEEPFOOL):
        found = find_nearest(trained_net(), x, y, "linf", spec, index=images.index_N)
        within = found.distance_B.masked_fill(found.distance_B > 0.5, torch.inf)
        np.testing.assert_allclose(distances[spec.name], within.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(
        distances[BEST], np.minimum(distances["fmn"], distances["deepfool"])
    )


def test_records_say_medians_and_optimality(both):
    task, merged = both
    result, distances = document(task, merged), find_distances(task, merged)
    fmn, deepfool, best = result["distances"]
    assert fmn["optimality"] == local_optimality(distances["fmn"], distances[BEST])
    assert best["optimality"] == 1
    assert deepfool["median"] == np.median(distances["deepfool"][merged.clean_correct])
    assert fmn["images"] == int(merged.clean_correct.sum()) == fmn["found"]
    metrics = metrics_of(result)
    assert metrics["distance.median.fmn"] == fmn["median"]
    assert metrics["distance.optimality.deepfool"] == deepfool["optimality"]
    assert f"{100 * fmn['optimality']:.1f} %" in summary_text(result)


def test_the_curve_of_one_run_is_what_runs_at_each_eps_find(both, tmp_path):
    task, merged = both
    curve = rows_of(write_curves(find_distances(task, merged)))
    for eps in (0.03, 0.08):
        alone, there = made(tmp_path / str(eps), attack_suite([FMN]), eps)
        expected = document(alone, there)["robust"]
        before = [r for r in curve if r["attack"] == "fmn" and float(r["distance"]) <= eps]
        assert float(before[-1]["accuracy"]) == pytest.approx(expected["accuracy"])
        assert float(before[-1]["low"]) == pytest.approx(expected["interval_95"][0])
        (entry,) = document(alone, there)["distances"]
        assert entry["optimality"] is None
        if expected["accuracy"] > 0.5:
            assert entry["median"] is None
            assert "beyond eps" in summary_text(document(alone, there))


def test_other_suites_have_no_distances(tmp_path):
    for suite in (
        attack_suite([FMN, DEEPFOOL]),  # a cascade: the second sees what the first left
        attack_suite([AttackSpec("fab-t", options={"n_iter": 2})]),
        attack_suite(["fgsm"]),
    ):
        task = make_task(tmp_path, 20, suite=suite)
        assert not task.measures_distances, suite.labels
    task, merged = made(tmp_path, attack_suite(["fgsm"]), 0.1)
    assert "distances" not in document(task, merged)
    assert not any(name.startswith("distance.") for name in merged.columns)


def test_a_partial_result_has_no_distances(tmp_path):
    task = make_task(tmp_path, 20, suite=attack_suite([FMN]))
    loaded = compute_all(task, UnitStore(LocalStore(tmp_path / "s")), starts=[0])
    merged = merge(task, loaded, allow_partial=True)
    assert find_distances(task, merged) == {}
    assert "distances" not in document(task, merged)


@pytest.mark.usefixtures("local_ray")
def test_an_evaluation_leaves_curve_and_picture_whatever_its_shards(tmp_path):
    suite = [{"name": "fmn", "options": {"n_iter": 10}}]
    threat = {"norm": "l0", "eps": 3}
    one, said = run(tmp_path / "one", suite=suite, threat=threat, shard_size=60, audit=True)
    parts, _ = run(tmp_path / "parts", suite=suite, threat=threat, shard_size=17, audit=True)
    for name in ("result.json", "distances.csv", "distances.png", "table.csv"):
        assert (one.folder / name).read_bytes() == (parts.folder / name).read_bytes(), name
    curve = rows_of((one.folder / "distances.csv").read_bytes())
    assert {float(row["distance"]) for row in curve} <= {0.0, 1.0, 2.0, 3.0}
    assert float(curve[-1]["accuracy"]) == one.result["robust"]["accuracy"] < 1
    assert "l0, eps = 3" in said
    assert "not checked" in str(one.result["audit"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("suite=[{name: ddn}]", "attack ddn: it is made for l2, not linf"),
        ("threat={norm: l0, eps: 4}", "attack pgd-20: it is made for linf, l2, l1, not l0"),
        ("threat={norm: l0, eps: 0.5}", "eps counts values for l0, and is whole, not 0.5"),
        ("threat={norm: l0, eps: 65}", "65 values are more than an image has, 64"),
    ],
)
def test_what_norms_and_attacks_do_not_allow_is_refused(here, capsys, change, words):
    assert words in refused(capsys, "run", "--manifest", "good.yaml", "--set", change)


def test_the_suite_of_all_minimum_norm_attacks_is_planned(here, capsys):
    changes = ["--set", "suite=minimum-norm", "--set", "threat={norm: l2, eps: 2}"]
    assert main(["run", "--manifest", "good.yaml", *changes, "--dry-run"]) == 0
    assert "minimum-norm: fmn, ddn, deepfool (independent" in capsys.readouterr().out


def test_whole_sizes_are_not_written_as_fractions():
    texts = [eps_text(eps) for eps in (3, 10.0, 8 / 255, 0.5)]
    assert texts == ["3", "10", "8/255", "0.5"]
