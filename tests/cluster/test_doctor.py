"""The doctor on healthy and on broken places: one line each, a remedy, and no secret."""

from __future__ import annotations

import ssl

import pytest

from robustray.cli import main
from robustray.cluster import doctor
from robustray.errors import MachineError
from tests.helpers.faulty_servers import Proxy as TcpProxy
from tests.helpers.http_proxy import FORWARD, Proxy
from tests.helpers.study_runs import enter_folder

pytestmark = pytest.mark.without_ray


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder where everything lands, without any setting."""
    return enter_folder(tmp_path, monkeypatch)


def states(out: str) -> dict[str, str]:
    return {line.split()[1]: line.split()[0] for line in out.splitlines()}


def test_a_fresh_place_is_sound(place, capsys):
    assert main(["doctor", "--manifest", "small.yaml"]) == 0
    out = capsys.readouterr().out
    found = states(out)
    assert list(found) == ["ray", "store", "mlflow", "data", "gpu", "disk"]
    assert {found[name] for name in ("ray", "store", "mlflow", "data")} == {"ok"}
    assert "digits needs no files" in out


def test_everything_broken_is_told_with_remedies_and_without_secrets(place, capsys, monkeypatch):
    for name, value in {
        "RAY_ADDRESS": "127.0.0.1:9",
        "ROBUSTRAY_STORE": "ftp://bucket",
        "MLFLOW_TRACKING_URI": "http://me:canary-1@127.0.0.1:9",
        "MLFLOW_TRACKING_PASSWORD": "canary-22",
        "AWS_SECRET_ACCESS_KEY": "canary-333",
        "RAY_AUTH_TOKEN": "canary-4444",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(doctor, "_TOO_LITTLE_GB", 10**9)
    monkeypatch.setattr(doctor, "_LITTLE_GB", 10**9)
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    found = states(out)
    assert {found[name] for name in ("ray", "store", "mlflow", "disk")} == {"FAIL"}
    assert found["data"] == "warn"  # nothing here, and nobody said what is wanted
    for word in ("RAY_ADDRESS", "s3://bucket/prefix", "MLFLOW_TRACKING_URI", "TMPDIR"):
        assert word in out
    assert "canary" not in out


def test_a_bucket_is_exercised_and_its_clock_read(place, capsys, monkeypatch, s3_uri):
    monkeypatch.setenv("ROBUSTRAY_STORE", s3_uri)
    assert doctor._store() == (
        "ok", f"{s3_uri}: writes, reads, lists, creates only once, deletes"
    )  # fmt: skip
    monkeypatch.setattr(doctor, "_SKEW_S", -1.0)
    state, words = doctor._store()
    assert state == "FAIL"
    assert "clocks differ" in words


def test_missing_data_are_named_until_they_are_staged(place, capsys, monkeypatch, shared_data):
    wanted = ["--manifest", "small.yaml", "--set", "data={name: mnist}"]
    assert main(["doctor", *wanted]) == 3
    assert "robustray data push mnist" in capsys.readouterr().out
    monkeypatch.setenv("ROBUSTRAY_DATA", str(shared_data))
    assert main(["data", "push", *wanted]) == 0
    monkeypatch.delenv("ROBUSTRAY_DATA")
    assert main(["doctor", *wanted]) == 0
    assert "mnist is staged" in capsys.readouterr().out
    assert not (place / "data").exists(), "a look changes nothing"


def test_an_mlflow_that_wants_a_password(place, monkeypatch, mlflow_server):
    with Proxy(mlflow_server.endpoint, lambda _: FORWARD, login=("me", "s3cret")) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.endpoint)
        state, words = doctor._mlflow()
        assert state == "FAIL"
        assert "MLFLOW_TRACKING_USERNAME" in words
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
        assert doctor._mlflow() == ("ok", f"{proxy.endpoint} answers")


def test_an_mlflow_behind_a_certificate_authority_of_ones_own(
    place, monkeypatch, mlflow_server, certificate
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with TcpProxy(mlflow_server.port, context) as proxy:
        uri = proxy.endpoint.replace("http://", "https://")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert doctor._mlflow()[0] == "FAIL"
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate[0]))
        assert doctor._mlflow() == ("ok", f"{uri} answers")


def test_a_run_on_a_cluster_that_is_not_there_starts_nothing(place, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert main(["run", "--manifest", "small.yaml"]) == 3
    out, err = capsys.readouterr()
    assert out.startswith("FAIL  ray")
    assert "ray failed" in err
    assert not (place / "runs/store/studies").exists()


def test_mlflow_away_stops_no_run_and_a_broken_store_does(place, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(doctor, "_ray", lambda: (doctor.OK, "well"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    lines: list[str] = []
    doctor.preflight(None, lines.append)
    assert [line.split()[:2] for line in lines if line.startswith("FAIL")] == [["FAIL", "mlflow"]]
    assert lines[-1].startswith("checked before the start: ray")
    (place / "runs").mkdir(exist_ok=True)
    monkeypatch.setenv("ROBUSTRAY_STORE", "ftp://nowhere")
    with pytest.raises(MachineError, match="store failed"):
        doctor.preflight(None, lines.append)


def test_a_laptop_is_not_examined(place):
    lines: list[str] = []
    doctor.preflight(None, lines.append)
    assert lines == []
