"""What attacks cost, in passes, before and while they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustray.attacks.suite import Column

# Assumed until the clean pass and the first attack have been seen.
CLEAN_ACCURACY = 0.85
ROBUST_SHARE = 0.5

_STEPS = ("steps", "n_iter", "n_queries")
_RUNS = ("restarts", "n_restarts", "n_targets")
# Attacks that look at each new point with a forward pass of its own.
_FORWARDS_EACH = {"fab": 2, "fab-t": 2}


@dataclass(frozen=True)
class Passes:
    """Forward and backward passes."""

    forwards: float
    backwards: float

    @property
    def equivalents(self) -> float:
        """In forward passes; a backward pass to the images costs about as much as a forward."""
        return self.forwards + self.backwards

    def times(self, factor: float) -> Passes:
        """Return that many of them."""
        return Passes(self.forwards * factor, self.backwards * factor)

    def plus(self, other: Passes) -> Passes:
        """Return the sum."""
        return Passes(self.forwards + other.forwards, self.backwards + other.backwards)


def attack_passes(attack: Mapping[str, Any]) -> Passes:
    """Return the passes of one image that an attack does not break.

    Read off the attack's budget: steps (or queries), times restarts and targets, times samples of
    expectation over transformations; queries need no backward pass.
    """
    options = attack["options"]
    steps = next((int(options[name]) for name in _STEPS if options.get(name)), 1)
    runs = 1
    for name in _RUNS:
        runs *= int(options.get(name) or 1)
    gradients = steps * runs * int(options.get("eot") or 1)
    forwards = gradients * _FORWARDS_EACH.get(str(attack["attack"]), 1) + runs
    return Passes(forwards, 0 if options.get("n_queries") else gradients)


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
