"""The stack for one machine: hardened, healthy in order, reached on loopback only."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
import yaml

from scripts import make_secrets

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker/compose.yaml").read_text()
STACK = yaml.safe_load(TEXT)
SERVICES = STACK["services"]


def test_the_services_are_those_of_the_documentation() -> None:
    assert set(SERVICES) == {"postgres", "s3", "buckets", "mlflow", "ray-head", "ray-worker"}
    assert set(yaml.safe_load((ROOT / "docker/compose.gpu.yaml").read_text())["services"]) <= set(
        SERVICES
    )


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_are_hardened(name) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged", False)
    assert service.get("cap_add", []) == (["DAC_OVERRIDE"] if name == "s3" else [])
    assert any(entry.split(":")[0] == "/tmp" for entry in service["tmpfs"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"buckets"}))
def test_servers_have_health_checks(name) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_each_service_waits_for_what_it_needs() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert {name: set(needs) for name, needs in waits.items()} == {
        "postgres": set(),
        "s3": set(),
        "buckets": {"s3"},
        "mlflow": {"postgres", "buckets"},
        "ray-head": {"mlflow", "buckets"},
        "ray-worker": {"ray-head"},
    }
    for needs in waits.values():
        for needed, how in needs.items():
            once = needed == "buckets"
            wanted = "service_completed_successfully" if once else "service_healthy"
            assert how == {"condition": wanted}


def test_only_two_ports_are_published_and_only_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:5000:5000", "127.0.0.1:8265:8265"]
    assert STACK["networks"]["inside"] == {"internal": True}
    for name, service in SERVICES.items():
        assert service["networks"] == (["inside", "edge"] if "ports" in service else ["inside"]), (
            name
        )


def test_the_head_takes_its_address_where_the_workers_are() -> None:
    command = SERVICES["ray-head"]["command"]
    assert command[:2] == ["python", "docker/start_head.py"]
    neighbour = SERVICES[command[2]]
    assert neighbour["networks"] == SERVICES["ray-worker"]["networks"] == ["inside"]


def test_ray_refuses_clients_without_the_token() -> None:
    for name in ("ray-head", "ray-worker"):
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert "--num-cpus=0" in SERVICES["ray-head"]["command"]


def test_every_secret_is_asked_for_and_none_is_written_down() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?run make compose-secret\}", TEXT))
    assert asked == set(make_secrets.values())
    for name in asked:
        assert not re.search(rf"{name}: (?!\$\{{{name}:\?)", TEXT)


def test_images_agree_with_the_lock_and_with_kubernetes() -> None:
    image = yaml.safe_load((ROOT / "k8s/image/kustomization.yaml").read_text())["images"][0]
    ours = {name for name, service in SERVICES.items() if "build" in service}
    assert ours == {"buckets", "mlflow", "ray-head", "ray-worker"}
    assert all(SERVICES[name]["image"].startswith("${ROBUSTRAY_IMAGE:-") for name in ours)
    assert image["name"] == "robustray"
    for name, file in (("postgres", "40-postgres.yaml"), ("s3", "45-s3.yaml")):
        assert f"image: {SERVICES[name]['image']}\n" in (ROOT / "k8s" / file).read_text()
    version = SERVICES["s3"]["image"].rpartition(":")[2]
    assert f"\nseaweedfs-bin=={version}\n" in (ROOT / "constraints.txt").read_text()


def test_secrets_are_written_once_and_for_their_owner_only(tmp_path, capsys) -> None:
    path = tmp_path / ".env"
    make_secrets.compose(path)
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {line.partition("=")[0] for line in first.splitlines()} == set(make_secrets.values())
    with pytest.raises(SystemExit) as ended:
        make_secrets.compose(path)
    assert ended.value.code == 2
    assert "left alone" in capsys.readouterr().err
    assert path.read_text() == first
