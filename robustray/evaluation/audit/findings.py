"""What an audit finds, as data that stands beside every number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from robustray.attacks.registry import find_attack
from robustray.attacks.result import Finding, Severity, graded

__all__ = [
    "Finding",
    "beyond_gradients",
    "black_box_finding",
    "graded",
    "is_black_box",
    "plain",
    "worst",
]

# What attacks that ask for logits only break on top of the others speaks of masked gradients.
_BLACK_BOX_SHARE = 0.002


def plain(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON values."""
    return [asdict(finding) for finding in findings]


def worst(findings: Iterable[Mapping[str, Any]]) -> str:
    """Return the highest severity among findings; "ok" without any."""
    order = get_args(Severity)
    return max((finding["severity"] for finding in findings), key=order.index, default="ok")


def black_box_finding(attacks: Sequence[Mapping[str, Any]], count: int) -> Finding | None:
    """Tell whether black-box attacks broke what the attacks before them did not.

    The rule, 0.2 points of accuracy, is the one that AutoAttack's authors warn by (Croce and Hein,
    "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", 2020).

    Parameters
    ----------
    attacks : sequence of mapping
        In the suite's order, each with its "attack", "name" and the number "broken" that no attack
        before had broken.
    count : int
        Number of images.

    Returns
    -------
    Finding or None
        None where the suite has no black-box attack after a white-box one.
    """
    black = [attack for attack in attacks[1:] if is_black_box(attack)]
    if not black or count == 0:
        return None
    broken = sum(attack["broken"] for attack in black)
    return beyond_gradients([attack["name"] for attack in black], broken, count)


def is_black_box(attack: Mapping[str, Any]) -> bool:
    """Whether an attack asks for logits only."""
    return find_attack(attack["attack"]).make().passes().backwards == 0


def beyond_gradients(black: Sequence[str], broken: int, count: int) -> Finding:
    """Return `black_box_finding` for attacks that broke ``broken`` more of ``count`` images."""
    share, names = broken / count, ", ".join(black)
    return graded(
        "black_box",
        share,
        _BLACK_BOX_SHARE,
        f"{names} broke {100 * share:.2f} % of the images, which no gradient attack had broken: "
        "gradients seem to be masked. Do not trust the number before you have attacked with an "
        "adaptive method (a surrogate gradient)",
        fine=f"{names} broke {100 * share:.2f} % of the images after the gradient attacks",
    )
