"""Whole evaluations on a real local Ray: any shards, nothing twice, damage mended, users told."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from robustray.errors import UserError
from robustray.evaluation.commands import run_audit
from robustray.evaluation.evaluation import plan_evaluation, run_evaluation
from robustray.evaluation.outputs import evaluation_run
from robustray.manifest import build_manifest
from robustray.runtime import attempts
from robustray.store import LocalStore
from robustray.tracking import MlflowSink, default_tracking_uri
from tests.helpers.evaluation_tasks import save_weights
from tests.helpers.study_runs import wait_for

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(600)]

SUITE = [
    {"name": "weak", "attack": "pgd", "options": {"steps": 1, "step_size": 0.05}},
    {"name": "dlr", "attack": "pgd", "options": {"steps": 5, "loss": "dlr"}},
]
CANONICAL = ("result.json", "table.csv", "table.parquet", "examples.png", "model_info.json")


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory, monkeypatch_module) -> str:
    """One database for all evaluations: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    monkeypatch_module.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def wanted(folder: Path, **fields):
    """Return the manifest of an evaluation of the small network."""
    document = {
        "kind": "Evaluation",
        "name": "small",
        "factory": "tests.helpers.evaluation_tasks:small_net",
        "weights": str(save_weights(folder / "weights")),
        "data": {"name": "digits", "first": 60},
        "threat": {"norm": "linf", "eps": 0.12},
        "suite": SUITE,
        "compute_shape": 16,
        "audit": False,
        "resources": {"gpus": 0, "cpus": 1, "max_concurrent": 1},
    } | fields
    document = {name: value for name, value in document.items() if value is not None}
    return build_manifest(document)


def evaluate(folder: Path, **fields):
    """Run an evaluation of the small network; its store and files are in the folder."""
    manifest = wanted(folder, **fields)
    said: list[str] = []
    done = run_evaluation(
        manifest,
        LocalStore(folder / "store"),
        default_tracking_uri(),
        folder / "reports",
        say=said.append,
    )
    return done, "\n".join(said)


def canonical(done) -> dict[str, bytes]:
    return {name: (done.folder / name).read_bytes() for name in CANONICAL}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, local_ray):
    """An evaluation in one shard."""
    folder = tmp_path_factory.mktemp("whole")
    done, _ = evaluate(folder, shard_size=60)
    return folder, done


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_any_number_of_shards_gives_the_same_bytes(whole, tmp_path, shards):
    _, one = whole
    resources = {"gpus": 0, "max_concurrent": 2 if shards == 8 else 1}
    size = -(-60 // shards)
    done, _ = evaluate(tmp_path, shard_size=size, bundle=2, batch_size=16, resources=resources)
    assert done.computed == 3 * shards
    assert canonical(done) == canonical(one)


def test_the_same_command_again_computes_nothing(whole):
    folder, one = whole
    before = canonical(one)
    done, said = evaluate(folder, shard_size=60)
    assert done.computed == 0
    assert canonical(done) == before
    assert "units" in said


def test_another_shard_size_continues_with_the_first_one(whole):
    folder, _ = whole
    done, _ = evaluate(folder, shard_size=7)
    assert done.computed == 0


def test_damage_is_mended_wherever_it_is_met(whole, tmp_path):
    """By the driver, by the worker that continues from it; and nothing else is computed again."""
    evaluate(tmp_path, shard_size=20, suite=SUITE[:1])
    intact = damage(tmp_path, {0: 0, 20: 1})
    done, _ = evaluate(tmp_path, shard_size=20)
    assert done.computed == 2 + 3
    assert all(payload.read_bytes() == data for payload, data in intact.items())
    assert canonical(done) == canonical(whole[1])


def damage(folder: Path, where: dict[int, int]) -> dict[Path, bytes]:
    """Flip a bit of the verdicts of these units (start of the range: place in the suite)."""
    intact = {}
    for path in (folder / "store/units").glob("*/*/record.json"):
        identity = json.loads(path.read_text())["identity"]
        if where.get(identity["range"]["start"]) == len(identity["attacks"]):
            (payload,) = path.parent.glob("verdicts-*.parquet")
            intact[payload] = data = payload.read_bytes()
            payload.write_bytes(data[:100] + bytes([data[100] ^ 255]) + data[101:])
    assert len(intact) == len(where)
    return intact


def test_the_record_says_what_was_found_and_how(whole):
    folder, done = whole
    record = json.loads((done.folder / "record.json").read_text())
    result, provenance = record["result"], record["provenance"]
    assert result["robust"]["accuracy"] <= result["clean"]["accuracy"]
    assert result["seed"] == 0
    assert result["tf32"] is False
    assert result["compute_shape"] == 16
    assert provenance["units"] == 3
    assert provenance["worker_seconds"] > 0
    assert provenance["threads"] == [1]
    assert provenance["versions"]["torch"] == torch.__version__
    text = (done.folder / "result.json").read_text()
    assert not any(word in text for word in ("host", "_ms", "attempt", str(folder)))


def test_mlflow_has_the_run_once_with_its_files(whole, tracking):
    folder, _ = whole
    fields, store = {"name": "tracked", "shard_size": 60}, LocalStore(folder / "store")
    plan = plan_evaluation(wanted(folder, **fields), store, None)
    session = attempts.register(store, plan.prefix, torch.device("cpu"))
    killed = evaluation_run(plan, "KILLED", [session], store.uri)
    assert killed.tags["partial"] == "true"
    MlflowSink(tracking).apply(killed)
    twice = [evaluate(folder, **fields)[0] for _ in range(2)]
    assert [done.computed for done in twice] == [0, 0], "units are shared"
    done = twice[-1]
    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("tracked")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["evaluation"] == done.id
    assert "partial" not in run.data.tags
    assert run.data.metrics["robust_accuracy"] == done.result["robust"]["accuracy"]
    assert len(client.get_metric_history(run.info.run_id, "robust_accuracy")) == 1
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {*CANONICAL, "record.json", "manifest.yaml"} <= names


def test_audit_and_curve_stand_beside_the_number(tmp_path):
    suite = [{"name": "pgd", "attack": "pgd", "options": {"steps": 5}}]
    curve = {"eps": [0.04, 0.2]}
    done, _ = evaluate(tmp_path, audit=True, suite=suite, curve=curve, shard_size=30)
    assert done.computed == 1 + 2 + 3 * 2, "the clean units are shared"
    checks = {finding["check"]: finding for finding in done.result["audit"]}
    assert checks["batch_mates"]["severity"] == "ok"
    assert {"zero_gradient", "larger_eps", "unconfirmed"} <= checks.keys()
    points = json.loads((done.folder / "curve.json").read_text())["points"]
    assert [point["eps"] for point in points] == [0.0, 0.04, 0.2]
    accuracies = [point["accuracy"] for point in points]
    assert accuracies == sorted(accuracies, reverse=True)
    assert (done.folder / "curve.png").exists()


def test_a_killed_worker_changes_nothing(whole, tmp_path):
    """Kill the process that committed the first unit, as soon as it did."""
    killed = []

    def kill_one() -> None:
        (path,) = wait_for(lambda: list(tmp_path.glob("store/units/*/*/provenance.json"))[:1])
        killed.append(json.loads(path.read_text())["environment"]["process"])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    done, _ = evaluate(tmp_path, shard_size=6, bundle=1)
    killer.join()
    assert canonical(done) == canonical(whole[1])
    record = json.loads((done.folder / "record.json").read_text())
    assert record["provenance"]["units"] == 30
    workers = {
        json.loads(path.read_text())["environment"]["process"]
        for path in tmp_path.glob("store/units/*/*/provenance.json")
    }
    assert len(workers) == 2, "another worker took over"
    assert killed[0] in workers


def test_a_model_that_depends_on_batch_mates_is_refused(tmp_path):
    factory = "tests.helpers.worker_networks:Batchy"
    with pytest.raises(UserError, match=r"refuses this model: the output .* depends on the rest"):
        evaluate(tmp_path, audit=True, factory=factory, weights=None)
    kinds = [json.loads(p.read_text()) for p in (tmp_path / "store/units").glob("*/*/record.json")]
    assert all(not record["identity"]["attacks"] for record in kinds), "no attack was run"


def test_an_error_of_the_model_stops_with_its_message(tmp_path):
    factory = "tests.helpers.worker_networks:Failing"
    with pytest.raises(UserError, match="weak on images 0 to 59: this network can't be"):
        evaluate(tmp_path, factory=factory, weights=None)
    (story,) = (tmp_path / "store/evaluations").glob("*/failures/*.json")
    assert "can't be differentiated on Fridays" in json.loads(story.read_text())["traceback"]


def test_an_audit_alone(tmp_path):
    manifest = build_manifest(
        {
            "kind": "Evaluation",
            "factory": "tests.helpers.evaluation_tasks:small_net",
            "weights": str(save_weights(tmp_path)),
            "data": {"name": "digits"},
            "threat": {"eps": 0.12},
            "suite": "fgsm",
            "resources": {"gpus": 0},
        }
    )
    store = LocalStore(tmp_path / "store")
    findings = run_audit(manifest, store, say=lambda _: None)
    assert {finding["check"] for finding in findings} >= {"randomness", "batch_mates"}
    assert run_audit(manifest, store, say=lambda _: None) == findings
    assert not (tmp_path / "store/evaluations").exists()
