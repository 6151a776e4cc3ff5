"""Networks of searched cells: RobNet, AdvRush and RACL differ in their genotype alone.

Source of the layout: Liu, Simonyan, Yang, "DARTS", ICLR 2019 (arXiv:1806.09055). Names of the
state dict are those of the weights published with arXiv:2212.11005.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustray.errors import ModelError, choice_error
from robustray.models.architectures.cell_operations import OPERATIONS, FactorizedReduce, pointwise
from robustray.models.architectures.layers import Standardize

# A cell computes nodes one after another. Its states are its two inputs (0 and 1) and the nodes
# so far (2, 3, ...); a node is the sum of one operation on each of some earlier states. The
# output of a cell is all its nodes, concatenated. In a reduction cell, operations on the inputs
# stride by 2.
#
# Sources: Guo, Yang, Xu, Liu, Lin, "When NAS Meets Robustness", CVPR 2020 (arXiv:1911.10695);
# Mok, Na, Choe, Yoon, "AdvRush", ICCV 2021 (arXiv:2108.01289); Dong, Li, Wang, Xu, "Adversarially
# Robust Neural Architectures" (RACL), 2020 (arXiv:2009.00902).

Edge = tuple[str, int]
Node = tuple[Edge, ...]


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network.

    Attributes
    ----------
    normal, reduction : tuple of tuple of (str, int)
        For each node its edges: an operation (a key of
        `robustray.models.architectures.cell_operations.OPERATIONS`) and the state that it reads.
    affine : bool
        Whether the normalizations of the cells have weights.
    nested : bool
        Whether the published names hold each operation in a further module, ``op``.
    """

    normal: tuple[Node, ...]
    reduction: tuple[Node, ...]
    affine: bool = True
    nested: bool = False


def _nodes(*nodes: str) -> tuple[Node, ...]:
    """Read nodes written as "sep3:1 skip:0"."""
    pairs = [[edge.split(":") for edge in node.split()] for node in nodes]
    return tuple(tuple((name, int(state)) for name, state in node) for node in pairs)


_ROBNET = _nodes(
    "res_sep3:0 res_sep3:1",
    "res_sep3:0 res_sep3:1 res_sep3:2",
    "sep3:0 res_sep3:1 sep3:2 skip:3",
    "res_sep3:0 sep3:1 sep3:2 sep3:3 res_sep3:4",
)

GENOTYPES: dict[str, Genotype] = {
    "robnet_large_v2": Genotype(_ROBNET, _ROBNET, affine=False, nested=True),
    "advrush": Genotype(
        normal=_nodes("sep3:1 sep3:0", "sep5:0 sep3:1", "sep3:1 sep3:0", "skip:0 sep3:1"),
        reduction=_nodes("sep3:0 sep3:1", "skip:0 dil3:2", "skip:0 avg3:1", "skip:0 skip:2"),
    ),
    "racl": Genotype(
        normal=_nodes("sep3:0 sep3:1", "sep5:0 skip:1", "sep3:0 skip:3", "sep3:3 skip:4"),
        reduction=_nodes("sep3:0 sep5:1", "avg3:0 dil3:1", "sep3:0 sep5:1", "sep3:2 dil3:3"),
    ),
}


STEM_MULTIPLIER = 3


@dataclass(frozen=True)
class CellNetworkConfig:
    """The resolved options of a network of cells.

    Attributes
    ----------
    genotype : str
        A key of `GENOTYPES`.
    channels : int
        Channels of each node before the first reduction; an even number.
    layers : int
        Number of cells, at least 3; number ``layers // 3`` and ``2 * layers // 3`` (from 0) halve
        the resolution and double the channels.
    pre_process : bool
        Whether the network standardises its input with CIFAR-10's mean and deviation.
    in_channels, num_classes : int
        Channels of the image, and number of logits.

    Raises
    ------
    ModelError
        For a value that is none of these.
    """

    genotype: str
    channels: int
    layers: int
    pre_process: bool = False
    in_channels: int = 3
    num_classes: int = 10

    def __post_init__(self) -> None:
        if self.genotype not in GENOTYPES:
            raise choice_error("genotype", self.genotype, GENOTYPES)
        if self.channels < 2 or self.channels % 2:
            raise ModelError(f"channels: {self.channels} is not an even number of at least 2")
        if self.layers < 3:
            raise ModelError(f"layers: {self.layers} cells leave no two to reduce; at least 3")
        if self.pre_process and self.in_channels != 3:
            raise ModelError(
                f"pre_process: its constants are those of 3 channels, not {self.in_channels}"
            )


class Nested(nn.Module):
    """An operation under the name ``op``, as the published weights of RobNet have it.

    Parameters
    ----------
    operation : nn.Module
        What it does.
    """

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.op = operation

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Apply the operation."""
        return self.op(x_BCHW)


class Cell(nn.Module):
    """One cell of a genotype.

    Parameters
    ----------
    genotype : Genotype
        What the nodes compute.
    inputs : tuple of int
        Channels of the outputs of the last cell but one, and of the last.
    channels : int
        Channels of each node; the output has them once for every node (``out_channels``).
    reduction, after_reduction : bool
        Whether this cell halves the resolution, and whether the one before it did.
    """

    def __init__(
        self,
        genotype: Genotype,
        inputs: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__()
        self.nodes = genotype.reduction if reduction else genotype.normal
        self.out_channels = channels * len(self.nodes)
        adapt = FactorizedReduce if after_reduction else pointwise
        self.preprocess0 = adapt(inputs[0], channels, genotype.affine)
        self.preprocess1 = pointwise(inputs[1], channels, genotype.affine)
        self._ops = nn.ModuleList()
        for name, state in (edge for node in self.nodes for edge in node):
            stride = 2 if reduction and state < 2 else 1
            operation = OPERATIONS[name](channels, stride, genotype.affine)
            self._ops.append(Nested(operation) if genotype.nested else operation)

    def forward(self, older_BCHW: Tensor, newer_BCHW: Tensor) -> Tensor:
        """Return the nodes' concatenation, (B, out_channels, H', W')."""
        states = [self.preprocess0(older_BCHW), self.preprocess1(newer_BCHW)]
        operations = iter(self._ops)
        for node in self.nodes:
            total = None
            for _, state in node:
                term = next(operations)(states[state])
                total = term if total is None else total + term
            assert total is not None
            states.append(total)
        return torch.cat(states[2:], 1)


class CellNetwork(nn.Module):
    """Stem, cells, global average pool and classifier.

    Initial weights are PyTorch's defaults.

    Parameters
    ----------
    config : CellNetworkConfig
        The resolved options; kept as ``config``.
    """

    def __init__(self, config: CellNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_process = Standardize() if config.pre_process else None
        width = STEM_MULTIPLIER * config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(config.in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.cells = nn.ModuleList()
        reductions = (config.layers // 3, 2 * config.layers // 3)
        older, newer, channels = width, width, config.channels
        for index in range(config.layers):
            channels *= 2 if index in reductions else 1
            cell = Cell(
                GENOTYPES[config.genotype],
                (older, newer),
                channels,
                reduction=index in reductions,
                after_reduction=index - 1 in reductions,
            )
            self.cells.append(cell)
            older, newer = newer, cell.out_channels
        self.classifier = nn.Linear(newer, config.num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, in_channels, H, W) in [0, 1]."""
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        older = newer = self.stem(x_BCHW)
        for cell in self.cells:
            older, newer = newer, cell(older, newer)
        return self.classifier(newer.mean((2, 3)))
