"""What a budget of multiply-accumulates can buy: depth against width at equal cost, as text."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from robustray.errors import UserError
from robustray.models import ModelError, Profile, create_model, profile
from robustray.scaling.rules import (
    BY_DEPTH,
    BY_WIDTH,
    COMPOUND,
    RATIO_SHARES,
    STANDARD,
    Setting,
    compound,
    ratio_settings,
)

_HEAD = f"{'':<22}{'depths':>12}{'widths':>12}{'r_D':>7}{'parameters':>14}{'GMACs':>9}{'off':>8}"

_MOST_GMACS = 1000  # fifty times the largest published network


def describe_target(gmacs: float) -> str:
    """Return the compound setting for a budget, what was published near it, and its neighbours.

    Parameters
    ----------
    gmacs : float
        Budget in 1e9 multiply-accumulates.

    Raises
    ------
    UserError
        If the rule has no network for the budget.
    """
    if not 0 < gmacs <= _MOST_GMACS:
        raise UserError(
            f"--target-gmacs {gmacs:g}: a budget is a number above 0 and at most {_MOST_GMACS:,}"
        )
    try:
        chosen = compound(gmacs * 1e9)
    except ModelError as error:
        raise UserError(f"--target-gmacs {gmacs:g}: {error}") from error
    lines = [
        f"{gmacs:g} GMACs on 3 x 32 x 32 images, 10 classes; off: distance from the budget",
        _HEAD,
        _line("RobustScaling", chosen, gmacs),
        _line("  with robust blocks", chosen, gmacs, block="robust"),
        *_published(gmacs),
        "",
        "equal cost (within 5 %), from wide to deep:",
        *_shares(gmacs),
    ]
    return "\n".join(lines)


def _published(gmacs: float) -> Iterable[str]:
    tables = {
        "published, compound": COMPOUND,
        "published, by depth": BY_DEPTH,
        "published, by width": BY_WIDTH,
        "published, even": STANDARD,
    }
    return [_line(word, table[gmacs], gmacs) for word, table in tables.items() if gmacs in table]  # type: ignore[index]


def _shares(gmacs: float) -> Iterable[str]:
    lines = []
    for share in RATIO_SHARES:
        word = f"r_D about {float(share):.2f}"
        try:
            (setting,) = ratio_settings(gmacs * 1e9, [share])
        except ModelError:
            lines.append(f"{word:<22}none within 0.025 of it and 5 % of the cost")
        else:
            lines.append(_line(word, setting, gmacs))
    return lines


def _line(word: str, setting: Setting, gmacs: float, block: str = "basic") -> str:
    cost = _cost(setting, block)
    depths, widths = ("-".join(map(str, values)) for values in (setting.depths, setting.widths))
    return (
        f"{word:<22}{depths:>12}{widths:>12}{float(setting.depth_share):>7.3f}"
        f"{cost.parameters:>14,}{cost.macs / 1e9:>9.2f}{cost.macs / 1e9 / gmacs - 1:>+8.1%}"
    )


def _cost(setting: Setting, block: str) -> Profile:
    with torch.device("meta"):
        model = create_model(
            "preact_resnet", depths=setting.depths, widths=setting.widths, block=block
        )
    return profile(model, (3, 32, 32))
