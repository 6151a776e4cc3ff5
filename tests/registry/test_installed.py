"""A package of a user's beside robustray, found by its entry points and not by a line of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

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
@pytest.mark.without_ray
def test_a_wheel_beside_ours_is_all_that_is_needed(tmp_path):
    """Two processes of Ray train and judge; the wheel is built and installed as a user does it."""
    site = tmp_path / "site"
    build = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(site)]
    copied = shutil.copytree(PLUGIN, tmp_path / "source")
    command = [sys.executable, "-m", "pip", "install", *build, str(copied)]
    subprocess.run(command, check=True, capture_output=True)
    paths = os.pathsep.join([str(site), str(REPOSITORY)])
    place = Place(tmp_path, MANIFEST, PYTHONPATH=paths)
    assert place.run() == 0, place.log
    assert b"width4" in place.table()
    job = str(REPOSITORY / "jobs/evaluate.py")
    changes = ["--set", "suite=fgsm", "--set", "resources.gpus=0"]
    command = [sys.executable, job, "--study", "toy", *changes]
    run = subprocess.run(
        command, cwd=tmp_path, env=place.environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
