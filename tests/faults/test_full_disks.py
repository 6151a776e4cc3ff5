"""Disks that are really full, and other faults of machines: whose they are, and what helps."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ray.exceptions import RaySystemError, RayTaskError, RuntimeEnvSetupError
from safetensors import SafetensorError

from robustray.cli import main
from robustray.errors import (
    CorruptObjectError,
    DataError,
    MachineError,
    ManifestError,
    StoreError,
    StoreUnavailableError,
    find_fault,
)
from robustray.manifest import Retries
from robustray.runtime.attempts import list_attempts
from robustray.runtime.failures import Failure, classify, one_line, reply_to_failure
from robustray.runtime.queue import TrialQueue
from robustray.store import LocalStore, save_tensors
from robustray.sweeps import trial as trials
from tests.sweeps.test_damage import DONE, job_of, small_study

STORAGE, PREEMPTION = Failure.STORAGE, Failure.PREEMPTION
MEMORY, USER = Failure.OUT_OF_MEMORY, Failure.USER_ERROR


WRITERS = {
    "safetensors": lambda path: save_tensors({"x": torch.zeros(99_999)}, path),
    "torch": lambda path: torch.save(torch.zeros(99_999), path),
    "numpy": lambda path: np.save(path, np.zeros(99_999)),
    "arrow": lambda path: pq.write_table(pa.table({"x": np.random.rand(99_999)}), path),
    "plain": lambda path: path.write_bytes(bytes(99_999)),
    "store": lambda path: LocalStore(path).put("key", bytes(99_999)),
}


def behind(outer: Exception, inner: Exception) -> Exception:
    """Return an error that was raised from another one."""
    outer.__cause__ = inner
    return outer


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
IO = system(errno.EIO)
CASES = {
    **{
        f"the system says {errno.errorcode[number]}": (system(number), STORAGE)
        for number in DISK
    },
    "the system says ENOMEM": (system(errno.ENOMEM), MEMORY),
    "safetensors": (SafetensorError("I/O error: No space left on device (os error 28)"), STORAGE),
    "sqlite": (sqlite3.OperationalError("database or disk is full"), STORAGE),
    "torch writes": (RuntimeError("PytorchStreamWriter failed writing file data/0"), STORAGE),
    "a wrapped error": (behind(RuntimeError("reading failed"), IO), STORAGE),
    "an error of data from a failing disk": (behind(DataError("can't be read"), IO), STORAGE),
    "several at once": (ExceptionGroup("all", [ValueError("x"), IO]), STORAGE),
    "what Ray carries": (RayTaskError("f", "trace", system(errno.ENOSPC)), STORAGE),
    "a store that is away, wrapped": (
        behind(RuntimeError("epoch 3"), StoreUnavailableError("no answer")), STORAGE,
    ),
    "a service that refuses": (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), STORAGE),
    "damage": (CorruptObjectError("x is damaged"), STORAGE),
    "no memory": (MemoryError(), MEMORY),
    "no memory on a GPU": (torch.OutOfMemoryError("CUDA out of memory"), MEMORY),
    "no memory, in words": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MEMORY),
    "Ray fails": (RaySystemError("gone"), PREEMPTION),
    "an environment that Ray can't set up": (RuntimeEnvSetupError("no package x"), USER),
    "numpy comes up short": (OSError("9 requested and 3 written"), STORAGE),
    "torch comes up short": (RuntimeError("unexpected pos 64 vs 0"), STORAGE),
    "numbers of a user": (RuntimeError("size mismatch: 3 requested and 4 given"), USER),
    "a position of a user": (RuntimeError("unexpected pos in the list"), USER),
    "a machine": (MachineError("gone"), PREEMPTION),
    "a user's value": (ValueError("no space left on device"), USER),
    "a missing file": (FileNotFoundError(errno.ENOENT, "no such file"), USER),
    "a missing file, told": (behind(ManifestError("no file"), system(errno.ENOENT)), USER),
    "a store with a wrong name": (StoreError("no such bucket"), USER),
    "a bug": (KeyError("x"), USER),
}  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), CASES.values(), ids=CASES)
def test_whose_fault_an_error_is(error, kind):
    assert classify(error) is kind
    reply = reply_to_failure("unit", error)
    assert reply.outcome == kind.value
    assert reply.user == (kind is USER and isinstance(error, ValueError | StoreError))
    if kind is not USER and find_fault(error):
        assert TrialQueue([("a", 1.0)], Retries()).pop(0) == "a"
        assert getattr(Retries(), kind.value) > 0, "it has a budget"


def test_the_message_names_disk_and_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = one_line(SafetensorError("I/O error: No space left on device (os error 28)"))
    assert f"no space was left on the disk of {tmp_path}" in said
    assert "MiB are free now" in said
    assert "set TMPDIR" in said
    named = OSError(errno.EROFS, "Read-only file system", f"{tmp_path}/a/b")
    assert f"{tmp_path}/a is mounted read-only" in one_line(named)
    assert "ulimit -n" in one_line(OSError(errno.EMFILE, "Too many open files"))


def test_too_many_open_files_are_a_machines_fault(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(OSError, match="Too many open files") as caught:
            (tmp_path / "x").open("w")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert classify(caught.value) is STORAGE


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 KiB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_libraries_make_of_a_full_disk_is_a_machines_fault(small_disk, write):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (each library has its own)
        write(small_disk / "file")
    assert classify(caught.value) is STORAGE, repr(caught.value)


def test_a_trial_on_a_full_scratch_disk_goes_on_elsewhere(tmp_path, small_disk, monkeypatch):
    study = small_study()
    job = job_of(study, tmp_path / "store", DONE)
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(small_disk))
        outcome = trials.attempt_trial(job, lambda _: None)
    assert outcome["outcome"] == "storage", outcome
    assert f"no space was left on the disk of {small_disk}" in outcome["message"]
    assert trials.attempt_trial(job, lambda _: None)["outcome"] == "finished"
    tries = list_attempts(LocalStore(tmp_path / "store"), job.prefix)
    assert [entry.outcome for entry in tries] == ["storage", "finished"]


def test_a_full_store_ends_with_3_and_one_line(tmp_path, small_disk, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTRAY_STORE", str(small_disk / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    (small_disk / "filler").write_bytes(bytes(64 * 1024))
    (tmp_path / "study.yaml").write_text(
        "{kind: Sweep, name: s, data: {name: digits}, resources: {gpus: 0}}"
    )
    assert main(["run", "--manifest", "study.yaml"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: can't write to")
    assert len(said.splitlines()) == 1
