"""Checkpoints as models of a real MLflow: logged once, registered, loaded by a fresh process."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from robustray.models import create_model
from robustray.store import sha256_file
from robustray.store.tensors import save_tensors
from robustray.tracking import MlflowSink, ModelRecord
from tests.helpers.mlflow_records import record, runs_of
from tests.helpers.servers import MlflowServer

OPTIONS = {"depths": (1, 1, 1), "widths": (0.25, 0.25, 0.5)}
NETWORK = {
    "model": {"name": "preact_resnet", "depths": [1, 1, 1], "widths": [0.25, 0.25, 0.5]},
    "num_classes": 10,
    "image_shape": [3, 8, 8],
}
LOAD = """
import sys, numpy, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
numpy.save(sys.argv[4], model.predict(numpy.load(sys.argv[3])))
"""


def make_model(folder, seed, name="w0.25-0.5"):
    """Return a small network, and the record of its weights."""
    torch.manual_seed(seed)
    network = create_model("preact_resnet", num_classes=10, **OPTIONS).eval()
    path = folder / f"{seed}.safetensors"
    save_tensors(network.state_dict(), path)
    found = ModelRecord(
        name=name,
        weights_sha256=sha256_file(path),
        network=NETWORK,
        step=4,
        metrics={"test_pgd-20": 0.5},
        time_ms=1_700_000_000_500,
        registered=f"study-{folder.name}",
        description="Best: w0.25-0.5",
        fetch=path.read_bytes,
    )
    return network, found


def load_and_predict(uri, model, folder, images):
    """Load a model in a fresh process, and return its logits."""
    np.save(folder / "images.npy", images)
    given = [uri, model, str(folder / "images.npy"), str(folder / "logits.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *given], check=True, timeout=200)
    return np.load(folder / "logits.npy")


def models_of(uri, run):
    return MlflowClient(uri).search_logged_models([run.info.experiment_id])


def test_a_checkpoint_becomes_a_model_that_a_fresh_process_loads(uri, experiment, tmp_path):
    network, found = make_model(tmp_path, 0)
    wanted = record("study", experiment=experiment, models=(found,), status="FINISHED", end_ms=1)
    for host in ("a", "b", "b"):
        MlflowSink(uri).apply(replace(wanted, tags={"host": host}))  # each as another process
    (run,) = runs_of(uri, experiment)
    (model,) = models_of(uri, run)
    assert (model.name, str(model.status)) == ("w0_25-0_5", "READY")
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert model.source_run_id == run.info.run_id
    assert {metric.key: metric.value for metric in model.metrics or ()} == {"test_pgd-20": 0.5}
    client = MlflowClient(uri)
    (version,) = client.search_model_versions(f"name = '{found.registered}'")
    assert client.get_registered_model(found.registered).aliases == {"best": version.version}
    assert version.description == found.description
    assert client.get_registered_model(found.registered).description == found.description
    assert json.loads(model.tags["mlflow.modelVersions"]) == [
        {"name": found.registered, "version": str(version.version)}
    ]
    images = np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    logits = load_and_predict(uri, f"models:/{found.registered}@best", tmp_path, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_server_keeps_models_in_a_bucket(s3_server, experiment, tmp_path):
    network, found = make_model(tmp_path, 0)
    images = np.random.default_rng(0).random((3, 3, 8, 8), dtype=np.float32)
    with MlflowServer(bucket=s3_server) as server:
        wanted = record("study", experiment=experiment, models=(found,))
        for host in ("a", "b"):
            MlflowSink(server.endpoint).apply(replace(wanted, tags={"host": host}))
        (run,) = runs_of(server.endpoint, experiment)
        (model,) = models_of(server.endpoint, run)
        assert model.artifact_location.startswith("mlflow-artifacts:")
        name = f"models:/{found.registered}@best"
        logits = load_and_predict(server.endpoint, name, tmp_path, images)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_a_better_checkpoint_takes_the_alias_and_the_older_one_stays(
    sqlite_uri, experiment, tmp_path
):
    (_, first), (_, second) = (make_model(tmp_path, seed, f"trial{seed}") for seed in (0, 1))
    base = record("study", experiment=experiment, status="FINISHED", end_ms=1)
    for host, model in (("a", first), ("a", second), ("b", second)):
        MlflowSink(sqlite_uri).apply(replace(base, models=(model,), tags={"host": host}))
    (run,) = runs_of(sqlite_uri, experiment)
    assert {model.name for model in models_of(sqlite_uri, run)} == {"trial0", "trial1"}
    client = MlflowClient(sqlite_uri)
    best = client.get_registered_model(first.registered).aliases["best"]
    versions = client.search_model_versions(f"name = '{first.registered}'")
    assert len(versions) == 2
    (place,) = (version.source for version in versions if version.version == best)
    (model,) = (one for one in models_of(sqlite_uri, run) if one.artifact_location == place)
    assert model.name == "trial1"


def test_a_model_that_was_cut_off_is_logged_again(sqlite_uri, experiment, tmp_path):
    _, found = make_model(tmp_path, 0)
    sink = MlflowSink(sqlite_uri)
    sink.apply(record("study", experiment=experiment))
    (run,) = runs_of(sqlite_uri, experiment)
    client = MlflowClient(sqlite_uri)
    client.create_logged_model(  # and then the process was killed
        run.info.experiment_id,
        name="w0_25-0_5",
        source_run_id=run.info.run_id,
        tags={"weights_sha256": found.weights_sha256},
    )
    MlflowSink(sqlite_uri).apply(record("study", experiment=experiment, models=(found,)))
    (model,) = models_of(sqlite_uri, run)
    assert str(model.status) == "READY"


def test_weights_that_are_not_those_of_the_result_are_refused(sqlite_uri, experiment, tmp_path):
    _, found = make_model(tmp_path, 0)
    damaged = replace(found, fetch=lambda: b"something else")
    with pytest.raises(Exception, match="not those of its result"):
        MlflowSink(sqlite_uri).apply(record("study", experiment=experiment, models=(damaged,)))
    (run,) = runs_of(sqlite_uri, experiment)
    assert run.data.params == {"lr": "0.1", "beta": "6"}  # all else has arrived


def test_nothing_of_a_model_is_pickled(sqlite_uri, experiment, tmp_path):
    _, found = make_model(tmp_path, 0)
    MlflowSink(sqlite_uri).apply(record("study", experiment=experiment, models=(found,)))
    (run,) = runs_of(sqlite_uri, experiment)
    (model,) = models_of(sqlite_uri, run)
    place = Path(unquote(model.artifact_location.removeprefix("file://")))
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert files == {
        "MLmodel",
        "artifacts/network.json",
        "artifacts/weights.safetensors",
        "conda.yaml",
        "model_code.py",
        "python_env.yaml",
        "requirements.txt",
    }
