"""Entry points of the Robust-Model-Zoo's quantised networks, and of searched cell networks."""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels, Depth, Depths, PositiveNumber
from robustray.models.architectures.cell_network import CellNetwork, CellNetworkConfig
from robustray.models.architectures.quantised import Mode, QuantisedNetwork
from robustray.models.options import Sizes, WithPreProcess
from robustray.models.registry import ADVRUSH, RACL, ROBNET, register


class _Options(Sizes, total=False):
    mode: Mode
    quantise: bool
    alpha: PositiveNumber


@register()
def robust_model_zoo_1(
    *, width: Channels = 48, depths: Depths = (2, 1, 2), **options: Unpack[_Options]
) -> QuantisedNetwork:
    """Robust-Model-Zoo, model 1: twelve quantisers, trios in all stages."""
    return QuantisedNetwork(width, depths, "trio", **options)


@register()
def robust_model_zoo_2(
    *, width: Channels = 48, depths: Depths = (5, 1, 5), **options: Unpack[_Options]
) -> QuantisedNetwork:
    """Robust-Model-Zoo, model 2: fourteen quantisers, plain residual units in the last stage."""
    return QuantisedNetwork(width, depths, "unit", **options)


@register(paper=ROBNET)
def robnet_large_v2(**options: Unpack[WithPreProcess]) -> CellNetwork:
    """RobNet-large-v2: 33 densely connected cells, 64 channels."""
    return CellNetwork(CellNetworkConfig("robnet_large_v2", channels=64, layers=33, **options))


@register(paper=ADVRUSH)
def advrush(**options: Unpack[WithPreProcess]) -> CellNetwork:
    """AdvRush 7@96: 23 cells, 96 channels."""
    return CellNetwork(CellNetworkConfig("advrush", channels=96, layers=23, **options))


@register(paper=RACL)
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
