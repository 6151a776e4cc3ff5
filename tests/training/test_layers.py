"""Layer-wise decay of the learning rate: depths of real networks, and the rates that come of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustray.errors import ManifestError
from robustray.manifest.descent import DecayGroup, Optimizer, Schedule
from robustray.manifest.recipe import Recipe
from robustray.models import create_model
from robustray.training.layers import layer_scales
from robustray.training.optimizer import build_optimizer
from robustray.training.schedule import set_rates
from tests.helpers.small_training import tiny

DECAY = 0.75


def depths(network: nn.Module, blocks: int) -> dict[str, float]:
    """Return each parameter's depth, read off its scale: DECAY ** (blocks + 1 - depth)."""
    powers = {DECAY ** (blocks + 1 - depth): depth for depth in range(blocks + 2)}
    scales = layer_scales([name for name, _ in network.named_parameters()], DECAY)
    return {name: powers[scale] for name, scale in scales.items()}


def test_a_vision_transformer_has_the_scales_of_beit() -> None:
    """BEiT gives decay ** 13 to the embedding, ** 12 .. ** 1 to the blocks, 1 to norm and head."""
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", depth=12, embed_dim=24, num_heads=3)
    scales = layer_scales([name for name, _ in network.named_parameters()], DECAY)
    for name, scale in scales.items():
        if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
            power = 13
        elif name.startswith("blocks."):
            power = 12 - int(name.split(".")[1])
        else:
            assert name.startswith(("norm.", "head."))
            power = 0
        assert scale == pytest.approx(DECAY**power), name


def test_a_convnext_has_its_stem_below_and_its_downsampling_between_its_18_blocks() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        found = depths(models.convnext_tiny(), blocks=18)
    assert found["features.0.0.weight"] == found["features.0.1.bias"] == 0
    assert found["features.1.0.layer_scale"] == found["features.1.0.block.0.weight"] == 1
    assert found["features.1.2.block.5.bias"] == 3
    assert found["features.2.0.weight"] == found["features.2.1.bias"] == 3
    assert found["features.3.0.block.0.weight"] == 4
    assert found["features.5.8.block.0.weight"] == 15
    assert found["features.7.2.block.0.weight"] == 18
    assert found["classifier.0.weight"] == found["classifier.2.bias"] == 19


@pytest.mark.parametrize(
    ("name", "first", "between", "last"),
    [
        ("convnext_tiny", "stages.0.blocks.0.conv_dw.weight", "stages.1.downsample.1.weight", 18),
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.0.norm1.weight",
         "layers.1.downsample.norm.weight", 12),
    ],
)  # fmt: skip
def test_stages_of_timm_are_no_blocks(name: str, first: str, between: str, last: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        found = depths(timm.create_model(name), blocks=last)
    assert found[first] == 1
    assert found[between] == (3 if name.startswith("convnext") else 2)
    assert found["head.fc.weight"] == last + 1


def test_wide_residual_networks_in_three_layouts() -> None:
    with torch.device("meta"):
        wide = create_model("dm_wrn_28_10")
        old = create_model("trades_wrn_34_10")
        ours = create_model("preact_resnet", depths=(4, 4, 4), channels=(16, 160, 320, 640))
    found = depths(wide, blocks=12)
    assert found["init_conv.weight"] == 0
    assert found["layer.0.block.0.conv_0.weight"] == 1
    assert found["layer.1.block.0.shortcut.weight"] == 5
    assert found["layer.2.block.3.conv_1.weight"] == 12
    assert found["batchnorm.weight"] == found["logits.bias"] == 13
    found = depths(old, blocks=15)
    assert (found["conv1.weight"], found["block1.layer.0.conv1.weight"]) == (0, 1)
    assert (found["block3.layer.4.conv2.weight"], found["fc.weight"]) == (15, 16)
    found = depths(ours, blocks=12)
    assert found["stem_conv.weight"] == 0
    assert (found["blocks.0.layer.0.bn1.weight"], found["blocks.2.layer.3.bn1.weight"]) == (1, 12)
    assert found["fc.weight"] == 13


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"recipe\.optimizer\.layer_decay.*numbered blocks"):
        build_optimizer(tiny(), Optimizer(layer_decay=DECAY))


def test_frozen_parameters_change_no_others_depth() -> None:
    whole, partly = (create_model("preact_resnet", depths=(1, 1, 1)) for _ in range(2))
    for parameter in partly.get_submodule("blocks.0").parameters():
        parameter.requires_grad_(False)
    rates = [
        {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
        for optimizer in (build_optimizer(n, Optimizer(layer_decay=0.5)) for n in (whole, partly))
    ]
    for name, parameter in partly.named_parameters():
        if parameter.requires_grad:
            assert rates[1][id(parameter)] == rates[0][id(whole.get_parameter(name))]


def test_every_step_sets_each_layers_share_of_the_rate() -> None:
    network = create_model("preact_resnet", depths=(1, 1, 1), block="basic")
    norms = DecayGroup(names=("bn",), weight_decay=0.0)
    settings = Optimizer(name="adamw", lr=0.4, layer_decay=0.5, groups=(norms,))
    optimizer = build_optimizer(network, settings)
    recipe = Recipe(epochs=4, optimizer=settings, schedule=Schedule(name="cosine", per="step"))
    rate = set_rates(optimizer, recipe, 2, 0, 5)
    assert rate == pytest.approx(0.2)
    found = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    shares = {"stem_conv.weight": 1 / 16, "blocks.0.layer.0.bn1.weight": 1 / 8, "fc.bias": 1}
    for name, share in shares.items():
        group = found[id(network.get_parameter(name))]
        assert group["lr"] == pytest.approx(0.2 * share)
        assert group["weight_decay"] == (0.0 if "bn" in name else 2e-4)
