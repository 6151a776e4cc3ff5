"""What attacks cost, in passes, before and while they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustray.attacks import Column, Passes
from robustray.attacks.registry import find_attack

# Assumed until the clean pass and the first attack have been seen.
CLEAN_ACCURACY = 0.85
ROBUST_SHARE = 0.5


def attack_passes(attack: Mapping[str, Any]) -> Passes:
    """Return the passes of one image that an attack does not break.

    Parameters
    ----------
    attack : mapping
        ``AttackSpec.describe()``, or a part of it.
    """
    return find_attack(attack["attack"]).make(**attack["options"]).passes()


def task_passes(
    attacks: Sequence[Mapping[str, Any]],
    count: int,
    *,
    attack_all: bool,
    columns: Sequence[Column] = (),
    clean: float = CLEAN_ACCURACY,
    robust: float | None = None,
) -> Passes:
    """Estimate the passes of a suite on ``count`` images.

    The first attack (of each column) is charged in full for all images that are classified
    correctly, each later one for those that stay robust: with slots that are refilled, what breaks
    early costs little.

    Parameters
    ----------
    attacks : sequence of mapping
        ``AttackSpec.describe()`` of each.
    count : int
        Number of images.
    attack_all : bool
        Whether every attack runs on all images.
    columns : sequence of Column
        Of an independent suite.
    clean, robust : float
        Accuracies that are assumed; ``robust`` is half of ``clean`` where it is not given.
    """
    robust = clean * ROBUST_SHARE if robust is None else robust
    total, firsts = Passes(count, 0), {0, *(column.start for column in columns)}
    for number, attack in enumerate(attacks):
        share = 1.0 if attack_all else clean if number in firsts else robust
        total = total.plus(attack_passes(attack).times(share * count))
    return total
