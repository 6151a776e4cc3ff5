"""Cells that architecture searches found, as data.

A cell computes nodes one after another. Its states are its two inputs (0 and 1) and the nodes so
far (2, 3, ...); a node is the sum of one operation on each of some earlier states. The output of a
cell is all its nodes, concatenated. In a reduction cell, operations on the inputs stride by 2.

Sources: Guo, Yang, Xu, Liu, Lin, "When NAS Meets Robustness", CVPR 2020 (arXiv:1911.10695);
Mok, Na, Choe, Yoon, "AdvRush", ICCV 2021 (arXiv:2108.01289); Dong, Li, Wang, Xu, "Adversarially
Robust Neural Architectures" (RACL), 2020 (arXiv:2009.00902).
"""

from __future__ import annotations

from dataclasses import dataclass

Edge = tuple[str, int]
Node = tuple[Edge, ...]


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network.

    Attributes
    ----------
    normal, reduction : tuple of tuple of (str, int)
        For each node its edges: an operation (a key of
        `robustray.models.cell_operations.OPERATIONS`) and the state that it reads.
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
