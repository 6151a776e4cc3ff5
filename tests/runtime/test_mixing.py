"""Mixed classifiers as jobs: the same bytes whoever attacks and whatever is killed."""

import csv
import io
import json
import os
import signal
import threading

import pytest
import torch

from robustray.errors import ManifestError
from robustray.manifest import build_manifest
from robustray.models import load_weights, save_weights
from robustray.runtime.job_driver import run_job
from robustray.smoothing.job.commands import describe_plan
from robustray.smoothing.job.mixing import Stages, build_composite, check_manifest, train_mixing
from robustray.store import CheckpointStore, LocalStore
from tests.helpers.study_runs import wait_for

THIN = {"name": "cifar_resnet18", "width": 4, "depths": [1, 1, 1, 1]}
NATURAL = {"objective": "natural", "selection": {"attack": "clean"}}
PLAIN = {"crop_padding": 0, "flip": False}


def document(**changes):
    recipe = {"epochs": 2, "batch_size": 64, "augmentation": PLAIN, "optimizer": {"lr": 0.05}}
    return {
        "kind": "Mixing",
        "name": "small",
        "data": {"name": "digits", "validation": 100, "train_limit": 228},
        "accurate": {"model": THIN, "recipe": {**recipe, **NATURAL}},
        "robust": {"model": THIN, "recipe": {**recipe, "inner": {"steps": 2}}},
        "recipe": {
            "epochs": 2, "batch_size": 32, "segment": 2, "ahead": 1, "accumulation": 2,
            "lr": 1e-3, "augmentation": PLAIN,
            "attack": {"iterations_df": 3, "n_targets": 1, "chunk": 16},
        },
        "judging": {
            "first": 24, "alphas": [0.5], "batch_size": 16,
            "suite": [{"name": "apgd-ce", "options": {"n_iter": 3}}],
            "adaptive": [{"name": "mix", "attack": "apgd-mixture", "options": {"n_iter": 3}}],
            "multipliers": {"trade_offs": [1.0], "suite": ["pgd-10"], "first": 8},
            "certified": {"selection": 8, "samples": 16, "first": 8, "alphas": [0.8, 1.0]},
        },
        "resources": {"gpus": 0, "cpus": 1, "retries": {"backoff_seconds": 0.1}},
        **changes,
    }  # fmt: skip


def run(folder, kill_after=None, **changes):
    manifest = build_manifest(document(**changes))
    store = LocalStore(folder / "store")
    prefix = None

    def kill():
        def ripe():
            found = store.list("mixing/")
            if not found:
                return False
            nonlocal prefix
            prefix = "/".join(found[0].key.split("/")[:2])
            done = max(CheckpointStore(store, prefix, folder).steps(), default=0)
            return done >= (kill_after or 0)

        wait_for(ripe)
        attempt = json.loads(store.get(f"{prefix}/attempts/0001.json"))
        os.kill(attempt["environment"]["process"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    if kill_after:
        killer.start()
    outcome = run_job(
        manifest, "mixing", train_mixing, store, f"sqlite:///{folder}/mlflow.db",
        folder / "reports", steps=Stages.of(manifest).steps, data_folder=folder,
        say=lambda _: None,
    )  # fmt: skip
    if kill_after:
        killer.join()
    return store, outcome, manifest


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_attackers_and_kills_change_nothing(tmp_path):
    places = [tmp_path / name for name in ("alone", "together", "killed")]
    for place in places:
        place.mkdir()
    alone, outcome, manifest = run(places[0])
    assert outcome.failure == ""
    several = {"gpus": 0, "cpus": 1, "workers": 2, "retries": {"backoff_seconds": 0.1}}
    together, _, _ = run(places[1], resources=several)
    killed, again, _ = run(places[2], kill_after=6)
    key = f"mixing/{outcome.id}/result.json"
    assert alone.get(key) == together.get(key) == killed.get(key)
    attempts = list(killed.list(f"mixing/{outcome.id}/attempts/"))
    assert len(attempts) == 2

    files = outcome.result["files"]
    assert {
        "trade_off.png",
        "weights.png",
        "certified.png",
        "multipliers.png",
        "mixture.safetensors",
    } <= set(files)
    table = list(csv.DictReader(io.StringIO((outcome.folder / "judgements.csv").read_text())))
    assert [row["judged"] for row in table][:3] == ["accurate", "robust", "alpha-0.5"]
    model = build_composite(manifest).eval()
    load_weights(model, outcome.folder / "mixture.safetensors")
    torch.testing.assert_close(model(torch.rand(2, 1, 8, 8)).exp().sum(1), torch.ones(2))
    assert again.result == outcome.result

    # The same bases as files of weights: the same mixture and the same verdicts.
    ready = {}
    for role, base in zip(("accurate", "robust"), model.models, strict=True):
        save_weights(base, tmp_path / f"{role}.safetensors")
        ready[role] = {"model": THIN, "weights": {"uri": str(tmp_path / f"{role}.safetensors")}}
    (tmp_path / "ready").mkdir()
    _, judged, _ = run(tmp_path / "ready", **ready)
    assert judged.result["metrics"] == outcome.result["metrics"]
    assert set(judged.result["bases"]["robust"]) == {"sha256"}


def test_the_plan_says_what_is_done_and_what_it_costs():
    words = describe_plan(build_manifest(document()))
    assert f"{Stages.of(build_manifest(document())).steps} steps" in words
    assert "8 rounds of 32 images and 2 attacks" in words
    assert "accurate, robust, alpha-0.5, mixture, mixture-adaptive, certified, multipliers" in words


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"accurate": {"model": THIN}}, "accurate"),
        (
            {"accurate": {"model": {"name": "robust_model_zoo_1"}, "weights": {"uri": "x"}}},
            "features",
        ),
        ({"constants": {"alpha_scale": 0}}, "alpha_scale"),
        ({"recipe": {"batch_size": 32, "accumulation": 3}}, "recipe.accumulation"),
        ({"judging": {"suite": ["unheard-of"]}}, "unheard-of"),
        ({"accurate": {"model": THIN, "weights": {"uri": "none.pt"}}}, "none.pt"),
        ({"judging": {"threat": {"norm": "l2", "eps": 1}}}, "adaptive"),
        ({"recipe": {"batch_size": 4000}}, "batch_size"),
        ({"mixing": {"version": 3, "accurate": [4, 4, 4, 4]}}, "version 3"),
        ({"recipe": {"attack": {"method": "pgd", "never_fooled": "start"}}}, "never_fooled"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(changes, place):
    def build():
        check_manifest(build_manifest(document(**changes)))

    with pytest.raises(ManifestError) as error:
        build()
    assert place in f"{error.value.path} {error.value}"
