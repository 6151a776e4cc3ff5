"""The recipe of Wang et al. (2023): what a plan says without its file, and a step in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustray.cli.main import main
from robustray.data import describe, load_dataset
from robustray.manifest import Sweep
from robustray.sweeps.grid import Study, build_model
from robustray.training import fit
from tests.helpers.typed_manifests import load_as

FOLDER = Path(__file__).resolve().parents[2] / "manifests/training"
SMALL = (
    "model={name: preact_resnet, depths: [1, 1, 1], widths: [0.25, 0.25, 0.25]}",
    "data={name: digits, validation: 30, train_limit: 200, extra: {file: made/up.npz}}",
    "recipe.batch_size=40",
    "recipe.epochs=1",
    "recipe.ema.warmup_epochs=0",
    "recipe.mixture.epoch_images=80",
    "recipe.augmentation={crop_padding: 0, flip: false}",
    "recipe.selection.attack=fgsm",
    "recipe.precision=float32",
)


@pytest.mark.parametrize("size", ["28_10", "70_16"])
def test_a_plan_names_the_file_of_generated_images(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ROBUSTRAY_DATA", str(tmp_path / "data"))
    assert main(["plan", "--manifest", str(FOLDER / f"wang2023_wrn_{size}.yaml")]) == 0
    said = capsys.readouterr().out
    images = "20m" if size == "28_10" else "50m"
    lacking = tmp_path / "data/edm_data/cifar10" / f"{images}.npz"
    assert f"data.extra.file: {lacking} is missing; put it there" in said
    assert "set data.download=true" in said
    lacking.parent.mkdir(parents=True)
    lacking.touch()
    main(["plan", "--manifest", str(FOLDER / f"wang2023_wrn_{size}.yaml")])
    assert "is missing" not in capsys.readouterr().out


@pytest.mark.parametrize("size", ["28_10", "70_16"])
def test_in_small_it_trains_on_generated_images(size: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "made").mkdir()
    image = random.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "made/up.npz", image=image, label=np.arange(64) % 10)
    manifest = load_as(Sweep, FOLDER / f"wang2023_wrn_{size}.yaml", SMALL)
    assert manifest.recipe.mixture is not None
    assert manifest.recipe.mixture.extra_images(40) == 32
    data = load_dataset(manifest.data, tmp_path)
    assert data.extra is not None
    assert len(data.extra) == 64
    (trial,) = Study.from_manifest(manifest).trials
    model = build_model(trial, describe(manifest.data, tmp_path))
    steps: list[tuple[int, int, int]] = []
    result = fit(model, data, manifest.recipe, seed=0, on_step=lambda *step: steps.append(step))
    assert steps == [(1, 1, 2), (1, 2, 2)]
    assert result.best_epoch == 1
    assert np.isfinite(result.metrics["train_loss"])
