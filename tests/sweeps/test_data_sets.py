"""Every data set is trained on and judged, in an order that its name gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from robustray.manifest import ManifestError, build_manifest, validate
from robustray.sweeps import Study
from robustray.sweeps.trial import TrialJob, attempt_trial
from tests.helpers.image_sets import (
    OFFICIAL,
    declare,
    pixels,
    save,
    write_imagenet,
    write_tiny_imagenet,
)
from tests.helpers.libraries import needs_timm
from tests.helpers.study_runs import STUDY

CUT = {"resize": 20, "crop": 16}


def prepare(name, root, monkeypatch):
    """Write the files of a data set, and return the section of a manifest that names it."""
    if name in OFFICIAL:
        OFFICIAL[name](root)
        declare(monkeypatch, name, root)
        return {"name": name}
    if name == "tinyimagenet":
        write_tiny_imagenet(root)
        return {"name": name}
    if name == "imagenet":
        write_imagenet(root / "imagenet")
        return {"name": name, "transform": CUT}
    if name == "folder":
        for number, image in enumerate(pixels(8, 16, 16, 3)):
            for split in ("train", "test"):
                save(root / f"photos/{split}/{number % 2}/{number}.png", image)
        return {"name": name, "arguments": {"path": "photos"}}
    np.savez(root / "a.npz", images=pixels(8, 16, 16, 3), labels=np.arange(8) % 3)
    return {"name": name, "arguments": {"train": "a.npz", "test": "a.npz"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["svhn", "stl10", "fashion-mnist", "tinyimagenet", "imagenet", "folder", "npz"]
)
def test_a_trial_on_every_data_set(name, tmp_path, monkeypatch):
    document = yaml.safe_load(STUDY)
    document |= {"grid": None, "data": prepare(name, tmp_path, monkeypatch) | {"validation": 3}}
    document["model"] = {"name": "preact_resnet", "depths": [1, 1], "channels": [4, 4, 8]}
    document["recipe"] |= {"epochs": 1, "batch_size": 4}
    document["evaluation"] = {"attacks": ["fgsm"]}
    study = Study.from_manifest(validate(document))
    (trial,) = study.trials
    prefix, store = study.trial_prefix(trial.name), str(tmp_path / "store")
    job = TrialJob(prefix, study.manifest, store, str(tmp_path), trial)
    found = attempt_trial(job, lambda report: None)
    assert found["outcome"] == "finished", found


def sweep(grid=None, transform="model", model="timm:vit_tiny_patch16_224") -> Any:
    return build_manifest(
        {
            "kind": "Sweep",
            "name": "declared",
            "model": {"name": model, "arguments": {"trained": False}},
            "grid": grid,
            "data": {"name": "cifar10", "transform": transform},
        }
    )


@needs_timm
def test_a_transform_is_what_the_network_declares():
    document = {"kind": "Evaluation", "name": "x", "model": "timm:test_vit"}
    document |= {"data": {"name": "imagenet", "transform": "model"}}
    evaluation: Any = build_manifest(document)
    found = evaluation.data.transform
    assert found.model_dump() == {"resize": 168, "crop": 160, "interpolation": "bicubic"}
    assert sweep().data.transform.size == (224, 224)
    one = {"arguments": {"img_size": [32]}}
    assert sweep(one).data.transform.size == (32, 32)
    assert sweep({"arguments": {"drop_rate": [0.0, 0.1]}}) == sweep(
        {"arguments": {"drop_rate": [0.0, 0.1]}}, sweep().data.transform.model_dump()
    )
    with pytest.raises(ManifestError, match=r"data\.transform: the networks declare"):
        sweep({"arguments": {"img_size": [32, 64]}})


def test_a_network_that_declares_nothing_is_told():
    document = {"kind": "Sweep", "name": "x", "data": {"name": "cifar10", "transform": "model"}}
    with pytest.raises(ManifestError, match=r"data\.transform: preact_resnet declares no input"):
        build_manifest(document | {"model": {"name": "preact_resnet"}})
