"""A package of a user's beside robustray, found by its entry points and not by a line of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.helpers.study_runs import Place
from tests.helpers.user_packages import PLUGIN, REPOSITORY, ask, put_package

SWEEP = """
import json
from robustray.evaluation import plan as evaluation
from robustray.evaluation.units.worker import Order, Worker
from robustray.manifest import build_manifest
from robustray.models import create_model, list_models
from robustray.registry import MODELS
from robustray.runtime.failures import Place
from robustray.store import open_store
from robustray.sweeps import Study, make_plan, read_trial
from robustray.sweeps.trial import TrialJob, attempt_trial

manifest = build_manifest({
    "kind": "Sweep", "name": "toy", "resources": {"gpus": 0},
    "model": {"name": "toy"}, "grid": {"arguments": {"width": [2, 4]}},
    "recipe": {
        "objective": "pairing", "objective_arguments": {"weight": 0.5}, "epochs": 20,
        "batch_size": 20, "inner": {"steps": 2}, "threat": {"eps": 0.02},
        "optimizer": {"lr": 0.3}, "augmentation": {"flip": False, "crop_padding": 0},
        "schedule": {"name": "constant"}, "selection": {"start": 0.9},
    },
    "data": {"name": "stripes", "arguments": {"images": 120}, "validation": 20},
    "evaluation": {"attacks": ["fgsm"]},
})
study = Study.from_manifest(manifest)
costs = make_plan(study).costs
trial = study.trials[1]
job = TrialJob(study.trial_prefix(trial.name), study.manifest, "store", None, trial)
outcome = attempt_trial(job, print)
store = open_store("store")
result = read_trial(store, study, trial).result
weights = next(e["key"] for r in read_trial(store, study, trial).checkpoints
               for e in r.files.values() if e["sha256"] == result["weights_sha256"])
SUITE = [{"name": "fgsm", "attack": "fgsm"},
         {"name": "half", "attack": "half-step", "options": {"share": 0.25}}]
judged = build_manifest({
    "kind": "Evaluation", "suite": SUITE, "threat": {"eps": 0.02},
    "model": {"name": "toy", "arguments": {"width": 4}}, "weights": f"{store.uri}/{weights}",
    "data": {"name": "stripes", "arguments": {"images": 120}},
})
plan = evaluation.make_plan(evaluation.prepare(judged, store, None), store, on_gpu=False)
(task,) = plan.tasks
worker = Worker(Place(store.uri, None, (), 1, 0, 64))
before, counts = None, []
for position in range(len(task.attacks) + 1):
    unit = task.unit(task.ranges[0], position)
    (reply,) = worker.attack(task, [Order(unit, before, 1)])
    assert reply.outcome == "finished", reply.message
    before, counts = unit, [*counts, dict(reply.counts)]
network = create_model("toy", num_classes=3, in_channels=1, width=4)
print(json.dumps([
    network[3].in_features, "toy" in list_models(), MODELS.is_brought("toy"),
    [[a["attack"], "code_sha256" in a] for a in task.attacks],
    outcome["outcome"], [t.name for t in study.trials], sorted(study.manifest.code), result, counts,
]))
"""


def test_a_sweep_and_an_evaluation_use_what_a_package_brings(tmp_path):
    place = put_package(tmp_path / "site-packages", metadata=True)
    *network, attacks, outcome, trials, code, result, counts = ask(SWEEP, tmp_path, place)
    assert attacks == [["fgsm", False], ["half-step", True]]
    assert network == [4, True, True]
    assert (outcome, trials) == ("finished", ["width2", "width4"])
    assert code == ["pairing", "stripes", "toy"]
    assert result["model"] == {"name": "toy", "arguments": {"width": 4}}
    assert result["data"]["label"] == "stripes(images=120) validation=20"
    assert result["metrics"]["clean"] > 0.9
    assert counts[0]["examples"] == 100
    assert [count["robust"] for count in counts[:2]] == [c["examples"] for c in counts[1:]]


MANIFEST = """
kind: Sweep
name: toy
model: {name: toy}
grid: {arguments: {width: [2, 4]}}
recipe:
  objective: pairing
  threat: {eps: 0.02}
  inner: {steps: 2}
  epochs: 2
  batch_size: 20
  augmentation: {flip: false, crop_padding: 0}
  selection: {start: 0}
data: {name: stripes, validation: 20}
evaluation: {attacks: [fgsm]}
resources: {gpus: 0}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.without_ray
def test_two_wheels_are_all_that_is_needed(tmp_path):
    """Ours and a plugin's, built and installed as a user does it; Ray's workers train and judge.

    Ours is built from the packed sources. Nothing is imported from the checkout, and the folder
    holds no manifest of ours.
    """
    site = tmp_path / "site"
    folders = [shutil.copytree(PLUGIN, tmp_path / "plugin"), copy_sources(tmp_path / "ours")]
    sources = [folders[0], pack_sources(folders[1])]
    build = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(site)]
    command = [sys.executable, "-m", "pip", "install", *build, *map(str, sources)]
    subprocess.run(command, check=True, capture_output=True)
    for source in folders:
        shutil.rmtree(source)
    (folder := tmp_path / "work").mkdir()
    place = Place(folder, MANIFEST, PYTHONPATH=str(site))
    assert_complete(site)

    def robustray(*words: str) -> str:
        command = [sys.executable, str(site / "bin/robustray"), *words]
        run = subprocess.run(
            command, cwd=folder, env=place.environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout + run.stderr

    assert "cifar10" in robustray("zoo", "list") or "wrn" in robustray("zoo", "list")
    listed = robustray("manifests").splitlines()
    assert len(listed) == len(list((REPOSITORY / "manifests").rglob("*.yaml")))
    job = [sys.executable, "-m", "robustray.packaged.jobs.train", "--dry-run"]
    run = subprocess.run(job, cwd=folder, env=place.environment, capture_output=True, check=True)
    assert b"name: bat_trades" in run.stdout
    planned = robustray("run", "manifests/training/mart.yaml", "--dry-run")
    assert "manifests/training/mart.yaml is not in this folder" in planned
    small = ["recipe.epochs=1", "grid.widths.each_stage=[0.25]", "data.train_limit=300"]
    said = robustray("quickstart", *(word for one in small for word in ("--set", one)))
    assert "d1-1-1_w0.25-0.25-0.25" in said
    assert "report.html" in said
    robustray("run", "small.yaml")
    (table,) = (folder / "runs/reports").glob("toy-*/table.csv")
    assert "width4" in table.read_text()
    robustray("evaluate", "--study", "toy", "--set", "suite=fgsm", "--set", "resources.gpus=0")
    (copied,) = robustray("manifests", "copy", "manifests/training/mart.yaml", ".").splitlines()
    assert "kind: Sweep" in (folder / copied).read_text()


def copy_sources(folder: Path) -> Path:
    """Copy what a wheel is built from: building in the checkout would leave files there."""
    for name in ("robustray", "manifests", "jobs"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    return folder


def pack_sources(folder: Path) -> Path:
    """Build what is published as source, which has no links."""
    code = "import setuptools.build_meta as backend, sys; backend.build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder.parent)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (packed,) = folder.parent.glob("robustray-*.tar.gz")
    with tarfile.open(packed) as archive:
        assert not any(member.islnk() or member.issym() for member in archive)
    return packed


def assert_complete(site: Path) -> None:
    """Check that the installed package has every file of ours, and each manifest once."""
    for there, here in (
        (site / "robustray/packaged/manifests", REPOSITORY / "manifests"),
        (site / "robustray/packaged/jobs", REPOSITORY / "jobs"),
        (site / "robustray", REPOSITORY / "robustray"),
    ):
        for path in here.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (there / path.relative_to(here)).read_bytes() == path.read_bytes()
