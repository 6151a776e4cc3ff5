"""Bucket set-up against a real S3 server."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from robustray.store.s3_client import connect

ROOT = Path(__file__).resolve().parents[2]


def run(*buckets: str) -> subprocess.CompletedProcess[str]:
    """Run the script as its container does."""
    command = [sys.executable, "docker/create_bucket.py", *buckets]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_buckets_are_created_and_creating_them_again_changes_nothing(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"b{uuid.uuid4().hex[:12]}" for _ in range(2)]
    monkeypatch.setenv("ROBUSTRAY_STORE", f"s3://{names[0]}/store")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for _ in range(2):
        done = run(names[1])
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [w for n in names for w in ("bucket", n, "is", "there")]
        connect(10.0).put_object(Bucket=names[0], Key="kept", Body=b"1")
    assert {names[0], names[1]} <= {b["Name"] for b in connect(10.0).list_buckets()["Buckets"]}
    assert connect(10.0).get_object(Bucket=names[0], Key="kept")["Body"].read() == b"1"


def test_wrong_credentials_end_at_once_and_are_not_shown(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTRAY_STORE", s3_uri)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-0f3c")
    done = run()
    assert done.returncode == 1
    assert "SignatureDoesNotMatch" in done.stderr
    assert "canary" not in done.stdout + done.stderr
