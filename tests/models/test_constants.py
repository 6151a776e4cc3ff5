"""Constants of input standardisation: those of the papers, recorded with weights, never mixed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from robustray.models import WeightsError, create_model, load_weights, save_weights
from robustray.models.architectures.layers import Standardize
from robustray.models.weights.files import constants_of

WIDE_10 = [[0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]]
WIDE_100 = [[0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]]
SMALL_10 = [[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]]
SMALL_100 = [[0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]]
COHEN = [[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]]
IMAGENET = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
ON = {"pre_process": True}
THIN = {"depths": (1,), "widths": (1,)}


@pytest.mark.parametrize(
    ("name", "classes", "options", "constants"),
    [
        ("cifar_resnet18", 10, ON, SMALL_10),
        ("cifar_resnet18", 100, ON, SMALL_100),
        ("cifar_preact_resnet18", 10, ON, SMALL_10),
        ("cifar_preact_resnet18", 100, ON, SMALL_100),
        ("dm_wrn_28_10", 10, {}, WIDE_10),
        ("dm_wrn_70_16", 100, {}, WIDE_100),
        ("preact_resnet", 10, {**ON, **THIN}, WIDE_10),
        ("wrn_28_10", 10, ON, WIDE_10),
        ("rrn_a1", 10, ON, WIDE_10),
        ("racl", 10, ON, WIDE_10),
        ("smoothing_resnet110", 10, {}, COHEN),
        ("gd_resnet18", 10, {"normalisation": "direct"}, IMAGENET),
        ("trades_wrn_34_10", 10, {}, None),
        ("robust_model_zoo_1", 10, {}, None),
        ("cifar_resnet18", 100, {}, None),
    ],
)
def test_the_catalogue_has_the_published_constants(name, classes, options, constants):
    with torch.device("meta"):
        found = constants_of(create_model(name, num_classes=classes, **options))
    assert list(found.values()) == ([] if constants is None else [constants])


@pytest.mark.parametrize("name", ["cifar_resnet18", "cifar_preact_resnet18", "preact_resnet"])
def test_other_channels_are_refused_with_pre_process(name):
    with pytest.raises(ValueError, match="those of 3 channels, not 1"):
        create_model(name, in_channels=1, pre_process=True)


def thin(**options) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("cifar_preact_resnet18", width=4, depths=(1, 1, 1, 1), **options).eval()


def test_the_indirect_normalisation_is_told_for_the_images_as_they_come():
    model: Any = create_model("gd_resnet18", normalisation="indirect", in_channels=3).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in model.standardisation)
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    torch.testing.assert_close((x - mean) / std, model.normalise(x))
    assert create_model("gd_resnet18", normalisation="none").standardisation is None


def older(model: torch.nn.Module) -> torch.nn.Module:
    """Give a network the constants that it had in another version."""
    model.pre_process = Standardize(*WIDE_10)
    return model


def test_weights_of_other_constants_are_refused_and_nothing_is_loaded(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(older(thin(**ON)), path)
    target: Any = thin(**ON)
    before = target.conv1.weight.clone()
    target.conv1.weight.data.add_(1)
    with pytest.raises(WeightsError, match=r"0\.2471.* and this one with .*0\.247\b"):
        load_weights(target, path)
    assert torch.equal(target.conv1.weight, before + 1)
    load_weights(older(thin(**ON)), path)


@pytest.mark.parametrize(("saved", "loaded"), [(True, False), (False, True)])
def test_with_and_without_are_told_apart(tmp_path, saved, loaded):
    save_weights(thin(pre_process=saved), tmp_path / "w")
    with pytest.raises(WeightsError, match="none"):
        load_weights(thin(pre_process=loaded), tmp_path / "w")


def test_files_that_say_nothing_stay_readable(tmp_path):
    for metadata in (None, {"format": "pt"}, {"robustray": "{"}, {"robustray": "[1]"}):
        state = {name: t.contiguous() for name, t in thin(**ON).state_dict().items()}
        safetensors.torch.save_file(state, tmp_path / "w", metadata=metadata)
        load_weights(thin(**ON), tmp_path / "w")


@pytest.mark.parametrize("record", ['{"a": 5}', '{"a": [[1]]}', '{"a": []}', "7", '["a"]'])
def test_records_of_another_form_are_refused_with_what_they_say(tmp_path, record):
    state = {name: t.contiguous() for name, t in thin(**ON).state_dict().items()}
    head = {"robustray": f'{{"standardisation": {record}}}'}
    safetensors.torch.save_file(state, tmp_path / "w", metadata=head)
    with pytest.raises(WeightsError, match="standardises the input with") as caught:
        load_weights(thin(**ON), tmp_path / "w")
    assert str(json.loads(record)) in str(caught.value)


def test_the_record_is_one_entry_in_the_head(tmp_path):
    save_weights(thin(**ON), tmp_path / "w")
    with safe_open(tmp_path / "w", framework="pt") as file:
        head = file.metadata()
    assert json.loads(head["robustray"]) == {"standardisation": {"pre_process": SMALL_10}}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kept", [None, torch.float32])
def test_constants_are_compared_in_the_precision_that_they_were_kept_in(tmp_path, dtype, kept):
    mean, std = (torch.tensor(part).to(dtype).to(kept or dtype).view(3, 1, 1) for part in SMALL_10)
    state = {**thin(**ON).state_dict(), "mu": mean, "sigma": std}
    torch.save(state, tmp_path / "w.pt")
    load_weights(thin(**ON), tmp_path / "w.pt")
    torch.save({**state, "sigma": std * 1.02}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="standardises the input"):
        load_weights(thin(**ON), tmp_path / "w.pt")
