"""Layer-wise decay of the learning rate: how deep a parameter lies, told by its name.

Howard and Ruder, "Universal language model fine-tuning for text classification" (2018), in the form
that vision transformers are fine-tuned with (Bao et al., "BEiT", 2022): with L blocks the depth of
what comes before them is 0, block k (from 1) has depth k, what comes after them has depth L + 1, and
the learning rate at depth d is multiplied by decay ** (L + 1 - d).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from robustray.errors import ManifestError

SCALE = "lr_scale"  # the key of an optimiser's groups

# The name up to its first number; then a second number, at once or after a word for blocks.
_BLOCK = re.compile(r"(?P<family>.*?)\d+(?:\.(?:(?:blocks?|layers?)\.)?\d+)?(?=\.|$)")


def layer_depths(names: Iterable[str]) -> dict[str, int]:
    """Return how deep each parameter lies.

    A block is a name up to its first number at the end of a word, and up to a second one that
    follows at once or after ``block(s)`` or ``layer(s)``: ``blocks.3``, ``stages.1.blocks.2``,
    ``layer1.0``, ``features.4.1``, ``encoder.layers.encoder_layer_3``. Of all such names those count
    whose text before the first number most parameters share (``blocks.``, ``layer``); blocks are
    numbered from 1 in the order in which the network has them. Parameters before the first block
    have depth 0, those after the last have one more than that; what lies between two blocks has
    the depth of the one before.

    Parameters
    ----------
    names : iterable of str
        As ``named_parameters`` gives them, in its order.

    Raises
    ------
    ManifestError
        If there are no two blocks.
    """
    names = list(names)
    blocks = {name: found for name in names if (found := _block_of(name))}
    families = Counter(family for family, _ in blocks.values())
    largest = families.most_common(1)[0][0] if families else ""
    members = [name for name in names if name in blocks and blocks[name][0] == largest]
    numbers = {block: k for k, block in enumerate(dict.fromkeys(blocks[n][1] for n in members), 1)}
    if len(numbers) < 2:
        raise ManifestError(
            "the network's parameters are in no numbered blocks (such as blocks.0, blocks.1)",
            path="layer_decay",
        )
    last, depths, depth = names.index(members[-1]), {}, 0
    for place, name in enumerate(names):
        if name in members:
            depth = numbers[blocks[name][1]]
        depths[name] = len(numbers) + 1 if place > last else depth
    return depths


def layer_scales(names: Iterable[str], decay: float | None) -> dict[str, float]:
    """Return by what each parameter's learning rate is multiplied; empty without a decay.

    Raises
    ------
    ManifestError
        As `layer_depths`.
    """
    if decay is None:
        return {}
    depths = layer_depths(names)
    deepest = max(depths.values())
    return {name: decay ** (deepest - depth) for name, depth in depths.items()}


def describe_scales(names: Iterable[str], decay: float) -> list[tuple[float, int, str]]:
    """Return each depth's multiplier, its number of parameter tensors, and the name of the first."""
    scales, rows = layer_scales(names, decay), {}
    for name, scale in scales.items():
        first, count = rows.get(scale, (name, 0))
        rows[scale] = first, count + 1
    return [(scale, count, first) for scale, (first, count) in sorted(rows.items())]


def _block_of(name: str) -> tuple[str, str] | None:
    """Return a name's text before its first number, and its block; None if it has no number."""
    match = _BLOCK.match(name)
    return (match["family"], match[0]) if match else None
