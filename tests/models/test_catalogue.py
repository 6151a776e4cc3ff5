from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from robustray.errors import ManifestError
from robustray.manifest import build_manifest
from robustray.models import ModelError, create_model, find_model, list_models
from robustray.models.architectures.residual_generators import UNetGenerator
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


GENERATORS = (
    "biggan_deep_256", "conditional_critic", "conditional_generator",
    "direct_generator_spheres", "direct_generator_unet",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("conditional_generator", {"in_channels": 1}, 4_299_777),
        ("conditional_generator", {}, 4_304_387),
        ("conditional_critic", {"num_classes": 2, "in_channels": 1}, 4_200_195),
        ("direct_generator_spheres", {}, 2_008_500),
        ("direct_generator_unet", {}, 34_503_171),
        ("direct_generator_unet", {"downsamplings": 2}, 2_036_355),
    ],
)
def test_generators_have_their_published_sizes(name, options, parameters):
    with torch.device("meta"):
        network = create_model(name, **options)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_generators_are_built_by_name_and_draw_what_their_classes_draw():
    generator: Any = create_model("conditional_generator", num_classes=2, channels=2, latent=4)
    y = torch.tensor([0, 1])
    assert generator(torch.randn(2, 4), y).shape == (2, 3, 32, 32)
    assert create_model("conditional_critic", channels=2)(torch.zeros(2, 3, 32, 32)).shape[1] == 11
    torch.manual_seed(3)
    named = create_model("direct_generator_unet", downsamplings=1, width=4)
    torch.manual_seed(3)
    built = UNetGenerator(1, width=4)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(named(x, 1 - y, y), built(x, 1 - y, y))
    with pytest.raises(ModelError, match="a direct generator knows 2 classes, not 10"):
        create_model("direct_generator_unet", num_classes=10)


def test_all_but_the_generators_are_classifiers():
    others = [name for name in list_models() if find_model(name).purpose != "classifier"]
    assert others == [*GENERATORS]


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("options", [{}, {"depths": [1, 1, 1]}])
@pytest.mark.parametrize(
    "document",
    [{"kind": "Sweep", "name": "it", "data": {"name": "cifar10"}},
     {"kind": "Evaluation", "data": {"name": "cifar10"}, "weights": "w.safetensors"}],
    ids=["Sweep", "Evaluation"],
)  # fmt: skip
def test_where_a_classifier_is_needed_a_generator_is_refused(document, options, name):
    with pytest.raises(ManifestError) as found:
        build_manifest({**document, "model": {"name": name, **options}})
    assert found.value.path == "model.name"
    message = found.value.message
    assert message.startswith(f"{name} is a ")
    assert ", no classifier. Allowed: adaptive_smoothing, " in message
    assert not set(GENERATORS) & set(message.partition("Allowed: ")[2].split(", "))
