"""Studies of gradient directions as jobs: killed and resumed, handed on, probed."""

import json
import os
import shutil
import signal
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from robustray.alignment.job.align import align
from robustray.alignment.job.commands import check_references, steps_of
from robustray.alignment.job.files import find_run
from robustray.alignment.job.presenting import present
from robustray.data.folder import read_imagenet
from robustray.errors import ManifestError
from robustray.manifest import build_manifest, study_id
from robustray.models import create_model, save_weights
from robustray.runtime.attempts import list_attempts
from robustray.runtime.job_driver import run_job
from robustray.store import CheckpointStore, LocalStore
from robustray.sweeps import run_study
from tests.helpers.study_runs import wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("local_ray")]
RESOURCES = {"gpus": 0, "cpus": 1, "retries": {"backoff_seconds": 0.1}}
CURVE = {"attack": "pgd", "eps": [0.002, 0.006], "step_size": 0.002, "steps": 3}


def document(**changes):
    return {
        "kind": "Alignment", "name": "small", "stage": "classifier",
        "data": {"name": "spheres", "first": 40}, "delta_x": {"source": "exact"},
        "training": {
            "method": "l_alpha", "batch_size": 20, "epochs": 4, "steps_per_epoch": 10,
            "validation": CURVE, "validation_first": 40,
        },
        "evaluation": {"attacks": [CURVE, {"attack": "square", "eps": [0.01], "queries": 20}]},
        "resources": RESOURCES, **changes,
    }  # fmt: skip


def records(store):
    """Return the keys of what commits each unit of projections."""
    entries = store.list("projections/units/")
    return [entry.key for entry in entries if entry.key.endswith("record.json")]


def run(folder, changes=None, kill_after=None):
    manifest: Any = build_manifest(document(**(changes or {})))
    folder.mkdir(exist_ok=True)
    store = LocalStore(folder / "store")

    def kill():
        def ripe():
            found = store.list(f"alignment/{manifest.name}-")
            if not any(entry.key.endswith("attempts/0001.json") for entry in found):
                return None
            prefix = "/".join(found[0].key.split("/")[:2])
            epochs = CheckpointStore(store, prefix, folder).steps()
            done = max(epochs, default=len(records(store)))
            return prefix if kill_after and done >= kill_after else None

        attempt = json.loads(store.get(f"{wait_for(ripe)}/attempts/0001.json"))
        os.kill(attempt["environment"]["process"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    if kill_after:
        killer.start()
    outcome = run_job(
        manifest, "alignment", align, store, f"sqlite:///{folder}/mlflow.db", folder / "reports",
        steps=steps_of(manifest), coordinates=manifest.stage == "projections", data_folder=folder,
        present=present, say=lambda _: None,
    )  # fmt: skip
    if kill_after:
        killer.join()
    return store, outcome


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bytes_and_is_handed_on(tmp_path):
    whole, outcome = run(tmp_path / "whole")
    killed, _ = run(tmp_path / "killed", kill_after=1)
    key = f"alignment/{outcome.id}/result.json"
    assert whole.get(key) == killed.get(key)
    metrics = outcome.result["metrics"]
    # On spheres delta-x is along the point.
    alpha = metrics["cosine_similarity_gradient_vs_correctfn"]
    assert metrics["alpha_x"] == pytest.approx(abs(alpha), abs=0.05)
    assert {"pgd-linf_epsilon_50", "square-linf_error_0.01"} <= set(metrics)
    files = set(outcome.result["files"])
    assert {"classifier.safetensors", "radii.png", "alignment.png", "epochs.csv"} <= files

    evaluation = {"name": "judged", "stage": "evaluation", "weights": "small", "training": None}
    _, judged = run(tmp_path / "whole", evaluation)
    for name, value in judged.result["metrics"].items():
        assert value == pytest.approx(metrics[name], abs=1e-6), name
    comparison = {"name": "beside", "stage": "comparison", "training": None, "evaluation": None,
                  "comparison": {"jobs": ["small", "judged"]}}  # fmt: skip
    _, beside = run(tmp_path / "whole", comparison)
    assert beside.result["metrics"]["small_alpha_x"] == metrics["alpha_x"]
    assert {"pgd-linf.png", "alignment.png", "comparison.csv"} <= set(beside.result["files"])
    page = (beside.folder / "report.html").read_text()
    assert "small" in page
    assert beside.answer in page
    unknown = build_manifest(document(**comparison | {"comparison": {"jobs": ["small", "no"]}}))
    with pytest.raises(ManifestError, match="no finished job"):
        check_references(unknown, whole)
    generator = {
        "name": "way", "stage": "generator", "training": None, "evaluation": None,
        "delta_x": {"source": "none"},
        "generator": {
            "critic": "small", "epochs": 2, "steps_per_epoch": 5, "batch_size": 20,
        },
    }  # fmt: skip
    store, made = run(tmp_path / "whole", generator)
    assert "cosine_similarity_correct_vs_net_g_val" in made.result["metrics"]
    direct = {"delta_x": {"source": "direct", "generator": "way"}, "training": None,
              "name": "by-generator", "stage": "evaluation", "evaluation": {}}  # fmt: skip
    _, estimated = run(tmp_path / "whole", direct)
    found = estimated.result["metrics"]["cosine_similarity_correct_vs_net_g_val"]
    assert found == pytest.approx(made.result["metrics"]["cosine_similarity_correct_vs_net_g_val"])
    with pytest.raises(ManifestError, match="no finished job"):
        find_run(store, "unknown")


PROJECTED = {
    "source": "projected", "generator": "drawer",
    "projection": {"initial_steps": 3, "steps": 2},
}  # fmt: skip


DRAWER = {
    "name": "drawer", "stage": "conditional_generator", "delta_x": {"source": "none"},
    "training": None, "evaluation": None,
    "conditional_generator": {
        "channels": 2, "latent": 4, "batch_size": 10, "iterations": 4, "every": 2,
    },
}  # fmt: skip


@pytest.mark.slow
def test_a_killed_job_of_projections_ends_with_the_same_bytes(tmp_path):
    job = {
        "name": "cache", "stage": "projections", "training": None, "evaluation": None,
        "data": {"name": "squares32", "train_limit": 60, "first": 200},
        "delta_x": PROJECTED | {"projection": {"initial_steps": 30, "steps": 20}},
        "projections": {"splits": ["test"]}, "resources": {**RESOURCES, "max_concurrent": 1},
    }  # fmt: skip
    contents = []
    run(tmp_path / "whole", {"data": job["data"], **DRAWER})
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for name, kill_after in (("whole", None), ("killed", 2)):
        store, outcome = run(tmp_path / name, job, kill_after)
        assert outcome.result["metrics"] == {"test_pairs": 400}
        attempts = store.list(f"alignment/{outcome.id}/attempts/")
        assert (len(attempts) > 1) == bool(kill_after)
        keys = [entry.key for entry in store.list("projections/")]
        contents.append({key: store.get(key) for key in keys})
    assert len(contents[0]) == 2 * 8 + 1
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_projections_of_actors_are_what_a_later_stage_reads(tmp_path):
    nothing = {"training": None, "evaluation": None}
    data = {"name": "squares32", "train_limit": 60, "first": 7}
    store, made = run(tmp_path, {"data": data, **DRAWER})
    assert made.result["made"] == {"channels": 2, "latent": 4}
    judge = {**nothing, "data": data, "stage": "evaluation", "delta_x": PROJECTED, "evaluation": {}}
    _, demanded = run(tmp_path, {**judge, "name": "demanded"})

    wanted = {"name": "cache", "stage": "projections", "projections": {"splits": ["test"]}}
    wanted["resources"] = {**RESOURCES, "max_concurrent": 2}
    _, cached = run(tmp_path, {**nothing, "data": data, "delta_x": PROJECTED, **wanted})
    assert cached.result["metrics"] == {"test_pairs": 14}
    assert len(records(store)) == 2
    _, read = run(tmp_path, {**judge, "name": "read"})
    assert read.result["metrics"] == demanded.result["metrics"]

    # That they are read, not made again: a damaged one is noticed, and then made on demand.
    unit = records(store)[0].removesuffix("record.json")
    (key,) = (e.key for e in store.list(unit) if e.key.endswith(".safetensors"))
    store.put(key, b"damaged")
    _, mended = run(tmp_path, {**judge, "name": "mended"})
    assert mended.result["metrics"] == demanded.result["metrics"]
    first, second = list_attempts(store, f"alignment/{mended.id}")
    assert (first.outcome, second.outcome) == ("storage", "finished")
    assert "differ from their digest" in first.message
    assert len(records(store)) == 1

    too_many = {**wanted, "name": "wrong", "projections": {"splits": ["test"], "classes": [2]}}
    _, wrong = run(tmp_path, {**nothing, "data": data, "delta_x": PROJECTED, **too_many})
    assert "2 is no class of squares32" in wrong.failure


def lungs(folder):
    """Write 24 images of 16 bits, brighter ones with a larger number, and their table."""
    source = np.random.default_rng(0)
    (folder / "lungs").mkdir(parents=True)
    lines = ["path,target,subject"]
    for number in range(24):
        top = 65536 if number % 2 else 9000
        grey = source.integers(0, top, (40, 50), dtype=np.uint16)
        Image.fromarray(grey).save(folder / f"lungs/{number}.png")
        lines.append(f"{number}.png,{0.9 if number % 2 else 0.5},s{number // 4}")
    (folder / "lungs/table.csv").write_text("\n".join(lines))
    (folder / "lungs/validation.txt").write_text("s0\n")
    (folder / "lungs/test.txt").write_text("s1\n")


@pytest.mark.slow
def test_images_of_ones_own_go_all_the_way(tmp_path):
    lungs(tmp_path)
    files = {
        "root": "lungs", "table": "table.csv", "subject": "subject", "size": 36, "crop": 32,
        "validation": "validation.txt", "test": "test.txt",
    }  # fmt: skip
    curve = {"attack": "pgd", "eps": [0.1], "steps": 2}
    own = {
        "name": "own", "data": {"name": "folder", "folder": files},
        "delta_x": {"source": "nearest"},
        "training": {
            "method": "l_alpha", "batch_size": 4, "epochs": 1, "steps_per_epoch": 2,
            "validation": curve,
        },
        "evaluation": {"attacks": [curve]},
    }  # fmt: skip
    _, outcome = run(tmp_path, own)
    assert len(pd.read_csv(outcome.folder / "examples.csv")) == 4
    assert {"gradients.png", "pgd-linf_adversarial.png"} <= set(outcome.result["files"])
    absent = {
        **own,
        "name": "absent",
        "data": {"name": "folder", "folder": files | {"table": "no"}},
    }
    _, refused = run(tmp_path, absent)
    assert "no" in refused.failure
    assert refused.result is None


THIN = {
    "name": "preact_resnet", "depths": [1, 1, 1], "widths": [0.25, 0.25, 0.25], "stem_stride": 4,
}  # fmt: skip


def imagenet(folder):
    """Write a picture for which a thin network takes two classes in [0, 1] and in [-1, 1]."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 340, 3), dtype=np.uint8)
    (folder / "imagenet_5000").mkdir()
    Image.fromarray(pixels).save(folder / "imagenet_5000/0.png")
    (folder / "imagenet_5000/list.txt").write_text("0.png 0\n")
    x = read_imagenet(folder / "imagenet_5000", "Crop288")[0] / 255
    network: Any = create_model(**THIN, num_classes=1000).eval()
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.weight[7] = 1
        network.fc.bias.zero_()
        network.fc.bias[3] = (network(x)[0, 7] + network(2 * x - 1)[0, 7]) / 2
        label, other = (int(network(one).argmax()) for one in (x, 2 * x - 1))
    assert {label, other} == {3, 7}
    (folder / "imagenet_5000/list.txt").write_text(f"0.png {label}\n")
    save_weights(network, folder / "thin.safetensors")
    save_weights(create_model(**THIN, num_classes=10), folder / "digits.safetensors")


@pytest.mark.slow
def test_a_network_of_the_catalogue_is_judged_on_a_list_of_imagenet(tmp_path):
    imagenet(tmp_path)
    judged = {
        "name": "judged", "stage": "evaluation", "training": None,
        "data": {"name": "imagenet", "preprocessing": "Crop288"},
        "delta_x": {"source": "none"}, "model": THIN, "weights": f"{tmp_path}/thin.safetensors",
        "evaluation": {"attacks": [{"attack": "pgd", "eps": [0.001, 0.002], "steps": 1}]},
    }  # fmt: skip
    _, outcome = run(tmp_path, judged)
    assert "pgd-linf_epsilon_50" in outcome.result["metrics"]
    assert outcome.result["metrics"]["clean_error"] == 0, "its images are in [0, 1]"
    assert "imagenet" in (outcome.folder / "report.html").read_text()
    small = judged | {"weights": f"{tmp_path}/digits.safetensors", "name": "small"}
    _, outcome = run(tmp_path, small)
    assert "does not fit the model" in outcome.failure
    assert outcome.result is None


SWEEP = {
    "kind": "Sweep", "name": "few", "model": {"name": "preact_resnet", "depths": [1, 1, 1]},
    "grid": {"widths": {"settings": [[0.25] * 3, [0.5] * 3, [1] * 3]}},
    "recipe": {
        "epochs": 1, "batch_size": 50, "inner": {"steps": 1},
        "augmentation": {"crop_padding": 0, "flip": False},
    },
    "data": {"name": "digits", "validation": 50, "train_limit": 250, "test_limit": 30},
    "evaluation": {"attacks": ["fgsm"]}, "resources": RESOURCES,
}  # fmt: skip


@pytest.mark.slow
def test_a_probe_compares_alignment_with_accuracy_over_a_study(tmp_path):
    store = LocalStore(tmp_path / "store")
    tracking, sweep = f"sqlite:///{tmp_path}/mlflow.db", build_manifest(SWEEP)
    run_study(sweep, store, tracking, tmp_path / "reports", say=lambda _: None)
    probing = {
        "name": "probe", "stage": "probe", "data": {"name": "digits", "first": 20},
        "delta_x": {"source": "nearest"}, "training": None, "evaluation": None,
        "probe": {"studies": [study_id(sweep)]},
    }  # fmt: skip
    _, outcome = run(tmp_path, probing)
    assert outcome.result["metrics"]["networks"] == 3
    table = pd.read_csv(outcome.folder / "probe.csv")
    assert table["alpha"].between(-1, 1).all()
    assert {"clean", "fgsm"} <= set(table.columns)
    assert (outcome.folder / "probe-fgsm.png").exists()


@pytest.mark.slow
def test_images_of_imagenet_are_projected_on_what_biggan_draws(tmp_path):
    imagenet(tmp_path)
    torch.manual_seed(0)
    torch.save(create_model("biggan_deep_256").state_dict(), tmp_path / "biggan.bin")
    judged = {
        "name": "projected", "stage": "evaluation", "training": None,
        "data": {"name": "imagenet", "preprocessing": "Crop288"},
        "delta_x": {
            "source": "projected", "generator": f"{tmp_path}/biggan.bin",
            "projection": {"initial_steps": 1, "steps": 0},
        },
        "model": THIN, "weights": f"{tmp_path}/thin.safetensors", "evaluation": {},
    }  # fmt: skip
    _, outcome = run(tmp_path, judged)
    assert -1 <= outcome.result["metrics"]["cosine_similarity_gradient_vs_correctfn"] <= 1
