"""The manifests as tests read them: plain files, and what kustomize makes of the sources."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
APPLIED = sorted(K8S.glob("*.yaml"))
JOBS = sorted(K8S.glob("jobs/*.yaml"))
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))

Manifest = dict[str, Any]


def load(*paths: Path) -> list[Manifest]:
    """Return every object of some files."""
    return [found for path in paths for found in yaml.safe_load_all(path.read_text()) if found]


def kustomize(folder: Path) -> str:
    """Return what kustomize makes of a folder; skips where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which brings kustomize, is not at hand")
    command = [kubectl, "kustomize", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def pods(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield every pod template with a name for messages; Ray's own label of heads included."""
    for found in objects:
        spec, name = found.get("spec", {}), f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, spec["template"]
        if "submitterPodTemplate" in spec:
            yield f"{name} submitter", spec["submitterPodTemplate"]
        cluster = spec if found["kind"] == "RayCluster" else spec.get("rayClusterSpec")
        if cluster:
            head = cluster["headGroupSpec"]["template"]
            head["metadata"]["labels"]["ray.io/node-type"] = "head"
            yield f"{name} head", head
            for group in cluster["workerGroupSpecs"]:
                yield f"{name} {group['groupName']}", group["template"]
