"""A package of a user's beside robustray, found by its entry points and not by a line of ours."""

from __future__ import annotations

from tests.registry.place import ask, put_package

SWEEP = """
import json
from robustray.evaluation import plan as evaluation
from robustray.evaluation.worker import Order, Place, Worker
from robustray.manifest import build_manifest
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
judged = build_manifest({
    "kind": "Evaluation", "suite": "fgsm", "threat": {"eps": 0.02},
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
print(json.dumps([outcome["outcome"], [t.name for t in study.trials], sorted(study.manifest.code),
                  result, counts]))
"""


def test_a_sweep_and_an_evaluation_use_network_data_set_and_objective(tmp_path):
    place = put_package(tmp_path / "site-packages", metadata=True)
    outcome, trials, code, result, counts = ask(SWEEP, tmp_path, place)
    assert (outcome, trials) == ("finished", ["width2", "width4"])
    assert code == ["pairing", "stripes", "toy"]
    assert result["model"] == {"name": "toy", "arguments": {"width": 4}}
    assert result["data"]["label"] == "stripes(images=120) validation=20"
    assert result["metrics"]["clean"] > 0.9
    assert counts[0]["examples"] == 100
    assert counts[0]["robust"] == counts[1]["examples"]


ATTACK = """
import json
import torch
from importlib.metadata import entry_points
from robustray.attacks import AttackSpec, ThreatModel, evaluate

for point in entry_points(group="robustray.attacks"):
    point.load()
x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
found = evaluate(network, x, y, ThreatModel("linf", 0.1), [AttackSpec("half-step", "half-step")])
print(json.dumps(float((found.x_adv - x).abs().max())))
"""


def test_an_attack_joins_a_suite(tmp_path):
    place = put_package(tmp_path / "site-packages", metadata=True)
    assert ask(ATTACK, tmp_path, place) <= 0.05 + 1e-6
