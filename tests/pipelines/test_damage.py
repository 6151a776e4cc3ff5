"""Every object of a finished job, damaged in turn: nothing damaged is used or published."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robustray.errors import CorruptObjectError
from robustray.manifest import Resources, build_manifest
from robustray.pipelines.alignment_files import find_run
from robustray.pipelines.projection_units import commit_payload, committed_units, read_payload
from robustray.pipelines.run import describe_jobs, describe_progress, prefix_of
from robustray.pipelines.tracked import job_run
from robustray.pipelines.work import Job, attempt_job, read_file, read_result
from robustray.store import LocalStore, canonical_json, find_sealed, sha256_bytes
from tests.damage import damaged, emptied, flipped, torn
from tests.pipelines.counting import count

HARMS = {"flipped": flipped, "torn": torn, "emptied": emptied}
MANIFEST = build_manifest(
    {"kind": "Sweep", "name": "counting", "data": {"name": "digits"}, "recipe": {"epochs": 2}}
)
PREFIX = prefix_of(MANIFEST, "alignment")


def job_of(folder: Path) -> Job:
    resources = Resources(gpus=0, cpus=1)
    return Job(PREFIX, MANIFEST, count, str(folder), str(folder.parent), resources)


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
    return result, files, describe_progress(MANIFEST, "alignment", 2, store), believed


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
    with damaged(place / PREFIX / "result.json", harm):
        assert describe_jobs(LocalStore(place), ["alignment"])[0].endswith("DAMAGED; run it again")


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
