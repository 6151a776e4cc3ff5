from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from robustray.models import create_model, find_model, list_models
from robustray.registry import MODELS
from robustray.zoo import records_of


def test_list_models():
    assert list_models("rrn_*") == ["rrn_a1", "rrn_a2", "rrn_a3", "rrn_a4"]
    assert list_models("wrn_a?") == ["wrn_a1", "wrn_a2", "wrn_a3", "wrn_a4"]
    assert list_models("wrn_*_r") == ["wrn_28_r", "wrn_34_r", "wrn_46_r", "wrn_70_r"]
    expected = {"preact_resnet", "wrn_28_10", "wrn_34_12", "wrn_34_r", "wrn_46_14", "wrn_70_16"}
    expected |= {"robnet_large_v2", "advrush", "racl"}
    assert expected <= set(list_models())
    assert list_models() == sorted(list_models())
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", list_models())
def test_records_are_whole(name):
    entry = find_model(name)
    assert entry.name == entry.build.__name__ == name
    assert entry.summary
    if entry.paper is not None:
        assert entry.paper.arxiv
    else:  # published without a paper, as weights alone
        assert records_of(name)


def test_unknown_model_lists_close_names():
    with pytest.raises(ValueError, match=r"did you mean .*'rrn_a1'"):
        create_model("rnn_a1")


def test_named_models_refuse_what_their_name_fixes():
    with pytest.raises(ValueError, match="rrn_a1 does not take the option 'depths'"):
        create_model("rrn_a1", depths=(1, 1, 1))


def test_named_models_take_what_their_name_leaves_open():
    with torch.device("meta"):
        model: Any = create_model("wrn_a4", num_classes=100, activations="SiLU", pre_process=True)
    assert model.fc.out_features == 100
    assert model.config.activations == ("SiLU",) * 3
    assert model.config.pre_process


def test_catalogue_channels_follow_the_widths():
    with torch.device("meta"):
        configs: dict[str, Any] = {name: create_model(name).config for name in list_models("*_a?")}
    assert configs["rrn_a1"].channels == configs["wrn_a1"].channels == (16, 80, 224, 192)
    assert configs["rrn_a2"].channels == configs["wrn_a2"].channels == (16, 112, 288, 256)
    assert configs["rrn_a3"].channels == configs["wrn_a3"].channels == (16, 128, 352, 320)
    assert configs["rrn_a4"].channels == configs["wrn_a4"].channels == (16, 160, 448, 384)


@pytest.mark.parametrize("name", list_models())
def test_an_option_has_one_default(name, monkeypatch):
    """It is the entry point's: `create_model` hands on what it was given, and nothing else."""
    given = []
    entry = replace(find_model(name), build=lambda **options: given.append(options))
    monkeypatch.setitem(MODELS._entries, name, entry)
    create_model(name)
    create_model(name, num_classes=7, **dict.fromkeys(entry.options))
    create_model(name, in_channels=1)
    assert given == [{}, {"num_classes": 7}, {"in_channels": 1}]


def test_pretrained_bases_have_ten_classes_like_the_others():
    with torch.device("meta"):
        assert create_model("bit_r50x1").state_dict()["head.conv.weight"].shape[0] == 10


def test_the_network_for_two_spheres_has_one_logit_and_points_of_any_size():
    with torch.device("meta"):
        assert create_model("gd_spheres_mlp")(torch.rand(2, 500)).shape == (2, 1)
        model = create_model("gd_spheres_mlp", num_classes=2, dimensions=7)
        assert model(torch.rand(2, 7)).shape == (2, 2)
