"""The sweep on real CIFAR-10 images: thin networks, one epoch, float32 (CPUs may lack bfloat16)."""

import pytest

from tests.helpers.study_runs import Place

MANIFEST = """
kind: Sweep
name: cifar-thin
model: {name: preact_resnet, depths: [1, 1, 1]}
grid:
  widths:
    settings: [[0.25, 0.25, 0.25], [0.5, 0.25, 0.25]]
recipe: {epochs: 1}
data: {name: cifar10, parts: [data_batch_1], train_limit: 2500, validation: 256, test_limit: 150}
resources: {gpus: 0, cpus: 1}
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_thin_networks_on_cifar10(tmp_path, shared_data):
    place = Place(tmp_path, MANIFEST, ROBUSTRAY_DATA=str(shared_data))
    assert place.run(timeout=540) == 0, place.log
    header, *rows = place.table().decode().splitlines()
    names = header.split(",")
    assert len(rows) == 2
    for row in rows:
        trial = dict(zip(names, row.split(","), strict=True))
        assert trial["status"] == "finished"
        assert 0.1 < float(trial["clean"]) < 0.6  # one epoch on 2,244 images: above chance
        assert float(trial["cw-40"]) <= float(trial["fgsm"]) <= float(trial["clean"])
    (page,) = (tmp_path / "runs/reports").glob("*/report.html")
    assert "cifar10[data_batch_1][:2500]" in page.read_text()
