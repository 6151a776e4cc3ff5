"""The helpers that run real servers leave nothing behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3.session
import pytest

from tests.helpers.servers import MlflowServer, Ports, S3Server, Server, StartError, program

ROOT = Path(__file__).resolve().parents[2]


def test_servers_die_with_the_process_that_started_them() -> None:
    program("weed")
    code = (
        "from tests.helpers.servers import S3Server; import time\n"
        "server = S3Server().start(); print(server.pid, server.folder, flush=True); time.sleep(999)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert owner.stdout is not None
    group, folder = owner.stdout.readline().decode().split()
    assert _alive(int(group))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 20
    while _alive(int(group)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not Path(folder).exists()


def test_what_was_written_survives_kill_and_restart(s3_server: S3Server, s3_uri: str) -> None:
    client, port = s3_server.client(), s3_server.port
    client.put_object(Bucket=s3_server.bucket, Key=s3_uri[-8:], Body=b"v")
    s3_server.kill()
    assert not s3_server.answers()
    assert not _alive(s3_server.pid)
    s3_server.restart()
    assert s3_server.port == port
    assert client.get_object(Bucket=s3_server.bucket, Key=s3_uri[-8:])["Body"].read() == b"v"


def test_another_ones_server_is_not_taken_for_ours(s3_server: S3Server) -> None:
    other = S3Server()
    other._ports = s3_server._ports
    assert not other.answers()
    other._temporary.cleanup()  # type: ignore[union-attr]


def test_a_server_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    class Broken(Server):
        def command(self) -> list[str]:
            return [sys.executable, "-c", "print('no such thing')"]

        def answers(self) -> bool:
            return False

    with pytest.raises(StartError, match="no such thing"):
        Broken(tmp_path).start()


def test_ports_in_use_or_lent_are_not_given() -> None:
    first, second = Ports(20), Ports(20)
    assert len(set(first.numbers) | set(second.numbers)) == 40
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert taken.getsockname()[1] not in first.numbers
    first.release()
    second.release()


@pytest.mark.slow
def test_mlflow_survives_kill_and_restart(mlflow_server: MlflowServer) -> None:
    mlflow_server.kill()
    assert not mlflow_server.answers()
    mlflow_server.restart()
    assert mlflow_server.answers()


def test_clients_need_only_the_environment(s3_uri: str, s3_server: S3Server) -> None:
    assert s3_uri.startswith(f"s3://{s3_server.bucket}/")
    names = [b["Name"] for b in boto3.session.Session().client("s3").list_buckets()["Buckets"]]
    assert s3_server.bucket in names


def _alive(group: int) -> bool:
    """Tell whether the group has a process that is not a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False
