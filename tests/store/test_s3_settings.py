"""Ways to reach a server that the environment and the profile of AWS's tools offer."""

from __future__ import annotations

import json
import shlex
import socket
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustray.errors import StoreError
from robustray.store import open_store
from tests.helpers.faulty_servers import Proxy
from tests.helpers.servers import S3Server


class VirtualHostServer(S3Server):
    """Knows its buckets as ``bucket.s3.test`` too."""

    def command(self) -> list[str]:
        return [*super().command(), "-s3.domainName=s3.test"]


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_uri: str) -> Path:
    """The configuration file of AWS's tools, empty."""
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return file


@pytest.fixture
def secure(s3_server: S3Server, certificate: tuple[Path, Path]) -> Iterator[str]:
    """Address of a proxy that speaks TLS and passes on to the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with Proxy(s3_server.port, context) as proxy:
        yield proxy.endpoint.replace("http://", "https://")


def test_clocks_of_one_machine_agree(s3_uri: str) -> None:
    assert abs(open_store(s3_uri).clock_skew()) < 5


def test_a_certificate_authority_of_ones_own(
    secure: str, s3_uri: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure)
    with pytest.raises(StoreError, match="not trusted; set AWS_CA_BUNDLE"):
        open_store(s3_uri).exists("k")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    store = open_store(s3_uri)
    store.put("k", b"v")
    assert store.get("k") == b"v"


def test_temporary_credentials_are_renewed_before_they_end(
    profile: Path,
    s3_server: S3Server,
    s3_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A program gives keys for five minutes, which is so short that each request asks for new."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = {
        "Version": 1,
        "AccessKeyId": s3_server.access_key,
        "SecretAccessKey": s3_server.secret_key,
        "Expiration": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
    }
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    program = tmp_path / "give.py"
    program.write_text(
        f"open({str(tmp_path / 'asked')!r}, 'a').write('x')\n"
        f"print(open({str(tmp_path / 'keys.json')!r}).read())\n"
    )
    profile.write_text(
        f"[default]\ncredential_process = {shlex.quote(sys.executable)} -I -S {program}\n"
    )
    store = open_store(s3_uri)
    store.put("k", b"v")
    asked = (tmp_path / "asked").read_text()
    assert store.get("k") == b"v"
    assert len((tmp_path / "asked").read_text()) > len(asked) > 0


def test_a_bucket_as_part_of_the_hosts_name(
    profile: Path, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``addressing_style = virtual`` of the profile is followed, also where an address is set."""
    asked = []
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: object, **named: object) -> object:
        asked.append(host)
        return resolve("127.0.0.1" if host.endswith("s3.test") else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with VirtualHostServer() as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://s3.test:{server.port}")
        profile.write_text("[default]\ns3 =\n  addressing_style = virtual\n")
        store = open_store(server.uri())
        assert store.create("k", b"v")
        assert not store.create("k", b"w")
        assert store.get("k") == b"v"
    assert {host for host in asked if host.endswith("s3.test")} == {f"{server.bucket}.s3.test"}
