"""Networks and images from outside, from manifest to report: timm's on folders and ImageNet."""

from __future__ import annotations

import json

import pytest
import yaml

from robustray.models import create_model, save_weights
from tests.helpers.image_sets import pixels, save, write_imagenet
from tests.helpers.study_runs import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SWEEP = """
kind: Sweep
name: timm-depths
model: {name: "timm:test_resnet", arguments: {trained: false}}
grid: {arguments: {layers: [[1, 1, 1, 1], [1, 2, 1, 1]]}}
recipe:
  threat: {eps: 8/255}
  inner: {steps: 1, step_size: 8/255}
  epochs: 1
  batch_size: 6
  augmentation: {crop_padding: 2}
  selection: {start: 0.0, attack: pgd-10}
data: {name: folder, arguments: {path: photos}, validation: 4, transform: {resize: 36, crop: 32}}
evaluation: {attacks: [fgsm]}
resources: {gpus: 0, cpus: 1, max_concurrent: 1}
"""


def test_a_sweep_over_arguments_of_timms_network_on_a_folder_of_images(tmp_path):
    pytest.importorskip("timm")
    for split, count in (("train", 8), ("test", 3)):
        for place, name in enumerate(("dark", "light")):
            for number, image in enumerate(pixels(count, 40, 52, 3, seed=place)):
                save(tmp_path / f"photos/{split}/{name}/{number}.jpg", image // 3 + 160 * place)
    place = Place(tmp_path, SWEEP, ROBUSTRAY_DATA=str(tmp_path))
    assert place.start(job="train").wait(480) == 0, place.log
    header, *rows = (line.split(",") for line in place.table().decode().splitlines())
    trials = [dict(zip(header, row, strict=True)) for row in rows]
    assert [trial["status"] for trial in trials] == ["finished"] * 2
    assert int(trials[0]["parameters"]) != int(trials[1]["parameters"])
    results = [json.loads(path.read_text()) for path in place.study.rglob("result.json")]
    label = "folder(path=photos) validation=4 resize=36 crop=32"
    assert {result["data"]["label"] for result in results} == {label}
    (page,) = (tmp_path / "runs/reports").glob("*/report.html")
    text = page.read_text()
    assert label in text
    assert all(trial["name"] in text for trial in trials)


def test_an_evaluation_of_a_network_of_224_pixels_and_imagenets_classes(tmp_path):
    pytest.importorskip("timm")
    write_imagenet(tmp_path / "imagenet", train=False, val="csv")
    name, random = "timm:mobilenetv3_small_050", {"trained": False}
    network = create_model(name, num_classes=1000, **random)
    network.state_dict()["classifier.bias"][7] = 100.0  # right of one image in the first four
    save_weights(network, tmp_path / "random.safetensors")
    manifest = {
        "kind": "Evaluation",
        "name": "imagenet",
        "model": {"name": name, "arguments": random},
        "weights": str(tmp_path / "random.safetensors"),
        "data": {"name": "imagenet", "first": 4, "transform": "model"},
        "threat": {"norm": "linf", "eps": 4 / 255},
        "suite": [{"name": "pgd", "options": {"steps": 2, "step_size": 2 / 255}}],
        "compute_shape": 8,
        "audit": False,
        "resources": {"gpus": 0, "cpus": 1},
    }
    place = Place(tmp_path, yaml.safe_dump(manifest), ROBUSTRAY_DATA=str(tmp_path))
    assert place.start(job="evaluate").wait(480) == 0, place.log
    (path,) = (tmp_path / "store/evaluations").glob("*/report/result.json")
    result = json.loads(path.read_text())
    facts = result["subject"]["network"]["input"]
    assert (facts["resize"], facts["size"]) == (256, [224, 224])
    assert "resize=256 crop=224 interpolation=bicubic" in result["data"]["label"]
    assert (result["clean"]["correct"], result["clean"]["total"]) == (1, 4)
    assert result["backwards"] > 0, "the attack was at work on it"
