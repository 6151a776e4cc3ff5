"""Rules for dividing a network between its stages: ratios, and the path of networks they give.

A rule says how blocks and widening factors are shared between stages, and what share of both
together is depth. Growing all of them along that ray and rounding each by itself gives a path:
networks in which, one after the other, one stage gains a block or a step of width. Nothing on it
ever shrinks.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, get_args

from robustray.errors import ModelError, choice_error
from robustray.manifest.fields import MOST_BLOCKS
from robustray.user_code import is_reference, load_reference

STAGES = range(2, 7)
Rounding = Literal["down", "nearest", "up"]
_FINEST = 10_000  # greatest denominator of a ratio


@dataclass(frozen=True)
class Rule:
    """How a network's blocks and widening factors are divided between its stages.

    Parameters
    ----------
    name : str
        What tables call it.
    depths, widths : sequence of float
        Ratios of blocks and of widening factors, one for each stage, 2 to 6 of them, above 0. A
        widening factor of W means 16 * 2**i * W channels in stage i = 0, 1, ...
    depth_share : float
        Blocks over blocks and widening factors together, summed over the stages; in (0, 1).
    depth_rounding, width_rounding : sequence of str
        "down", "nearest" or "up" for each stage; nearest where none is given.
    source : str
        Where it comes from.

    Raises
    ------
    ModelError
        If the ratios are no ratios (a ``ValueError``).
    """

    name: str
    depths: tuple[float, ...]
    widths: tuple[float, ...]
    depth_share: float
    depth_rounding: tuple[Rounding, ...] = ()
    width_rounding: tuple[Rounding, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for field in ("depths", "widths", "depth_rounding", "width_rounding"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(self.depths) not in STAGES or len(self.depths) != len(self.widths):
            raise ModelError(
                f"the rule {self.name!r} has {len(self.depths)} ratios of depths and "
                f"{len(self.widths)} of widths; give as many of both as there are stages, 2 to 6"
            )
        for ratio in (*self.depths, *self.widths):
            if not 1 / 1000 <= ratio <= 1000:
                raise ModelError(
                    f"the rule {self.name!r}: {ratio!r} is no ratio; they lie between 1/1000 and "
                    "1000"
                )
        if not 0.01 <= self.depth_share <= 0.99:
            raise ModelError(
                f"the rule {self.name!r}: depth_share={self.depth_share!r} is no share between "
                "0.01 and 0.99"
            )
        for roundings in (self.depth_rounding, self.width_rounding):
            if roundings and len(roundings) != len(self.depths):
                raise ModelError(
                    f"the rule {self.name!r} has {len(roundings)} roundings for "
                    f"{len(self.depths)} stages; give one for each, or none"
                )
            for rounding in roundings:
                if rounding not in get_args(Rounding):
                    raise choice_error("rounding", rounding, get_args(Rounding))

    def stretch(self, stages: int) -> Rule:
        """Return the rule for a number of stages.

        A rule of three stages serves any number from 2 to 6: all stages between the first and
        the last are like its second one. That is robustray's extension, and not published.

        Raises
        ------
        ModelError
            If it has ratios for another number of stages, and not for three.
        """
        if stages not in STAGES:
            raise ModelError(f"stages: {stages!r} is not a whole number from 2 to 6")
        if stages == len(self.depths):
            return self
        if len(self.depths) != 3:
            raise ModelError(
                f"the rule {self.name!r} is one of {len(self.depths)} stages, not of {stages}; "
                "only rules of 3 stages are stretched to other numbers"
            )
        fields = ("depths", "widths", "depth_rounding", "width_rounding")
        return replace(
            self, **{field: _stretched(getattr(self, field), stages) for field in fields}
        )

    def ideal(self, total_width: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return blocks and widening factors of every stage before they are rounded.

        Parameters
        ----------
        total_width : float
            Sum of the widening factors.
        """
        depth, width = self._slopes()
        return (
            tuple(float(slope) * total_width for slope in depth),
            tuple(float(slope) * total_width for slope in width),
        )

    def path(self, units: Sequence[int], multiple: Fraction) -> Iterator[Division]:
        """Yield the networks of the rule, from the smallest on.

        Each has one block, or one step of width, more than that before it. The path begins where
        no stage is rounded to nothing, and ends before 600 blocks.

        Parameters
        ----------
        units : sequence of int
            A widening factor of 1, in the numbers that the network takes, for each stage.
        multiple : Fraction
            Steps of those numbers.
        """
        depth, width = self._slopes()
        steps = [slope * unit / multiple for slope, unit in zip(width, units, strict=True)]
        nearest: tuple[Rounding, ...] = ("nearest",) * len(depth)
        roundings = (*(self.depth_rounding or nearest), *(self.width_rounding or nearest))
        arrivals = [
            _arrivals(place, slope, rounding)
            for place, (slope, rounding) in enumerate(zip((*depth, *steps), roundings, strict=True))
        ]
        counts, stages = [0] * len(arrivals), len(depth)
        for total, _, place in heapq.merge(*arrivals):
            counts[place] += 1
            if sum(counts[:stages]) > MOST_BLOCKS:
                return
            if min(counts) > 0:
                widths = tuple(count * multiple for count in counts[stages:])
                yield Division(float(total), tuple(counts[:stages]), widths, tuple(units))

    def _slopes(self) -> tuple[list[Fraction], list[Fraction]]:
        """Return blocks and widening factors of every stage where the factors sum up to 1."""
        depths, widths = list(map(_exact, self.depths)), list(map(_exact, self.widths))
        share = _exact(self.depth_share)
        blocks = share / (1 - share)
        return (
            [blocks * ratio / sum(depths) for ratio in depths],
            [ratio / sum(widths) for ratio in widths],
        )


@dataclass(frozen=True)
class Division:
    """A network on a rule's path.

    Attributes
    ----------
    total_width : float
        Sum of the widening factors before they are rounded: how far along the path it is.
    depths, widths : tuple
        Of each stage, as the network takes them.
    units : tuple of int
        A widening factor of 1, in the numbers of ``widths``.
    """

    total_width: float
    depths: tuple[int, ...]
    widths: tuple[Fraction, ...]
    units: tuple[int, ...]

    @property
    def factors(self) -> tuple[Fraction, ...]:
        """Return the widening factor of each stage."""
        return tuple(width / unit for width, unit in zip(self.widths, self.units, strict=True))

    @property
    def depth_share(self) -> Fraction:
        """Return r_D: blocks over blocks and widening factors together."""
        return Fraction(sum(self.depths)) / (sum(self.depths) + sum(self.factors))


def _exact(ratio: float) -> Fraction:
    return Fraction(ratio).limit_denominator(_FINEST)


def _stretched(values: tuple[Any, ...], stages: int) -> tuple[Any, ...]:
    return (values[0], *[values[1]] * (stages - 2), values[2]) if values else ()


def _arrivals(
    place: int, slope: Fraction, rounding: Rounding
) -> Iterator[tuple[Fraction, bool, int]]:
    """Yield where ``slope * total``, rounded, becomes 1, 2, ...; True stands for just behind."""
    for count in itertools.count(1):
        if rounding == "down":
            yield count / slope, False, place
        elif rounding == "nearest":
            yield (count - Fraction(1, 2)) / slope, False, place
        else:
            yield (count - 1) / slope, True, place


# How the authors round is not printed. Of the roundings of single stages, these give the depths of
# all six settings that they publish from their totals, and the widths of all but one (30 GMACs).
ROBUST_RESNET = Rule(
    "robust_resnet",
    depths=(2, 2, 1),
    widths=(2, 2.5, 1),
    depth_share=0.7,
    depth_rounding=("nearest", "up", "down"),
    width_rounding=("down", "nearest", "up"),
    source="Huang, Lu, Deb, Boddeti, CVPR 2023 (arXiv 2212.11005), section 4",
)
# The even networks that the study begins with, of 5 to 15 GMACs, have depth shares of 0.29 to 0.30.
UNIFORM = Rule(
    "uniform",
    depths=(1, 1, 1),
    widths=(1, 1, 1),
    depth_share=0.3,
    source="wide residual networks, Zagoruyko, Komodakis, BMVC 2016 (arXiv 1605.07146)",
)
RULES: Mapping[str, Rule] = MappingProxyType({r.name: r for r in (ROBUST_RESNET, UNIFORM)})


def find_rule(rule: str | Rule) -> Rule:
    """Return a rule by its name, or by ``package.module:name`` for one of one's own.

    Raises
    ------
    UserError
        If there is none; lists what is allowed (a ``ValueError``).
    """
    if isinstance(rule, Rule):
        return rule
    if is_reference(rule):
        found = load_reference(rule)
        if not isinstance(found, Rule):
            raise ModelError(f"{rule} is a {type(found).__name__}, not a robustray.scaling.Rule")
        return found
    if rule not in RULES:
        raise choice_error("rule", rule, (*RULES, "package.module:name"))
    return RULES[rule]


def is_whole(number: object) -> bool:
    """Whether a number is whole, and at least 1."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def read_multiple(multiple: float | Fraction | str, whole: bool) -> Fraction:
    """Return the step of widths that was asked for, as an exact number.

    Raises
    ------
    ModelError
        If it is none, or has to be ``whole`` and is not (a ``ValueError``).
    """
    try:
        exact = Fraction(multiple)
        if not math.isclose(exact, exact.limit_denominator(_FINEST), rel_tol=1e-9):
            raise ValueError
        exact = exact.limit_denominator(_FINEST)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        exact = Fraction(0)
    if exact <= 0 or isinstance(multiple, bool) or (whole and exact.denominator != 1):
        kind = "a whole number of at least 1" if whole else "a number above 0, such as 1 or 1/4"
        raise ModelError(f"multiple: {multiple!r} is not {kind}; widths are multiples of it")
    return exact
