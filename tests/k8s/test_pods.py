"""Every pod: no root, no capability, nothing writable but mounts; sizes, probes, secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.helpers.kubernetes_manifests import APPLIED, JOBS, K8S, ROOT, load, pods

PODS = dict(pods(load(*APPLIED, *JOBS)))


def containers(pod):
    return pod["spec"]["containers"] + pod["spec"].get("initContainers", [])


@pytest.mark.parametrize("name", sorted(PODS))
def test_pods_may_do_no_more_than_they_need(name) -> None:
    spec = PODS[name]["spec"]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["serviceAccountName"].startswith("robustray")
    calls_the_server = name == "RayCluster/robustray head"
    assert spec.get("automountServiceAccountToken", True) is calls_the_server
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for container in containers(PODS[name]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@pytest.mark.parametrize("name", sorted(PODS))
def test_pods_say_what_they_need(name) -> None:
    for container in containers(PODS[name]):
        sizes = container["resources"]
        assert {"cpu", "memory"} <= sizes["requests"].keys() <= sizes["limits"].keys()
        if container["name"].startswith("ray-") and "submitter" not in container["name"]:
            shared = {what: sizes["limits"][what] for what in sizes["requests"]}
            assert sizes["requests"] == shared
            assert sizes["requests"]["cpu"].isdigit()


def test_servers_have_probes_and_ray_leaves_them_to_its_operator() -> None:
    for name, pod in PODS.items():
        probes = {key for one in containers(pod) for key in one if key.endswith("Probe")}
        server = name.startswith(("Deployment", "StatefulSet"))
        assert probes == ({"startupProbe", "readinessProbe", "livenessProbe"} if server else set())


def referred() -> dict[str, set[str]]:
    """Secrets that pods refer to and can't do without, with the keys that they name."""
    found: dict[str, set[str]] = {}
    for pod in PODS.values():
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                found.setdefault(volume["secret"]["secretName"], set())
        for container in containers(pod):
            for source in container.get("envFrom", []):
                if "secretRef" in source and not source["secretRef"].get("optional"):
                    found.setdefault(source["secretRef"]["name"], set())
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    found.setdefault(reference["name"], set()).add(reference["key"])
    return found


def made() -> list[dict]:
    """Secrets as the script makes them."""
    command = [sys.executable, str(ROOT / "scripts/make_secrets.py"), "kubernetes", "--print"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return json.loads(done.stdout)["items"]


def test_the_secrets_that_are_made_are_those_that_are_used() -> None:
    fresh = {secret["metadata"]["name"]: secret["stringData"] for secret in made()}
    used = referred() | {"robustray-ray-token": {"auth_token"}}
    assert fresh.keys() == used.keys()
    for name, keys in used.items():
        assert keys <= fresh[name].keys()
    assert fresh["robustray-s3"]["AWS_SECRET_ACCESS_KEY"] in fresh["robustray-s3-server"]["s3.json"]


def test_without_a_cluster_there_is_one_clear_message(monkeypatch, tmp_path) -> None:
    script = [sys.executable, str(ROOT / "scripts/make_secrets.py"), "kubernetes"]
    monkeypatch.setenv("KUBECTL", str(tmp_path / "none"))
    done = subprocess.run(script, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "kubectl is not at hand: put it on PATH or name it in KUBECTL"
    ]


def test_secrets_are_random_and_long() -> None:
    first, second = (
        [value for secret in made() for value in secret["stringData"].values()] for _ in range(2)
    )
    assert not set(first) & set(second)
    assert min(map(len, first)) >= 32


def test_no_manifest_holds_a_secret() -> None:
    files = [path for folder in (K8S, ROOT / "docker") for path in folder.rglob("*")]
    committed = [path for path in files if path.suffix == ".yaml" or path.name == "Dockerfile"]
    assert len(committed) > len(APPLIED) + len(JOBS)
    for path in committed:
        text = path.read_text()
        assert "kind: Secret\n" not in text, path
        assert not re.search(
            r"(?i)\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}|://[^\s/@]+:[^\s/@]+@", text
        ), path
