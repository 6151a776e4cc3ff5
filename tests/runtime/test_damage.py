"""Every object of a finished job, damaged in turn: nothing damaged is used or published."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robustray.alignment.job.files import find_run
from robustray.alignment.job.projection_units import commit_payload, committed_units, read_payload
from robustray.cli import main
from robustray.errors import CorruptObjectError
from robustray.manifest import Resources, build_manifest
from robustray.runtime.file_jobs import FileJob, is_whole, job_run, read_file, read_result
from robustray.runtime.job import attempt_job
from robustray.runtime.job_driver import prefix_of
from robustray.runtime.long_jobs import describe_progress
from robustray.store import LocalStore, canonical_json, find_sealed, sha256_bytes
from tests.helpers.counting_job import count
from tests.helpers.damage import damaged, emptied, flipped, torn

HARMS = {"flipped": flipped, "torn": torn, "emptied": emptied}
MANIFEST = build_manifest(
    {"kind": "Sweep", "name": "counting", "data": {"name": "digits"}, "recipe": {"epochs": 2}}
)
PREFIX = prefix_of(MANIFEST, "alignment")


def job_of(folder: Path) -> FileJob:
    resources = Resources(gpus=0, cpus=1)
    return FileJob(PREFIX, MANIFEST, str(folder), str(folder.parent), count, resources)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "store"
    assert attempt_job(job_of(folder)) == ("finished", "")
    return folder


def told(folder: Path) -> object:
    """Return what of a job is believed: by later jobs, by status, by MLflow (but for the story)."""
    store = LocalStore(folder)
    _, result = find_run(store, "counting")
    files = {name: read_file(store, PREFIX, result, name) for name in result["files"]}
    shown = job_run(job_of(folder), store, "FINISHED", {}).artifacts
    believed = {name: shown[name] for name in ("result.json", "table.csv")}
    return result, files, describe_progress(MANIFEST, "alignment", 2, store)[0], believed


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_no_damaged_object_is_believed(place, harm):
    whole, refused = told(place), set()
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        with damaged(path, harm):
            try:
                assert told(place) == whole, path
            except CorruptObjectError:
                refused.add(path.relative_to(place / PREFIX).parts[0])
    assert refused == {"result.json", "files"}


def test_status_tells_of_damage_and_ends_with_3(place, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTRAY_STORE", str(place))
    assert main(["status"]) == 0
    assert capsys.readouterr().out == f"{PREFIX.replace('/', ' ')}: finished\n"
    with damaged(place / PREFIX / "result.json", torn):
        assert main(["status"]) == 3
        said = capsys.readouterr()
    assert said.err.startswith(f"error: {PREFIX}/result.json is damaged")
    assert said.out == ""


@pytest.mark.parametrize("name", ["result.json", "files"])
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_the_next_run_makes_it_again(place, tmp_path, name, harm):
    whole, folder = told(place), tmp_path / "store"
    shutil.copytree(place, folder)
    paths = [path for path in (folder / PREFIX).rglob("*") if path.is_file()]
    for path in paths:
        if path.relative_to(folder / PREFIX).parts[0] == name:
            path.write_bytes(harm(path.read_bytes()))
    assert attempt_job(job_of(folder)) == ("finished", "")
    assert told(folder) == whole


def test_what_was_made_again_meanwhile_is_not_deleted(place, tmp_path, monkeypatch):
    """Another worker mends what this one has just found damaged."""
    folder, get = tmp_path / "store", LocalStore.get
    shutil.copytree(place, folder)
    store, identity = LocalStore(folder), {"images": "a"}
    unit = f"projections/units/{sha256_bytes(canonical_json(identity))}"
    commit_payload(store, unit, identity, b"one 1")
    for key, is_kept in (
        (f"{PREFIX}/result.json", lambda: is_whole(store, PREFIX)),
        (f"{unit}/record.json", lambda: committed_units(store, [unit]) == [unit]),
        (f"{unit}/record.json", lambda: read_payload(store, unit) == b"one 1"),
    ):
        whole = store.get(key)
        store.put(key, torn(whole))

        def mended_get(self, name, *, key=key, whole=whole):
            data = get(self, name)
            if name == key and data != whole:
                self.put(key, whole)
            return data

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "get", mended_get)
            assert is_kept()
        assert store.get(key) == whole


def test_results_of_earlier_versions_are_read(place, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(place, folder)
    store = LocalStore(folder)
    for path in (folder / PREFIX).rglob("*.json"):
        content = find_sealed(store, path.relative_to(folder).as_posix())
        assert content is not None
        path.write_bytes(canonical_json(content))
    assert told(folder) == told(place)
    assert read_result(store, PREFIX) == read_result(LocalStore(place), PREFIX)


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_units_of_projections_are_verified_and_made_again(tmp_path, harm):
    store, identity = LocalStore(tmp_path), {"images": "a", "class": 3}
    prefix = f"projections/units/{sha256_bytes(canonical_json(identity))}"
    for path_of in ("record.json", f"{sha256_bytes(b'one 1')}.safetensors"):
        commit_payload(store, prefix, identity, b"one 1")
        assert committed_units(store, [prefix, "projections/units/other"]) == [prefix]
        path = tmp_path / prefix / path_of
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"3", b"2", 1) if harm is flipped else harm(whole))
        path.write_bytes(whole[:-3] + b"x" if path.read_bytes() == whole else path.read_bytes())
        with pytest.raises(CorruptObjectError):
            read_payload(store, prefix)
        if path_of == "record.json":  # committed over, before anybody deletes it
            path.write_bytes(torn(whole))
            commit_payload(store, prefix, identity, b"one 1")
            assert read_payload(store, prefix) == b"one 1"
            path.write_bytes(torn(whole))
        assert committed_units(store, [prefix]) == []
    commit_payload(store, prefix, identity, b"one 1")
    assert read_payload(store, prefix) == b"one 1"


def test_a_unit_of_another_identity_and_one_of_an_earlier_version(tmp_path):
    store, identity = LocalStore(tmp_path), {"images": "a", "class": 3}
    prefix = f"projections/units/{sha256_bytes(canonical_json(identity))}"
    commit_payload(store, prefix, {**identity, "class": 4}, b"other")
    with pytest.raises(CorruptObjectError, match="another unit"):
        read_payload(store, prefix)
    earlier = {"identity": identity, "sha256": sha256_bytes(b"old")}
    store.put(f"{prefix}/{earlier['sha256']}.safetensors", b"old")
    store.put(f"{prefix}/record.json", canonical_json(earlier))
    assert read_payload(store, prefix) == b"old"
