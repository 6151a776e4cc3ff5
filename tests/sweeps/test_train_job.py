"""One model under one recipe, as a user runs it: no grid, and extra images from a file."""

import json

import numpy as np
import pytest

from tests.helpers.study_runs import Place

MANIFEST = """
kind: Sweep
name: one
model: {name: preact_resnet, depths: [1], channels: [4, 8]}
recipe:
  objective: mart
  epochs: 2
  batch_size: 50
  mixture: {extra: 0.4, epoch_images: 200}
  threat: {norm: l2, eps: 0.5}
  inner: {steps: 2, step_size: 0.3, statistics: batch}
  awp: {gamma: 0.005, warmup_epochs: 1}
  ema: {decay: 0.9}
  augmentation: {crop_padding: 0, flip: false}
  selection: {start: 0.0, attack: pgd-10}
data:
  {name: digits, validation: 60, train_limit: 300, test_limit: 60, extra: {file: more.npz}}
evaluation: {attacks: [pgd-20]}
resources: {gpus: 0, cpus: 1}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_model_is_trained_and_attacked(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "more.npz", image=images, label=np.arange(80) % 10)
    place = Place(tmp_path, MANIFEST, ROBUSTRAY_DATA=str(tmp_path))
    assert place.start(job="train").wait(240) == 0, place.log
    header, row = place.table().decode().splitlines()
    trial = dict(zip(header.split(","), row.split(","), strict=True))
    assert (trial["name"], trial["status"]) == ("d1_c4-8", "finished")
    (result,) = (tmp_path / "store/studies").rglob("result.json")
    assert json.loads(result.read_text())["data"]["label"].endswith("test[:60] + more")
    (page,) = (tmp_path / "runs/reports").glob("*/report.html")
    assert "40% of each batch" in page.read_text()
