"""Entry points of networks of searched cells, at the sizes of the robustness comparisons."""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels, Depth
from robustray.models.cell_network import CellNetwork, CellNetworkConfig
from robustray.models.options import WithPreProcess
from robustray.models.papers import ADVRUSH, RACL, ROBNET
from robustray.models.registry import PublishedCost, register


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
