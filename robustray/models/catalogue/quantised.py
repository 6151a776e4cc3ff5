"""Entry points of the Robust-Model-Zoo: quantised networks that normalise with batch statistics."""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels, Depth, Depths, PositiveNumber
from robustray.models.architectures.cell_network import CellNetwork, CellNetworkConfig
from robustray.models.architectures.quantised import Mode, QuantisedNetwork
from robustray.models.options import Sizes, WithPreProcess
from robustray.models.registry import (
    ADVRUSH,
    RACL,
    ROBNET,
    PublishedCost,
    PublishedWeights,
    register,
)


class _Options(Sizes, total=False):
    mode: Mode
    quantise: bool
    alpha: PositiveNumber


_HIDDEN = (
    "Predictions depend on the batch: printed accuracies are of batches of 100 in file order. "
    "'Without BPDA' gradients are NaN, so that number is random starts and Square."
)


def _weights(model: str, **numbers: float) -> tuple[PublishedWeights, ...]:
    return (
        PublishedWeights(
            name="tf1",
            sources=("https://github.com/metinaktas/Robust-Model-Zoo",),
            licence="AGPL-3.0",
            data="CIFAR-10",
            numbers=tuple(numbers.items()),
            note=f"{model}: a TensorFlow 1 checkpoint (checkpoint-0), linked from its notebook. "
            + _HIDDEN,
        ),
    )


@register(
    parameters=43_911_430,
    macs=1_697_692_716,
    conv_linear_macs=1_695_895_296,
    corrections=(_HIDDEN,),
    weights=_weights("model_1", clean=77.10, without_bpda=62.20, with_bpda=53.30),
)
def robust_model_zoo_1(
    *, width: Channels = 48, depths: Depths = (2, 1, 2), **options: Unpack[_Options]
) -> QuantisedNetwork:
    """Robust-Model-Zoo, model 1: twelve quantisers, trios in all stages."""
    return QuantisedNetwork(width, depths, "trio", **options)


@register(
    parameters=25_916_422,
    macs=2_186_992_428,
    conv_linear_macs=2_184_269_568,
    corrections=(_HIDDEN,),
    weights=_weights("model_2", clean=69.30, without_bpda=49.70, with_bpda=43.10),
)
def robust_model_zoo_2(
    *, width: Channels = 48, depths: Depths = (5, 1, 5), **options: Unpack[_Options]
) -> QuantisedNetwork:
    """Robust-Model-Zoo, model 2: fourteen quantisers, plain residual units in the last stage."""
    return QuantisedNetwork(width, depths, "unit", **options)


@register(
    paper=ROBNET,
    parameters=33_326_666,
    macs=5_094_812_672,
    conv_linear_macs=5_094_615_040,
    published=PublishedCost("33.3M", "5.10G"),
    corrections=("Printed as 5.10G; two digits, 5.1G, are right.",),
)
def robnet_large_v2(**options: Unpack[WithPreProcess]) -> CellNetwork:
    """RobNet-large-v2: 33 densely connected cells, 64 channels."""
    return CellNetwork(CellNetworkConfig("robnet_large_v2", channels=64, layers=33, **options))


@register(
    paper=ADVRUSH,
    parameters=32_575_018,
    macs=4_969_284_096,
    conv_linear_macs=4_948_466_688,
    published=PublishedCost("32.6M", "4.97G"),
)
def advrush(**options: Unpack[WithPreProcess]) -> CellNetwork:
    """AdvRush 7@96: 23 cells, 96 channels."""
    return CellNetwork(CellNetworkConfig("advrush", channels=96, layers=23, **options))


@register(
    paper=RACL,
    parameters=32_509_682,
    macs=4_928_466_816,
    conv_linear_macs=4_910_813_440,
    published=PublishedCost("32.5M", "4.93G"),
)
def racl(**options: Unpack[WithPreProcess]) -> CellNetwork:
    """RACL 7@104: 23 cells, 104 channels."""
    return CellNetwork(CellNetworkConfig("racl", channels=104, layers=23, **options))


@register(paper=ROBNET)
def cell_network(
    *,
    genotype: str = "advrush",
    channels: Channels = 16,
    layers: Depth = 8,
    **options: Unpack[WithPreProcess],
) -> CellNetwork:
    """Cells of a genotype, as many as wanted (3 or more), with any even number of channels."""
    return CellNetwork(CellNetworkConfig(genotype, channels=channels, layers=layers, **options))
