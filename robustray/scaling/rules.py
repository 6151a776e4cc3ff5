"""How to divide a budget of multiply-accumulates between depth and width (RobustScaling).

The rules are those of S. Huang, Z. Lu, K. Deb and V. N. Boddeti, "Revisiting Residual Networks
for Adversarial Robustness" (CVPR 2023, arXiv 2212.11005), section 4: the last stage gets the
smallest part of either total, and depth gets 7 parts of 10. How the authors round is not printed;
the split here reproduces all six settings that they publish. Costs are those of basic blocks on
3 x 32 x 32 images with 10 classes; `robustray.scaling.scale` has the rule for any network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from robustray.errors import ModelError, UserError
from robustray.models import Profile, create_model, profile
from robustray.models.counting import building_on_meta
from robustray.scaling.planning import check_gmacs
from robustray.scaling.ratios import ROBUST_RESNET
from robustray.scaling.search import choose

DEPTH_SHARE = Fraction(7, 10)
SHARE_TOLERANCE = Fraction(1, 40)
RATIO_RANGE = (Fraction(3, 10), Fraction(19, 20))
RATIO_SHARES = tuple(Fraction(step, 20) for step in range(6, 19))  # 0.30, 0.35, ..., 0.90
RATIO_TARGETS = (5, 20)  # GMACs


@dataclass(frozen=True)
class Setting:
    """Blocks and widening factors of three stages."""

    depths: tuple[int, int, int]
    widths: tuple[int, int, int]

    @property
    def depth_share(self) -> Fraction:
        """Return r_D: blocks over blocks and widening factors together."""
        return Fraction(sum(self.depths), sum(self.depths) + sum(self.widths))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of basic blocks, as `robustray.models.profile` counts them."""
        return basic_macs(self.depths, self.widths)


# By GMACs. 15 and 30 stand in the paper's figure only; 5, 10, 20 and 40 are A1 to A4.
COMPOUND = {
    5: Setting((14, 14, 7), (5, 7, 3)),
    10: Setting((17, 17, 8), (7, 9, 4)),
    15: Setting((20, 20, 10), (7, 10, 4)),
    20: Setting((22, 22, 11), (8, 11, 5)),
    30: Setting((25, 25, 12), (9, 13, 5)),
    40: Setting((27, 28, 13), (10, 14, 6)),
}
# The even networks that these are compared with, and those that keep their totals and follow the
# rule for one of depth and width (Table 2; no rounding gives all of its widths).
STANDARD = {
    5: Setting((4, 4, 4), (10, 10, 10)),
    10: Setting((5, 5, 5), (12, 12, 12)),
    15: Setting((6, 6, 6), (14, 14, 14)),
    20: Setting((7, 7, 7), (14, 14, 14)),
    30: Setting((9, 9, 9), (16, 16, 16)),
    40: Setting((11, 11, 11), (16, 16, 16)),
}
BY_DEPTH = {
    5: Setting((5, 5, 2), (10, 10, 10)),
    10: Setting((6, 6, 3), (12, 12, 12)),
    20: Setting((9, 8, 4), (14, 14, 14)),
    40: Setting((14, 13, 6), (16, 16, 16)),
}
BY_WIDTH = {
    5: Setting((4, 4, 4), (11, 13, 6)),
    10: Setting((5, 5, 5), (13, 16, 7)),
    20: Setting((7, 7, 7), (16, 18, 8)),
    40: Setting((11, 11, 11), (18, 21, 9)),
}


def split(total_depth: int, total_width: int) -> Setting:
    """Divide totals over three stages, depths about 2 : 2 : 1 and widths about 2 : 2.5 : 1.

    Parameters
    ----------
    total_depth, total_width : int
        Sums over the stages; at least 5 blocks and 3 widening factors.

    Raises
    ------
    ModelError
        If a stage would be empty.
    """
    if total_depth < 5 or total_width < 3:
        raise ModelError(
            f"{total_depth} blocks and widening factors of {total_width} in all leave a stage "
            "empty: at least 5 and 3 are needed"
        )
    third = total_depth // 5
    first = (total_depth - third) // 2
    thin, wide = -(-2 * total_width // 11), 4 * total_width // 11  # of 5.5 parts, 1 up and 2 down
    depths = (first, total_depth - third - first, third)
    return Setting(depths, (wide, total_width - wide - thin, thin))


def compound(target: float) -> Setting:
    """Return the setting of RobustScaling for a budget of multiply-accumulates.

    As `robustray.scaling.scale` finds it, with the cost by formula.

    Raises
    ------
    ModelError
        If there is none within 10 % of the target.
    """
    found = choose(
        ROBUST_RESNET.path((1, 1, 1), Fraction(1)), ROBUST_RESNET.depth_share, target,
        lambda at: basic_macs(at.depths, list(map(int, at.widths))), tolerance=0.1,
    )  # fmt: skip
    depths, widths = found.depths, found.widths
    first, second, third = map(int, widths)
    return Setting((depths[0], depths[1], depths[2]), (first, second, third))


def ratio_settings(target: float, shares: Sequence[Fraction] = RATIO_SHARES) -> list[Setting]:
    """Return one setting for each depth share, all within 5 % of the target's cost.

    Of the settings with 0.3 <= r_D < 0.95 and a depth share within 0.025 of the wanted one, each
    is the one nearest to that share, then to the target.
    """
    return [_nearest(target, share) for share in shares]


def candidates(target: float, share: Fraction, cost_tolerance: float) -> Iterator[Setting]:
    """Yield every split setting near a depth share and a cost, narrow ones first.

    Parameters
    ----------
    target : float
        Multiply-accumulates.
    share : Fraction
        Of depth; settings lie within 0.025 of it, in [0.3, 0.95).
    cost_tolerance : float
        Greatest relative distance from the target.
    """
    low, high = max(share - SHARE_TOLERANCE, RATIO_RANGE[0]), share + SHARE_TOLERANCE
    width = 3
    while basic_macs((2, 2, 1), split(5, width).widths) <= target * (1 + cost_tolerance):
        first = max(5, math.ceil(width * low / (1 - low)))
        for depth in range(first, math.floor(width * high / (1 - high)) + 1):
            setting = split(depth, width)
            near = abs(setting.macs - target) <= cost_tolerance * target
            if near and setting.depth_share < RATIO_RANGE[1]:
                yield setting
        width += 1


def _nearest(target: float, share: Fraction) -> Setting:
    found = list(candidates(target, share, 0.05))
    if not found:
        raise ModelError(
            f"no network of three stages has {target:.4g} MACs (+-5%) and a "
            f"depth share of {float(share):g} (+-{float(SHARE_TOLERANCE):g})"
        )
    return min(found, key=lambda s: (abs(s.depth_share - share), abs(s.macs - target)))


def basic_macs(depths: Sequence[int], widths: Sequence[int]) -> int:
    """Count the multiply-accumulates of a network of basic blocks by formula.

    Equal to ``profile(create_model("preact_resnet", depths=..., widths=...), (3, 32, 32)).macs``:
    convolutions, the classifier, and one for each element out of a norm or the last pool.
    """
    before, side = 16, 32
    total = 27 * before * side**2
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        after, coming = 16 * 2**stage * width, side**2
        side = side if stage == 0 else side // 2
        shortcut = before * after if stage > 0 or before != after else 0
        total += side**2 * (9 * before * after + 9 * after**2 + shortcut)
        total += before * coming + after * side**2
        total += (depth - 1) * side**2 * (18 * after**2 + 2 * after)
        before = after
    return total + before * side**2 + before + 10 * before


_HEAD = f"{'':<22}{'depths':>12}{'widths':>12}{'r_D':>7}{'parameters':>14}{'GMACs':>9}{'off':>8}"


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
    check_gmacs(gmacs)
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
    with building_on_meta():
        model = create_model(
            "preact_resnet", depths=setting.depths, widths=setting.widths, block=block
        )
    return profile(model, (3, 32, 32))
