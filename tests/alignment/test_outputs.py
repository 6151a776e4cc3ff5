"""What stages leave behind: epochs, sheets of each class, estimates, and means over seeds.

The stages run in this process, as a worker runs them.
"""

from __future__ import annotations

import io
import re
import shlex
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from robustray.alignment.job.align import align
from robustray.alignment.job.commands import ALIGNMENT
from robustray.alignment.job.comparing import JudgedJob, group_by_method
from robustray.alignment.job.pictures import telling_strength, x_prime_sheets
from robustray.alignment.job.presenting import present
from robustray.alignment.metrics import ALPHA
from robustray.alignment.splits import StudySplit, load_study
from robustray.cli.main import main
from robustray.manifest import build_manifest, dump_manifest
from robustray.runtime.commands import Request
from robustray.runtime.file_jobs import FileJob, present_job, read_file, read_result
from robustray.runtime.job import attempt_job
from robustray.runtime.job_driver import prefix_of
from robustray.store import LocalStore
from robustray.tracking import default_tracking_uri

CURVE = {"attack": "pgd", "eps": [0.002, 0.006], "step_size": 0.002, "steps": 2}
SPHERES = {
    "stage": "classifier", "data": {"name": "spheres", "first": 20},
    "delta_x": {"source": "exact"},
    "training": {
        "batch_size": 10, "epochs": 2, "steps_per_epoch": 3, "alignment": "validation",
        "validation": CURVE, "validation_first": 10,
    },
    "evaluation": {"attacks": [CURVE]},
}  # fmt: skip
THIN = {"name": "preact_resnet", "depths": [1, 1, 1], "widths": [0.25, 0.25, 0.25]}


class Study:
    """A store in which jobs are done, one after the other."""

    def __init__(self, folder) -> None:
        self.folder, self.store, self.answer = folder, LocalStore(folder / "store"), ""

    def run(self, name: str, **document: Any) -> tuple[dict[str, float], dict[str, bytes]]:
        """Do one job; return its numbers and its files, those for people among them."""
        resources = {"gpus": 0, "cpus": 1}
        manifest: Any = build_manifest(
            {"kind": "Alignment", "name": name, "resources": resources, **document}
        )
        prefix = prefix_of(manifest, "alignment")
        self.store.put(f"{prefix}/manifest.yaml", dump_manifest(manifest).encode())
        uri, data = str(self.folder / "store"), str(self.folder)
        share = manifest.resources
        job = FileJob(prefix, manifest, uri, data, produce=align, resources=share)
        assert attempt_job(job) == ("finished", "")
        result = read_result(self.store, prefix)
        assert result is not None
        files = {one: read_file(self.store, prefix, result, one) for one in result["files"]}
        presented = present_job(self.store, prefix, manifest, result, present)
        assert presented is not None
        assert escape(presented.sentence) in presented.files["report.html"].decode()
        self.answer = presented.sentence
        return result["metrics"], {**files, **presented.files}


def table(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content))


def test_seeds_of_one_method_become_means_and_epochs_a_figure(tmp_path):
    study = Study(tmp_path)
    alone = [study.run(f"pgd-{seed}", **SPHERES, seed=seed) for seed in (0, 1)]
    metrics, files = alone[0]
    epochs = table(files["epochs.csv"])
    assert epochs["epoch"].tolist() == [1, 2]
    selected = epochs.iloc[int(np.argmax(epochs["train_loss"] == metrics["train_loss"]))]
    assert selected[f"{ALPHA}_val"] == metrics[f"{ALPHA}_val"]
    assert {"epochs.png", "radii.png", "radii_zoomed.png"} <= set(files)
    assert build_manifest(yaml.safe_load(files["manifest.yaml"])).name == "pgd-0"
    assert not [name for name in files if "adversarial" in name], "points are no images"

    other = SPHERES["training"] | {"method": "l_alpha"}
    study.run("other-l_alpha", **SPHERES | {"training": other})
    judged = {"data": SPHERES["data"], "stage": "evaluation", "evaluation": SPHERES["evaluation"]}
    for seed in (0, 1):
        study.run(f"judged-{seed}", **judged, weights=f"pgd-{seed}", seed=7)
    jobs = ["pgd-0", "other-l_alpha", "pgd-1", "judged-0", "judged-1"]
    data = {"name": "spheres"}
    found, files = study.run("all", stage="comparison", data=data, comparison={"jobs": jobs})
    for name in ("alpha_x", "pgd-linf_error_0.006"):
        values = [one[name] for one, _ in alone]
        assert found[f"pgd_{name}"] == pytest.approx(np.mean(values))
        assert found[f"pgd_{name}_std"] == pytest.approx(np.std(values, ddof=1))
    assert (found["pgd_seeds"], found["judged-0_seeds"]) == (2, 2)
    assert "l_alpha_seeds" not in found
    by_job = table(files["comparison.csv"])
    methods = by_job.groupby("method", sort=False)["seed"].agg(list).to_dict()
    assert methods == {"pgd": [0, 1], "l_alpha": [0], "judged-0": [0, 1]}
    page = files["report.html"].decode()
    assert "PGD, 2 seeds" in page
    values = [one["alpha_x"] for one, _ in alone]
    assert f"{np.mean(values):.3g} ± {np.std(values, ddof=1):.2g} (0.852)" in page


def test_the_same_seed_twice_is_no_second_seed():
    def job(name, seed, settings):
        return JudgedJob(name, "", {"metrics": {"clean_error": 0.0}}, seed, settings)

    jobs = [job("pgd-a", 0, b"x"), job("pgd-b", 0, b"x"), job("pgd-c", 1, b"x"), job("d", 1, b"y")]
    found = [(method.name, [one.name for one in method.jobs]) for method in group_by_method(jobs)]
    assert found == [("pgd", ["pgd-a", "pgd-c"]), ("pgd-b", ["pgd-b"]), ("d", ["d"])]


def test_images_get_sheets_of_what_attacks_and_delta_x_make_of_each_class(tmp_path):
    curve = {"attack": "pgd", "eps": [0.1, 0.3], "steps": 2, "step_size": 0.2}
    metrics, files = Study(tmp_path).run(
        "squares", stage="classifier", model=THIN, delta_x={"source": "exact"},
        data={"name": "squares32", "train_limit": 40, "first": 12},
        training={"batch_size": 20, "epochs": 1, "steps_per_epoch": 2, "validation": curve,
                  "validation_first": 6},
        evaluation={"attacks": [curve, {"attack": "square", "eps": [0.2], "queries": 3}]},
    )  # fmt: skip
    assert metrics["clean_error"] < 1
    sheets = {"pgd-linf_adversarial.png", "square-linf_adversarial.png", "x_prime.png"}
    assert sheets <= set(files)
    assert "epochs.png" not in files, "a single epoch has no course"
    assert len(table(files["epochs.csv"])) == 1


def test_the_strength_that_breaks_half_is_shown():
    assert telling_strength({0.0: 0.1, 0.1: 0.3, 0.2: 0.6, 0.4: 0.9}) == 0.2
    assert telling_strength({0.0: 0.1, 0.1: 0.3, 0.2: 0.4}) == 0.2
    assert telling_strength({0.0: 0.7, 5.0: 0.7, 0.5: 0.9}) == 5.0  # stAdv's weights fall


def test_an_image_of_each_class_is_moved_to_every_class():
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    split = StudySplit("points", "points", 3, torch.zeros(6, 1, 8, 8), y, torch.arange(6))
    asked: list[tuple[int, int]] = []

    def source(x, y_B, target_B, index_B):
        asked.extend(zip(index_B.tolist(), target_B.tolist(), strict=True))
        return torch.zeros_like(x)

    class Brightness(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)

    files = x_prime_sheets(split, torch.ones(6, 1, 8, 8), source, Brightness())
    assert set(files) == {"x_prime.png", "x_prime_classes.png"}
    assert sorted(asked) == [(row, k) for row in range(3) for k in range(3)]


def test_an_estimate_stands_beside_the_truth_and_what_was_published(tmp_path, monkeypatch, capsys):
    study = Study(tmp_path)
    metrics, files = study.run(
        "way", stage="generator", data={"name": "spheres", "first": 20},
        generator={"epochs": 2, "steps_per_epoch": 2, "batch_size": 10},
    )  # fmt: skip
    examples = table(files["examples.csv"])
    name = "cosine_similarity_correct_vs_net_g_val"
    assert metrics[name] == pytest.approx(examples["cosine"].mean(), abs=1e-6)
    page = files["report.html"].decode()
    assert study.answer.endswith("(published: 0.9).")
    for published in ("0.9", "0.34", "1.29"):
        assert f">{published}<" in page
    assert {"cosine.png", "epochs.png"} <= set(files)

    # The page's own command, typed where the job was started, finds the store and the job.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTRAY_STORE", "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cret@127.0.0.1:9")
    (made,) = (
        key.key for key in study.store.list("alignment/") if key.key.endswith("/finished.json")
    )
    folder = tmp_path / "runs/reports" / made.split("/")[1]
    manifest: Any = build_manifest(yaml.safe_load(files["manifest.yaml"]))
    request = Request(study.store, folder.parent, print, tracking_uri=default_tracking_uri())
    ALIGNMENT.report(manifest, request)
    page = (folder / "report.html").read_text()
    assert "s3cret" not in page
    (command,) = re.findall(r"<code>robustray (report [^<]*)</code>", page)
    capsys.readouterr()
    assert main(shlex.split(command)) == 0
    assert study.answer in " ".join(capsys.readouterr().out.split())


def test_classes_have_names_where_they_are_known():
    assert load_study("squares32", "test", limit=1).class_names == ("large", "small")
    assert load_study("digits", "test", limit=1).class_names == tuple("0123456789")
