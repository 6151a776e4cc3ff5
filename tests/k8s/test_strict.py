"""Manifests against the schemas of Kubernetes and of KubeRay, unknown fields refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.kubernetes_manifests import APPLIED, JOBS, K8S, OVERLAYS, ROOT, kustomize


@pytest.fixture(scope="session")
def check():
    """A function that checks files strictly and returns exit status and output."""
    pytest.importorskip("kubernetes_validate")
    shared = ROOT.parent / "shared"
    tool, schemas = shared / "tools/k8s_static_check.py", shared / "schemas/kuberay"
    if not (tool.is_file() and schemas.is_dir()):
        pytest.skip("KubeRay's schemas are not at hand (../shared)")

    def run(*paths: Path) -> tuple[int, str]:
        command = [sys.executable, str(tool), "--crds", str(schemas), "--k8s", "1.33"]
        done = subprocess.run(
            [*command, *map(str, paths)], capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_everything_passes(check, tmp_path) -> None:
    rendered = []
    for folder in [*OVERLAYS, K8S / "overlays/cpu/jobs"]:
        rendered.append(tmp_path / f"{folder.parent.name}-{folder.name}.yaml")
        rendered[-1].write_text(kustomize(folder))
    status, output = check(*APPLIED, *JOBS, *rendered)
    assert status == 0, output


MUTATIONS = {
    "unknown field of the operator's": ("60-ray.yaml", "  rayVersion:", "  rayVersions:"),
    "unknown way of updating": ("60-ray.yaml", "    type: Recreate", "    type: Rolling"),
    "unknown field of a Ray pod": ("60-ray.yaml", "restartPolicy:", "restartPolicies:"),
    "image without a tag": ("40-postgres.yaml", ":17.6-bookworm", ""),
    "replicas out of their range": ("60-ray.yaml", "    replicas: 0", "    replicas: 9"),
    "volume that is not there": (
        "55-mlflow.yaml",
        "      - emptyDir: {}\n        name: home\n",
        "",
    ),
    "wrong type": ("40-postgres.yaml", "containerPort: 5432", "containerPort: five"),
    "selector without its pods": ("55-mlflow.yaml", "matchLabels:", "matchLabels:\n      a: b"),
    "job name too long": ("jobs/evaluate.yaml", "name: evaluate", f"name: {'e' * 48}"),
    "clean-up twice": (
        "jobs/evaluate.yaml",
        "  shutdownAfter",
        "  deletionStrategy: {deletionRules: [{policy: DeleteSelf, condition: "
        "{jobStatus: SUCCEEDED, ttlSeconds: 1}}]}\n  shutdownAfter",
    ),
}


@pytest.fixture(scope="session")
def verdicts(check, tmp_path_factory) -> dict[str, str]:
    """What the check says of each mutated file; one start of it reads them all."""
    folder = tmp_path_factory.mktemp("mutated")
    files = {}
    for mutation, (name, old, new) in MUTATIONS.items():
        text = (K8S / name).read_text()
        assert old in text
        files[mutation] = folder / f"{mutation.replace(' ', '-')}.yaml"
        files[mutation].write_text(text.replace(old, new, 1))
    status, output = check(*files.values())
    assert status == 1, output
    lines = output.splitlines()
    return {
        mutation: "\n".join(line for line in lines if str(file) in line)
        for mutation, file in files.items()
    }


@pytest.mark.parametrize("mutation", sorted(MUTATIONS))
def test_mutated_manifests_fail(verdicts, mutation) -> None:
    assert "FAIL" in verdicts[mutation], verdicts[mutation]
