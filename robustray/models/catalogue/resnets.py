"""Entry points of the residual networks of the robustness literature.

Costs that are recorded here are counted for 10 classes and 3 x 32 x 32 images; the published
ones stand beside them as printed by the authors of "Revisiting Residual Networks for Adversarial
Robustness" in their code's tables.
"""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels
from robustray.models.architectures.preact_resnet import PreActResNet
from robustray.models.architectures.resnet18 import PointMLP, ResNet18
from robustray.models.options import Sizes, Structure, Style, resolve_config
from robustray.models.registry import (
    DIRECTIONS,
    REVISITING,
    PublishedCost,
    PublishedWeights,
    register,
)

_LIST_OF_WIDTHS = (
    "The printed usage example passes widening factors as channels and leaves out the stem; the "
    "channels are (16, 16 W1, 32 W2, 64 W3)."
)
_CONFIG_WITHOUT_BLOCK = (
    "The released configuration file leaves out scales 8, base width 10, cardinality 4 and SE "
    "reduction 64; with the code's defaults (4, 64, 8, 16) it describes a network of {}."
)
_COST_OF_SETTING = (
    "The printed cost of the row with these depths and widths does not follow from them; the "
    "counted one is recorded."
)


def _of_table_1(depth: int, width: int, address: str, *white_box: float) -> PublishedWeights:
    return PublishedWeights(
        f"table-1-d{depth}-w{width}",
        (f"https://pan.baidu.com/s/{address}",),
        licence="MIT",
        data="cifar10",
        options=(("depths", (depth,) * 3), ("widths", (width,) * 3), ("block", "robust")),
        numbers=tuple(zip(("pgd-20", "cw-40"), white_box, strict=True)),
    )


@register(
    paper=REVISITING,
    weights=(
        _of_table_1(4, 10, "1Yng1A0snNj8rGzML3WStzg?pwd=f3ct", 57.70, 54.71),
        _of_table_1(5, 12, "1FFxvdVxgHpXnBvidGrpDLA?pwd=p9ue", 58.46, 55.56),
        _of_table_1(7, 14, "1x9-zVQzu0QeXKr19Ce4YOg?pwd=suau", 59.41, 56.62),
        _of_table_1(11, 16, "1pr7QcWO1uj9GsrvS5ZvIHg?pwd=x9wp", 60.48, 57.78),
    ),
)
def preact_resnet(**options: Unpack[Structure]) -> PreActResNet:
    """Pre-activation ResNet of any depth, width and block.

    Parameters
    ----------
    depths : sequence of int
        Blocks of each stage; its length is the number of stages. Default (4, 4, 4).
    widths : float or sequence of float
        Widening factors: stage i = 0, 1, ... has ``16 * W_i * 2**i`` channels, the stem 16.
        Default (10, 10, 10). Robust blocks put out four times as many.
    channels : sequence of int
        Instead of ``widths``: channels of the stem, then of each stage.
    strides : int or sequence of int
        Stride of each stage's first block. Default 1, then 2.
    stem_stride : int
        Stride of the first convolution. Default 1.
    block : str or sequence of str
        "basic" (default) or "robust".
    activations, normalizations : str or sequence of str
        See `robustray.models.architectures.layers`. Default "ReLU" and "BatchNorm".
    kernel_sizes : int or sequence of int
        Odd sizes of the spatial convolutions. Default 3.
    scales, base_width, cardinality, se_reduction : int
        Of robust blocks (see `robustray.models.architectures.robust_block`). Default 8, 10, 4, 64.
    se : str
        Where robust blocks have their gate: "residual" (default), "standard", "conv3x3",
        "identity" or "none".
    pre_process : bool
        Standardise the input with CIFAR-10's mean and deviation. Default False.
    use_init : bool
        Draw convolutions anew, fan-out normal (default), or keep PyTorch's initial weights.
    in_channels, num_classes : int
        Default 3 and 10.

    Raises
    ------
    ModelError
        For a wrong option; says what is allowed (a ``ValueError``).
    """
    return PreActResNet(resolve_config(**options))


def _robust(depths: tuple[int, ...], widths: tuple[int, ...], options: Style) -> PreActResNet:
    return preact_resnet(
        depths=depths,
        widths=widths,
        block="robust",
        scales=8,
        base_width=10,
        cardinality=4,
        se_reduction=64,
        **options,
    )


@register(
    paper=REVISITING,
    parameters=18_707_930,
    macs=5_080_950_848,
    conv_linear_macs=5_076_862_848,
    published=PublishedCost("17.7M", "5.09G"),
    corrections=(_COST_OF_SETTING,),
)
def wrn_a1(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 5 GMACs."""
    return preact_resnet(depths=(14, 14, 7), widths=(5, 7, 3), **options)


@register(
    paper=REVISITING,
    parameters=38_323_482,
    macs=10_842_852_096,
    conv_linear_macs=10_836_167_168,
    published=PublishedCost("39.3M", "9.74G"),
    corrections=(_COST_OF_SETTING,),
)
def wrn_a2(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 10 GMACs."""
    return preact_resnet(depths=(17, 17, 8), widths=(7, 9, 4), **options)


@register(
    paper=REVISITING,
    parameters=75_302_490,
    macs=20_225_879_488,
    conv_linear_macs=20_215_680_128,
    published=PublishedCost("74.8M", "20.3G"),
    corrections=(_COST_OF_SETTING,),
)
def wrn_a3(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 20 GMACs."""
    return preact_resnet(depths=(22, 22, 11), widths=(8, 11, 5), **options)


@register(
    paper=REVISITING,
    parameters=147_291_738,
    macs=40_397_033_600,
    conv_linear_macs=40_381_107_968,
    published=PublishedCost("147M", "40.4G"),
    corrections=("First printed as 141M and 40.9G, corrected later by the authors.",),
    weights=(
        PublishedWeights(
            "robustbench-500k",
            ("https://drive.google.com/uc?id=1okHk4XPgunmqHG3alXfVF84qRwlu6Oqe",),
            licence="MIT",
            data="cifar10 and 500K pseudo-labelled images",
            options=(("activations", "SiLU"), ("pre_process", True)),
            numbers=(("clean", 91.58), ("autoattack", 65.79)),
            normalisation="CIFAR-10's mean and deviation, inside the network",
            note="RobustBench's Huang2022Revisiting_WRN-A4.",
        ),
    ),
)
def wrn_a4(**options: Unpack[Style]) -> PreActResNet:
    """Compound-scaled ResNet of basic blocks at 40 GMACs."""
    return preact_resnet(depths=(27, 28, 13), widths=(10, 14, 6), **options)


@register(
    paper=REVISITING,
    parameters=19_222_738,
    macs=5_105_232_768,
    conv_linear_macs=5_080_232_192,
    published=PublishedCost("19.2M", "5.11G"),
    corrections=(_LIST_OF_WIDTHS, _CONFIG_WITHOUT_BLOCK.format("144.3M and 39.8G")),
    weights=(
        PublishedWeights(
            "baidu-500k",
            ("https://pan.baidu.com/s/1OH2Tqg0Piz3OFCrhV0dVdw?pwd=m53k",),
            licence="MIT",
            data="cifar10 and 500K pseudo-labelled images",
            options=(("activations", "SiLU"),),
            numbers=(("autoattack", 63.70),),
            normalisation="not known",
            note="The released configuration has SiLU and leaves pre_process out; that of WRN-A4, "
            "trained alike, is known to have it. Compare the clean accuracy with and without.",
        ),
    ),
)
def rrn_a1(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A1: compound-scaled ResNet of robust blocks at 5 GMACs."""
    return _robust((14, 14, 7), (5, 7, 3), options)


@register(
    paper=REVISITING,
    parameters=39_033_982,
    macs=10_779_416_768,
    conv_linear_macs=10_738_805_376,
    published=PublishedCost("39.0M", "10.8G"),
    corrections=(_LIST_OF_WIDTHS, _CONFIG_WITHOUT_BLOCK.format("296.5M and 84.2G")),
)
def rrn_a2(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A2: compound-scaled ResNet of robust blocks at 10 GMACs."""
    return _robust((17, 17, 8), (7, 9, 4), options)


@register(
    paper=REVISITING,
    parameters=75_856_698,
    macs=19_881_445_120,
    conv_linear_macs=19_819_890_176,
    published=PublishedCost("75.9M", "19.9G"),
    corrections=(_LIST_OF_WIDTHS, _CONFIG_WITHOUT_BLOCK.format("581.6M and 156.6G")),
)
def rrn_a3(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A3: compound-scaled ResNet of robust blocks at 20 GMACs."""
    return _robust((22, 22, 11), (8, 11, 5), options)


@register(
    paper=REVISITING,
    parameters=147_262_458,
    macs=39_368_543_616,
    conv_linear_macs=39_272_890_880,
    published=PublishedCost("147M", "39.4G"),
    corrections=(
        _LIST_OF_WIDTHS,
        _CONFIG_WITHOUT_BLOCK.format("1139.6M and 312.7G"),
        "The overview figure's 61.1 % AutoAttack without extra data stands in no table.",
    ),
)
def rrn_a4(**options: Unpack[Style]) -> PreActResNet:
    """RobustResNet-A4: compound-scaled ResNet of robust blocks at 40 GMACs."""
    return _robust((27, 28, 13), (10, 14, 6), options)


class _Options(Sizes, total=False):
    normalisation: str
    small_images: bool


@register(paper=DIRECTIONS)
def gd_spheres_mlp(
    *,
    num_classes: int = 1,
    in_channels: int = 1,
    dimensions: Channels = 500,
    hidden: Channels = 1000,
) -> PointMLP:
    """MLP for points (B, 500) on two spheres; its batch norm stays frozen in the study."""
    return PointMLP(dimensions, hidden, num_classes)


@register(
    paper=DIRECTIONS,
    corrections=(
        'normalisation="direct" applies the statistics of [0, 1] to images in [-1, 1], as '
        "published.",
    ),
)
def gd_resnet18(**options: Unpack[_Options]) -> ResNet18:
    """ResNet-18 for images in [-1, 1], with ImageNet's normalisation built in."""
    return ResNet18(**options)
