"""How the U-Nets of the gradient direction study are called in our network.

Their names can't be told one at a time: "down.1.1.0.weight" is the first convolution of a level in
a published file, and the second one in ours. So the whole file is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIRST_UP = "up.0.up.0.1.weight"  # no name of ours
_NETWORKS = 32  # in one file
_DOWN = re.compile(r"down\.(\d{1,3})\.(\d{1,3})\.(.+)")
_UP = re.compile(r"up\.(\d{1,3})\.up\.(0\.1|1)\.(.+)")
_JOIN = re.compile(r"up\.(\d{1,3})\.conv\.(.+)")


def from_unet(names: Iterable[str]) -> dict[str, str]:
    """Return the tensors of published U-Nets under our names; what is no part of one is left out.

    In a published U-Net every level but the first begins with its pooling, so that its blocks are
    numbered from 1, and steps up are counted from the finest. Ours count them from the deepest.

    Parameters
    ----------
    names : iterable of str
        All names of a file, with whatever stands before the network's own.
    """
    names = list(names)
    found: dict[str, str] = {}
    starts = {name.removesuffix(_FIRST_UP) for name in names if name.endswith(_FIRST_UP)}
    for start in sorted(starts)[:_NETWORKS]:
        own = {name: name[len(start) :] for name in names if name.startswith(start)}
        ups = [int(match[1]) for inner in own.values() if (match := _UP.fullmatch(inner))]
        deepest = max(ups, default=0)
        for name, inner in own.items():
            if (ours := _name(inner, deepest)) is not None:
                found[name] = start + ours
    return found


def _name(name: str, deepest: int) -> str | None:
    if match := _DOWN.fullmatch(name):
        level, block = int(match[1]), int(match[2])
        return f"down.{level}.{block - (level > 0)}.{match[3]}"
    if match := _UP.fullmatch(name):
        layer = 0 if match[2] == "0.1" else 1
        return f"up.{deepest - int(match[1])}.{layer}.{match[3]}"
    if match := _JOIN.fullmatch(name):
        return f"join.{deepest - int(match[1])}.{match[2]}"
    return None
