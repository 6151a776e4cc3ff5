"""Layer-wise decay of the learning rate: how deep a parameter lies, told by its name.

Howard and Ruder, "Universal language model fine-tuning for text classification" (2018), in the
form that vision transformers are fine-tuned with (Bao et al., "BEiT", 2022): with L blocks the
depth of what comes before them is 0, block k (from 1) has depth k, what comes after them has depth
L + 1, and the learning rate at depth d is multiplied by decay ** (L + 1 - d).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from robustray.errors import ManifestError

SCALE = "lr_scale"  # the key of an optimiser's groups

# The name up to its first number; then a second number, at once or after a word for blocks.
_BLOCK = re.compile(r"(?P<family>.*?)\d+(?P<second>\.(?:(?:blocks?|layers?)\.)?\d+)?(?=\.|$)")


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Return by what each parameter's learning rate is multiplied.

    A block is a name up to its first number at the end of a word, and up to a second one that
    follows at once or after ``block(s)`` or ``layer(s)``: ``blocks.3``, ``stages.1.blocks.2``,
    ``layer1.0``, ``features.4.1``, ``encoder.layers.encoder_layer_3``. A single layer is none: in
    ``features.0.0.weight`` nothing lies below the numbers. Of the names that are left those count
    that begin with the same text and have as many numbers as most parameters; blocks are numbered
    from 1 in the order in which the network has them. What lies between two blocks has the depth
    of the one before.

    Parameters
    ----------
    names : iterable of str
        Of all parameters, as ``named_parameters`` gives them, in its order.
    decay : float
        In (0, 1).

    Raises
    ------
    ManifestError
        If there are no two blocks.
    """
    names = list(names)
    blocks = _blocks(names)
    numbers = {block: k for k, block in enumerate(dict.fromkeys(blocks.values()), start=1)}
    if len(numbers) < 2:
        raise ManifestError(
            "the network's parameters are in no numbered blocks (such as blocks.0, blocks.1)",
            path="layer_decay",
        )
    top = len(numbers) + 1
    last = max(place for place, name in enumerate(names) if name in blocks)
    scales, depth = {}, 0
    for place, name in enumerate(names):
        depth = numbers[blocks[name]] if name in blocks else depth
        scales[name] = decay ** (top - (depth if place <= last else top))
    return scales


def _blocks(names: list[str]) -> Mapping[str, str]:
    """Return the block of each parameter that lies in one of the network's blocks."""
    found = {name: match for name in names if (match := _BLOCK.match(name))}
    layers: dict[str, set[str]] = defaultdict(set)
    for name, match in found.items():
        layers[match[0]].add(name.rpartition(".")[0])
    kinds = {
        name: (match["family"], match["second"] is None)
        for name, match in found.items()
        if len(layers[match[0]]) > 1
    }
    most = Counter(kinds.values()).most_common(1)
    return {name: found[name][0] for name, kind in kinds.items() if kind == most[0][0]}
