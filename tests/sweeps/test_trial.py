"""One attempt at a trial, in this process: what it commits, and how it goes on after damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from robustray.errors import CorruptObjectError, StoreUnavailableError
from robustray.manifest import validate
from robustray.runtime import job as runtime_job
from robustray.store import CheckpointStore, NotFoundError, open_store
from robustray.sweeps import Study, read_trial, trial
from robustray.sweeps.checkpointing import load_selected, read_digest
from robustray.sweeps.trial import TrialJob, attempt_trial
from tests.helpers.damage import flipped
from tests.helpers.study_runs import STUDY


@pytest.fixture
def study() -> Study:
    document = yaml.safe_load(STUDY)
    document["data"] |= {"train_limit": 200, "validation": 40, "test_limit": 20}
    document["grid"]["widths"]["settings"] = [[0.25, 0.25, 0.25]]
    return Study.from_manifest(validate(document))


def job_of(study: Study, folder: Path, keep: str = "best-last") -> TrialJob:
    retention = study.manifest.retention.model_copy(update={"keep": keep})
    manifest = study.manifest.model_copy(update={"retention": retention})
    (only,) = study.trials
    return TrialJob(study.trial_prefix(only.name), manifest, str(folder / "store"), None, only)


def attempt(job: TrialJob) -> dict:
    return attempt_trial(job, lambda report: None)


def state_of(study: Study, job: TrialJob):
    return read_trial(open_store(job.store_uri), study, job.trial)


@pytest.fixture
def reference(study, tmp_path) -> dict:
    job = job_of(study, tmp_path / "reference")
    assert attempt(job)["outcome"] == "finished"
    result = state_of(study, job).result
    assert result is not None
    return result


def test_every_checkpoint_has_a_record_and_two_have_bytes(study, tmp_path):
    job = job_of(study, tmp_path)
    assert attempt(job) == {"trial": job.trial.name, "outcome": "finished", "message": ""}
    state = state_of(study, job)
    assert [record.step for record in state.checkpoints] == [1, 2, 3, 4]
    kept = {record.step for record in state.checkpoints if record.state == "kept"}
    assert kept == {state.result["selected_epoch"], 4}
    assert [event["epoch"] for event in state.events() if event["event"] == "epoch"] == [1, 2, 3, 4]
    assert attempt(job)["outcome"] == "finished"
    assert len(state_of(study, job).attempts) == 1


def test_death_between_training_and_result_with_only_the_last_kept(
    study, tmp_path, reference, monkeypatch
):
    job = job_of(study, tmp_path, keep="last")
    with monkeypatch.context() as patch:
        patch.setattr(runtime_job, "commit_result", _raising(StoreUnavailableError("away")))
        assert attempt(job)["outcome"] == "storage"
    assert attempt(job)["outcome"] == "finished"
    state = state_of(study, job)
    assert state.result == reference
    assert {record.step for record in state.checkpoints if record.state == "kept"} == {4}


@pytest.mark.parametrize("victims", ["newest", "all"])
def test_damaged_checkpoints_cost_time_and_nothing_else(
    study, tmp_path, reference, monkeypatch, victims
):
    job = job_of(study, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trial, "attack", _raising(StoreUnavailableError("away")))
        assert attempt(job)["outcome"] == "storage"
    payloads = sorted((tmp_path / "store").rglob("weights-*.safetensors"))
    for payload in payloads if victims == "all" else payloads[-1:]:
        damaged = bytearray(payload.read_bytes())
        damaged[-1] ^= 1
        payload.write_bytes(damaged)
    outcomes = [attempt(job)["outcome"] for _ in range(2)]
    assert outcomes[-1] == "finished"
    assert set(outcomes) <= {"finished", "storage"}
    assert state_of(study, job).result == reference


@pytest.mark.parametrize("read", [load_selected, read_digest])
@pytest.mark.parametrize("name", ["record.json", "weights-*.safetensors"])
def test_training_begins_again_where_the_selected_epoch_is_lost(tmp_path, read, name):
    checkpoints = CheckpointStore(open_store(str(tmp_path / "store")), "trial", tmp_path)
    for epoch in (1, 2):
        checkpoints.commit(epoch, {"weights": {"w": torch.full((3,), float(epoch))}}, {})
    context: Any = SimpleNamespace(checkpoints=checkpoints, commits=True)
    (path,) = tmp_path.rglob(f"checkpoints/000001/{name}")
    path.write_bytes(flipped(path.read_bytes()))
    if read is read_digest and name != "record.json":  # the record names it all the same
        assert len(read(context, 1)) == 64
        return
    with pytest.raises((CorruptObjectError, NotFoundError)):
        read(context, 1)
    assert checkpoints.steps() == []


def test_a_failure_keeps_its_traceback(study, tmp_path, monkeypatch):
    job = job_of(study, tmp_path)
    monkeypatch.setattr(trial, "train_and_attack", _raising(RuntimeError("a mistake in the code")))
    outcome = attempt(job)
    assert outcome["outcome"] == "user_error"
    assert "a mistake in the code" in outcome["message"]
    (path,) = (tmp_path / "store").rglob("attempts/0001.json")
    record = json.loads(path.read_text())
    assert record["outcome"] == "user_error"
    assert "Traceback" in record["traceback"]
    assert state_of(study, job).status == "failed"


def test_an_unusable_gpu_is_told_and_recorded(study, tmp_path, monkeypatch):
    monkeypatch.delenv("ROBUSTRAY_DEVICE", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    job = job_of(study, tmp_path)
    resources = job.manifest.resources.model_copy(update={"gpus": 1.0})
    manifest = job.manifest.model_copy(update={"resources": resources})
    outcome = attempt(replace(job, manifest=manifest))
    assert outcome["outcome"] == "user_error"
    assert "ROBUSTRAY_DEVICE=cpu" in outcome["message"]
    assert len(state_of(study, job).attempts) == 1


def _raising(error: Exception):
    def fail(*_: object, **__: object):
        raise error

    return fail
