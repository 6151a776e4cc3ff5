"""The networks of the adaptive smoothing study: sizes, names, and blocks against formulas."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from robustray.models import ModelError, create_model, load_weights
from robustray.models.architectures.bit_resnet import Bottleneck, StandardConv
from robustray.models.architectures.dm_wide_resnet import DmBlock, TradesWideResNet

SIZES = {
    ("bit_r152x2", 10): (232_279_178, 459), ("bit_r152x2", 100): (232_647_908, 459),
    ("bit_r50x1", 10): (23_520_842, 153), ("bit_r50x1", 1000): (25_549_352, 153),
    ("bit_r50x3", 10): (211_235_530, 153), ("bit_r101x1", 10): (42_512_970, 306),
    ("bit_r101x3", 10): (381_851_338, 306), ("bit_r152x4", 10): (928_422_154, 459),
    ("dm_wrn_70_16", 10): (266_796_506, 407), ("dm_wrn_70_16", 100): (266_888_756, 407),
    ("dm_wrn_28_10", 10): (36_479_194, 155), ("trades_wrn_34_10", 10): (48_262_586, 252),
    ("trades_wrn_34_10", 100): (48_320_276, 252), ("cifar_resnet18", 10): (11_173_962, 122),
    ("cifar_resnet18", 100): (11_220_132, 122), ("cifar_preact_resnet18", 10): (11_171_274, 107),
    ("cifar_preact_resnet18", 100): (11_217_444, 107),
    ("smoothing_resnet20", 10): (272_474, 128), ("smoothing_resnet110", 10): (1_730_714, 668),
}  # fmt: skip


@pytest.mark.parametrize(("name", "classes"), SIZES)
def test_sizes_are_the_published_ones(name, classes):
    with torch.device("meta"):
        model = create_model(name, num_classes=classes)
    state = model.state_dict()
    assert (sum(p.numel() for p in model.parameters()), len(state)) == SIZES[name, classes]


NAMES = {
    "bit_r50x1": ["root.conv.weight", "body.block1.unit01.downsample.weight", "head.gn.weight",
                  "body.block4.unit03.conv3.weight", "head.conv.bias"],
    "dm_wrn_28_10": ["init_conv.weight", "layer.0.block.0.batchnorm_0.running_mean",
                     "layer.2.block.3.conv_1.weight", "layer.1.block.0.shortcut.weight",
                     "batchnorm.weight", "logits.bias"],
    "trades_wrn_34_10": ["sub_block1.layer.4.conv2.weight", "block2.layer.0.convShortcut.weight",
                         "fc.weight"],
    "cifar_resnet18": ["layer2.0.shortcut.0.weight", "layer4.1.bn2.weight", "linear.bias"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_tensors_have_the_published_names(name):
    with torch.device("meta"):
        names = set(create_model(name).state_dict())
    assert set(NAMES[name]) <= names


def test_kernels_are_standardised_by_filter():
    torch.manual_seed(0)
    conv, x = StandardConv(3, 5, 3, padding=1, bias=False), torch.rand(2, 3, 6, 6)
    w = conv.weight.detach().double()
    mean = w.mean((1, 2, 3), keepdim=True)
    kernel = (w - mean) / (((w - mean) ** 2).mean((1, 2, 3), keepdim=True) + 1e-10).sqrt()
    assert torch.allclose(conv(x).double(), F.conv2d(x.double(), kernel, padding=1), atol=1e-5)


def test_a_bottleneck_is_the_formula():
    torch.manual_seed(0)
    block, x = Bottleneck(32, 64, 32, 2), torch.rand(1, 32, 8, 8)
    a = F.relu(F.group_norm(x, 32, block.gn1.weight, block.gn1.bias, 1e-5))
    h = F.relu(block.gn2(block.conv1(a)))
    h = block.conv3(F.relu(block.gn3(block.conv2(h))))
    assert block.downsample is not None
    assert torch.allclose(block(x), h + block.downsample(a), atol=1e-6)


def test_strided_blocks_pad_as_tensorflow():
    torch.manual_seed(0)
    block = DmBlock(4, 8, 2, "SiLU").eval()
    x = torch.rand(1, 4, 8, 8)
    a = F.silu(block.batchnorm_0(x))
    h = F.conv2d(F.pad(a, (0, 1, 0, 1)), block.conv_0.weight, stride=2)
    h = block.conv_1(F.silu(block.batchnorm_1(h)))
    assert block.shortcut is not None
    assert torch.allclose(block(x), h + block.shortcut(a), atol=1e-6)


@pytest.mark.parametrize("name", ["cifar_resnet18", "cifar_preact_resnet18"])
def test_features_are_of_32_and_16_pixels(name):
    torch.manual_seed(0)
    model: Any = create_model(name, width=4).eval()
    x = torch.rand(2, 3, 32, 32)
    logits, (first, second) = model.forward_features(x)
    assert torch.equal(logits, model(x))
    assert (first.shape[1:], second.shape[1:]) == ((4, 32, 32), (8, 16, 16))
    assert model.feature_channels == (4, 8)


def test_the_unused_copy_is_unused():
    torch.manual_seed(0)
    model: Any = TradesWideResNet(10, 1).eval()
    x = torch.rand(1, 3, 32, 32)
    before = model(x)
    torch.nn.init.constant_(model.sub_block1.layer[0].conv1.weight, 9.0)
    assert torch.equal(model(x), before)
    assert sum(p.numel() for p in model.parameters()) == 82_522


def test_an_impossible_depth_is_refused():
    with pytest.raises(ModelError, match="6 n"):
        TradesWideResNet(12, 1)


@pytest.mark.parametrize(
    ("name", "depth", "width", "classes", "count"),
    [
        ("dm_wrn", 34, 20, 10, 184_531_674),
        ("dm_wrn", 106, 16, 10, 415_475_162),
        ("dm_wrn", 10, 1, 10, 77_850),
        ("dm_wrn", 10, 1, 100, 83_700),
        ("dm_wrn", 16, 2, 10, 691_674),
        ("trades_wrn", 10, 1, 10, 82_522),
    ],
)
def test_wide_networks_of_any_size(name, depth, width, classes, count):
    with torch.device("meta"):
        model = create_model(name, depth=depth, width=width, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == count


def test_checkpoints_of_randomised_smoothing_are_read(tmp_path):
    torch.manual_seed(0)
    model: Any = create_model("smoothing_resnet20")
    state = {f"1.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"arch": "cifar_resnet20", "state_dict": state}, tmp_path / "checkpoint.pth.tar")
    other: Any = create_model("smoothing_resnet20")
    assert load_weights(other, tmp_path / "checkpoint.pth.tar").format == "state_dict"
    assert torch.equal(other.fc.weight, model.fc.weight)
