"""Every object of a small finished study, damaged in turn: another table is never printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from robustray.cli import main
from robustray.errors import CorruptObjectError, UserError
from robustray.manifest import Sweep, validate
from robustray.reports.report import write_table
from robustray.runtime import attempts
from robustray.store import LocalStore, canonical_json, find_sealed
from robustray.sweeps import Study, describe_status, load_study, make_plan, read_status, run_study
from robustray.sweeps.mending import mend_study, save_study
from robustray.sweeps.records import read_trials
from robustray.sweeps.runs import trial_row
from robustray.sweeps.search.halving import Halving, read_decisions
from robustray.sweeps.trial import TrialJob, attempt_trial
from tests.helpers.damage import damaged, emptied, flipped, torn
from tests.helpers.study_runs import STUDY

FAILED, DONE, STOPPED = "d1-1-1_w0.25-0.25-0.25", "d1-1-1_w0.25-0.25-0.5", "d1-1-1_w0.25-0.5-0.25"
HARMS = {"flipped": flipped, "torn": torn, "emptied": emptied}


def small_study() -> Study:
    document = yaml.safe_load(STUDY)
    document["data"] |= {"train_limit": 100, "validation": 20, "test_limit": 10}
    document["recipe"] |= {"epochs": 2, "inner": {"steps": 1, "step_size": 0.04}}
    document["evaluation"] = {"attacks": ["fgsm"]}
    document["search"] = {"grace_epochs": 1, "reduction": 2}
    document["grid"]["widths"]["settings"] = [[0.25] * 3, [0.25, 0.25, 0.5], [0.25, 0.5, 0.25]]
    manifest = validate(document)
    assert isinstance(manifest, Sweep)
    return Study.from_manifest(manifest)


def job_of(study: Study, folder: Path, name: str) -> TrialJob:
    trial = next(trial for trial in study.trials if trial.name == name)
    return TrialJob(study.trial_prefix(name), study.manifest, str(folder), None, trial)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A store with a trial that is done, one that was stopped early, and one that failed."""
    folder = tmp_path_factory.mktemp("study") / "store"
    study, store = small_study(), LocalStore(folder)
    save_study(store, study)
    assert attempt_trial(job_of(study, folder, DONE), lambda _: None)["outcome"] == "finished"
    halving = Halving(study, store)
    assert halving.goes_on(DONE, {"epoch": 1, "validation_pgd-10": 0.9})
    assert not halving.goes_on(STOPPED, {"epoch": 1, "validation_pgd-10": 0.1})
    attempt = attempts.register(store, study.trial_prefix(FAILED), torch.device("cpu"))
    error = UserError("not wanted")
    attempts.conclude(store, study.trial_prefix(FAILED), attempt, "user_error", error)
    return folder


def table_of(folder: Path, scratch: Path) -> bytes:
    """Return the canonical table, as a report reads it from the store."""
    store = LocalStore(folder)
    study = load_study(store, small_study().id)
    describe_status(read_status(store, study), details=True)
    rows = [
        trial_row(state, PROFILES[state.trial.name], failed=state.status == "failed")
        for state in read_trials(store, study)
    ]
    write_table(rows, scratch)
    return (scratch / "table.csv").read_bytes()


PROFILES = {name: cost.profile for name, cost in make_plan(small_study()).costs.items()}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_no_damaged_object_gives_another_table(place, tmp_path, harm):
    whole = table_of(place, tmp_path)
    assert b"finished" in whole
    assert b"stopped" in whole
    assert b"failed" in whole
    refused, said = set(), []
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        with damaged(path, harm):
            try:
                assert table_of(place, tmp_path) == whole, path
            except CorruptObjectError as error:
                refused.add(path.relative_to(place).as_posix())
                said.append(str(error))
    study = small_study()
    assert refused == {
        f"manifests/{study.id}.yaml",
        f"{study.trial_prefix(DONE)}/result.json",
        f"{study.trial_prefix(STOPPED)}/stopped.json",
        f"{study.trial_prefix(FAILED)}/attempts/0001.json",
    }
    assert all("is damaged" in one and "again" in one for one in said)


@pytest.mark.parametrize(
    ("name", "harm"), [("result.json", flipped), ("result.json", torn), ("stopped.json", torn)]
)
def test_report_and_status_say_the_same(place, tmp_path, monkeypatch, capsys, name, harm):
    monkeypatch.setenv("ROBUSTRAY_STORE", str(place))
    monkeypatch.chdir(tmp_path)
    (path,) = place.rglob(f"trials/*/{name}")
    with damaged(path, harm):
        for command in (["report"], ["status"], ["status", "--study", "small"]):
            assert main(command) == 3
            said = capsys.readouterr()
            assert said.err.startswith("error: ")
            assert f"{name} is damaged" in said.err
            assert "Traceback" not in said.err
            assert "finished" not in said.out
    assert main(["status"]) == 0


def test_a_manifest_of_other_numbers_is_refused_with_and_without_its_digest(place):
    (path,) = (place / "manifests").iterdir()
    store, id_ = LocalStore(place), small_study().id
    text = path.read_text()
    assert "eps: 0.1" in text
    for edited in (text, text.partition("\n")[2]):
        with (
            damaged(path, lambda _, edited=edited: edited.replace("eps: 0.1", "eps: 0.3").encode()),
            pytest.raises(CorruptObjectError, match=r"manifests/small-.*\.yaml is"),
        ):
            load_study(store, id_)
    with damaged(path, lambda data: data.partition(b"\n")[2]):  # as earlier versions wrote it
        assert load_study(store, id_).manifest == small_study().manifest


def test_what_earlier_versions_wrote_is_read_and_said_to_be_unverified(place, tmp_path):
    whole = table_of(place, tmp_path / "new")
    old = tmp_path / "store"
    shutil.copytree(place, old)
    for path in old.rglob("trials/**/*.json"):
        content = find_sealed(LocalStore(path.parent), path.name)
        assert content is not None
        path.write_bytes(canonical_json(content))
    assert table_of(old, tmp_path / "old") == whole
    store = LocalStore(old)
    states = read_trials(store, load_study(store, small_study().id))
    assert [state.verified for state in states if state.result] == [False]


def test_a_result_of_another_trial_is_none(place):
    study, store = small_study(), LocalStore(place)
    (path,) = place.rglob("trials/*/result.json")
    moved = place / study.trial_prefix(FAILED) / "result.json"
    try:
        shutil.copy(path, moved)
        with pytest.raises(CorruptObjectError, match=f"no result of {FAILED}"):
            read_trials(store, study)
    finally:
        moved.unlink()


def test_what_a_further_suite_found_is_mended_by_an_evaluation(place):
    study, store = small_study(), LocalStore(place)
    key = f"{study.trial_prefix(DONE)}/evaluations/cw/record.json"
    try:
        store.put(key, b"torn")
        with pytest.raises(CorruptObjectError, match=r"\(evaluate the study again, for cw\)$"):
            read_trials(store, study)
        with (
            damaged(place / study.trial_prefix(STOPPED) / "stopped.json", torn),
            pytest.raises(CorruptObjectError, match=f"Run {study.id} again: what else is damaged"),
        ):
            read_trials(store, study)
    finally:
        store.delete(key)


def test_a_damaged_result_is_made_again_byte_for_byte(place, caplog):
    study, store = small_study(), LocalStore(place)
    (path,) = place.rglob("trials/*/result.json")
    (decision,) = place.rglob("trials/*/rungs/*.json")
    intact, kept = path.read_bytes(), decision.read_bytes()
    with damaged(path, flipped), damaged(decision, torn):
        assert mend_study(store, study) == {}
        assert "its score is lost" in caplog.text
        assert not path.exists()
        assert read_decisions(store, study)[0][0] == STOPPED
        assert attempt_trial(job_of(study, place, DONE), lambda _: None)["outcome"] == "finished"
        assert path.read_bytes() == intact
        path.write_bytes(flipped(intact))  # under the worker's eyes, after the driver looked
        assert attempt_trial(job_of(study, place, DONE), lambda _: None)["outcome"] == "finished"
        assert path.read_bytes() == intact
        assert set(mend_study(store, study)) == {DONE}
    assert decision.read_bytes() == kept


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(600)
def test_a_run_mends_everything_at_once_and_one_trial_that_fails_stops_no_other(place, tmp_path):
    study, folder = small_study(), tmp_path / "store"
    shutil.copytree(place, folder)
    (path,) = folder.rglob("trials/*/result.json")
    intact = path.read_bytes()
    for one in folder.rglob("*.json"):
        one.write_bytes(torn(one.read_bytes()))
    (folder / f"manifests/{study.id}.yaml").write_text("torn")
    # Where this trial should commit its first epoch there is a folder: it can never do so.
    (folder / study.trial_prefix(FAILED) / "checkpoints/000001/record.json").mkdir(parents=True)
    with pytest.raises(CorruptObjectError):
        load_study(LocalStore(folder), study.id)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    outcome = run_study(study.manifest, LocalStore(folder), uri, tmp_path, say=lambda _: None)
    assert outcome.failed.keys() == {FAILED}
    assert outcome.finished + outcome.stopped == 2
    assert not path.exists() or path.read_bytes() == intact  # or it is stopped, this time
    table_of(folder, tmp_path)
