"""Every object of a finished evaluation, damaged in turn: another number is never told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robustray.errors import CorruptObjectError
from robustray.evaluation.comparing import publish_judgements
from robustray.evaluation.describing import describe_status
from robustray.evaluation.evaluation import plan_evaluation, run_evaluation
from robustray.manifest import Evaluation, build_manifest
from robustray.store import LocalStore, canonical_json, find_sealed
from tests.helpers.damage import damaged, emptied, flipped, torn
from tests.helpers.evaluation_tasks import save_weights

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(600)]
HARMS = {"flipped": flipped, "torn": torn, "emptied": emptied}
CANONICAL = ("result.json", "table.csv", "table.parquet", "curve.json", "model_info.json")


def manifest_in(folder: Path) -> Evaluation:
    suite = [{"name": "pgd", "attack": "pgd", "options": {"steps": 2, "step_size": 0.05}}]
    document = {
        "kind": "Evaluation", "name": "small",
        "factory": "tests.helpers.evaluation_tasks:small_net",
        "weights": str(save_weights(folder / "weights")), "data": {"name": "digits", "first": 20},
        "threat": {"norm": "linf", "eps": 0.12}, "suite": suite, "curve": {"eps": [0.05]},
        "compute_shape": 16, "shard_size": 10,
        "resources": {"gpus": 0, "cpus": 1, "max_concurrent": 1},
    }  # fmt: skip
    manifest = build_manifest(document)
    assert isinstance(manifest, Evaluation)
    return manifest


def evaluate(folder: Path):
    uri = f"sqlite:///{folder}/mlflow.db"
    return run_evaluation(
        manifest_in(folder), LocalStore(folder / "store"), uri, folder / "reports",
        say=lambda _: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, local_ray) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    assert evaluate(folder).computed == 1 + 2 * 3
    return folder


def told(folder: Path, scratch: Path, monkeypatch) -> list[str]:
    """Return what the store's evaluation says: the page of judgements, and its status."""
    said: list[str] = []
    store, manifest = LocalStore(folder / "store"), manifest_in(folder)
    monkeypatch.setattr("robustray.evaluation.comparing._track", lambda *_: None)
    publish_judgements(["small"], store, scratch, "unused", said.append)
    said.append(describe_status(plan_evaluation(manifest, store, None), store)[0])
    return said


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_no_damaged_object_gives_another_number(place, tmp_path, monkeypatch, harm):
    whole, refused = told(place, tmp_path, monkeypatch), set()
    store = place / "store"
    paths = (path for path in store.rglob("*.json") if path.is_file())
    for path in sorted(path for path in paths if "failures" not in path.parts):
        with damaged(path, harm):
            try:
                assert told(place, tmp_path, monkeypatch) == whole, path
            except CorruptObjectError as error:
                refused.add(path.name)
                assert path.name in str(error)  # noqa: PT017
    assert refused == {"result.json", "curve.json"}


@pytest.mark.parametrize("harm", [flipped, torn])
def test_the_same_command_again_mends_everything(place, tmp_path, harm):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "store").rglob("*"):
        # What is left of a damaged lease is waited out: tests/runtime/test_lease.py.
        if path.is_file() and not {"weights", "drivers"} & set(path.parts):
            path.write_bytes(harm(path.read_bytes()))
    (weights,) = (tmp_path / "store/weights").iterdir()
    weights.write_bytes(flipped(weights.read_bytes()))
    done = evaluate(tmp_path)
    assert done.folder is not None
    assert done.computed == 1 + 2 * 3
    for name in CANONICAL:
        (one,) = (place / "reports").glob(f"*/{name}")
        assert (done.folder / name).read_bytes() == one.read_bytes()


def test_what_earlier_versions_wrote_is_read(place, tmp_path, monkeypatch):
    whole = told(place, tmp_path, monkeypatch)
    old = tmp_path / "old"
    shutil.copytree(place, old)
    store = LocalStore(old / "store")
    for entry in store.list("evaluations/"):
        if entry.key.endswith(".json"):
            content = find_sealed(store, entry.key)
            assert content is not None
            store.put(entry.key, canonical_json(content))
    assert told(old, tmp_path, monkeypatch) == whole
