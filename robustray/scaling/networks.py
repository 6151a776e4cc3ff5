"""RobustScaling for any network of stages: the depths and widths that a budget buys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import nn

from robustray.errors import ModelError
from robustray.models import Profile
from robustray.scaling.factories import Factory, Maker
from robustray.scaling.ratios import Division, Rule, find_rule, is_whole, read_multiple
from robustray.scaling.search import choose
from robustray.words import suggest

_STEM = 16  # channels of a first stage whose widening factor is 1
_MULTIPLE = 8  # of channels, if nothing else is wanted

Path = Callable[[], Iterator[Division]]


@dataclass(frozen=True)
class ScaledNetwork:
    """The network of a rule that has a budget.

    Attributes
    ----------
    name : str
        Its factory.
    rule : Rule
        For as many stages as it has.
    target_macs : float
        What was asked for.
    input_shape : tuple of int
        (C, H, W) of the image that was counted.
    depths, widths : tuple
        Of each stage, as the factory takes them.
    factors : tuple of float
        Widening factors: ``widths`` in units of 16 * 2**i channels.
    arguments : dict
        All that the factory is given, ``depths`` and ``widths`` among them.
    profile : Profile
        What `robustray.models.profile` counts.
    builds : int
        How many networks were counted to find it, most of them of one or two blocks a stage.
    """

    name: str
    rule: Rule
    target_macs: float
    input_shape: tuple[int, int, int]
    depths: tuple[int, ...]
    widths: tuple[float, ...]
    factors: tuple[float, ...]
    arguments: dict[str, Any]
    profile: Profile
    builds: int
    _maker: Maker = field(repr=False, compare=False)

    @property
    def off(self) -> float:
        """Return the distance from the target, relative to it; below 0 if it costs less."""
        return self.profile.macs / self.target_macs - 1

    @property
    def depth_share(self) -> float:
        """Return r_D: blocks over blocks and widening factors together."""
        return sum(self.depths) / (sum(self.depths) + sum(self.factors))

    def build(self) -> nn.Module:
        """Return the network, with initial weights, on torch's current default device."""
        return self._maker.make(self.arguments)

    def count_stages(self) -> tuple[Profile, ...]:
        """Count each stage's blocks but the first one, with one block in the other stages.

        What ``profile`` has beyond their sum are stem, first blocks, and head.
        """
        ones = (1,) * len(self.depths)
        single = self._maker.count_with(ones, self.widths)
        return tuple(
            _subtract(
                self._maker.count_with((*ones[:i], depth, *ones[i + 1 :]), self.widths), single
            )
            for i, depth in enumerate(self.depths)
        )


def scale(
    factory: Factory,
    target_macs: float,
    rule: str | Rule = "robust_resnet",
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    stages: int | None = None,
    num_classes: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    widths: str | Sequence[int] | None = None,
    multiple: float | Fraction | str | None = None,
    tolerance: float = 0.1,
) -> ScaledNetwork:
    """Find the depths and widths that follow a scaling rule at a budget of multiply-accumulates.

    Networks are built on the meta device and counted by `robustray.models.profile`: about twenty
    small ones, of one or two blocks in each stage, and the one that is returned. With the
    published rule, ``robust_resnet``, blocks are divided 2 : 2 : 1 over three stages, widening
    factors 2 : 2.5 : 1, and 0.7 of both together is depth. `docs/guides/scaling.md` tells what of
    this is published and what is robustray's.

    Parameters
    ----------
    factory : str or callable
        ``factory(depths=..., widths=...)`` returns a network of as many stages; or its name, as
        `robustray.models.create_model` takes it. If it has the parameters ``in_channels`` and
        ``num_classes``, it gets these too.
    target_macs : float
        Multiply-accumulates for one image, above 0.
    rule : str or Rule
        "robust_resnet", "uniform", ``package.module:name``, or a `Rule` of one's own.
    input_shape : sequence of int
        (C, H, W) of one image.
    stages : int, optional
        2 to 6; default: as many as the rule has (3).
    num_classes : int, optional
        Default: the factory's own; 10 if it has none.
    arguments : mapping, optional
        Further arguments of the factory, such as ``{"block": "robust"}``.
    widths : str or sequence of int, optional
        What the factory takes for its ``widths``: "channels", or "factors" as `preact_resnet`
        does, where a widening factor of 1 means 16 * 2**i channels in stage i = 0, 1, ...; or
        what it takes for a widening factor of 1, for each stage. Default: "factors" for networks
        that come with robustray, "channels" for others.
    multiple : float, Fraction or str, optional
        Widths are multiples of it. Default: 8 for channels, 1 for factors; of factors it may be a
        fraction ("1/4").
    tolerance : float
        Greatest relative distance of the cost from the target, in (0, 1).

    Returns
    -------
    ScaledNetwork
        Of the networks that the rule gives, if any costs within 3 % of the target, the one whose
        depth share is nearest to the rule's; otherwise the one nearest to the target. Each width
        and depth is less than one step from its exact share, and none shrinks where the target
        grows.

    Raises
    ------
    UserError
        If an argument is wrong, the factory can't be given depths and widths or fails, or no
        network of the rule is within the tolerance; says what is allowed and which networks are
        nearest (a ``ValueError``).

    Examples
    --------
    >>> found = scale("preact_resnet", 5e9, arguments={"block": "robust"})
    >>> found.depths, found.widths
    ((14, 14, 7), (5, 7, 3))
    """
    shape, wanted = _shape(input_shape), find_rule(rule)
    wanted = wanted.stretch(len(wanted.depths) if stages is None else stages)
    is_number = isinstance(target_macs, int | float) and not isinstance(target_macs, bool)
    if not is_number or not 0 < target_macs < math.inf:
        raise ModelError(f"target_macs: {target_macs!r} is not a number above 0")
    if not 0 < tolerance < 1:
        raise ModelError(f"tolerance: {tolerance!r} is not a share between 0 and 1")
    maker = Maker(factory, shape, num_classes, arguments or {})
    units = _units(maker.takes if widths is None else widths, len(wanted.depths))
    whole = any(unit > 1 for unit in units)
    step = read_multiple((_MULTIPLE if whole else 1) if multiple is None else multiple, whole)
    chosen = _choose(wanted, lambda: wanted.path(units, step), maker, float(target_macs), tolerance)
    given = maker.arguments(chosen)
    return ScaledNetwork(
        name=maker.name,
        rule=wanted,
        target_macs=target_macs,
        input_shape=shape,
        depths=given["depths"],
        widths=given["widths"],
        factors=tuple(map(float, chosen.factors)),
        arguments=given,
        profile=maker.count(chosen),
        builds=maker.builds,
        _maker=maker,
    )


def _subtract(whole: Profile, part: Profile) -> Profile:
    return Profile(
        whole.parameters - part.parameters,
        whole.macs - part.macs,
        whole.conv_linear_macs - part.conv_linear_macs,
    )


def _choose(rule: Rule, path: Path, maker: Maker, target: float, tolerance: float) -> Division:
    """Find the network of a rule, by extrapolated costs where those are right."""

    def find(count: Callable[[Division], int]) -> Division:
        return choose(path(), rule.depth_share, target, count, tolerance)

    first = next(path(), None)
    count = maker.choose_counting(first) if first else maker.extrapolate
    chosen = find(count)
    if count(chosen) == maker.count(chosen).macs:
        return chosen
    return find(lambda at: maker.count(at).macs)


def _shape(given: Sequence[int]) -> tuple[int, int, int]:
    sizes = () if isinstance(given, str) else tuple(given)
    if len(sizes) != 3 or not all(map(is_whole, sizes)):
        raise ModelError(f"input_shape: {given!r} is not (C, H, W), three whole numbers above 0")
    return sizes[0], sizes[1], sizes[2]


def _units(widths: str | Sequence[int], stages: int) -> tuple[int, ...]:
    """Return what a factory takes for a widening factor of 1, for each stage."""
    named = {"channels": tuple(_STEM * 2**i for i in range(stages)), "factors": (1,) * stages}
    if isinstance(widths, str):
        if widths not in named:
            hint = suggest(widths, named) or "."
            raise ModelError(f"widths: {widths!r} is neither 'channels' nor 'factors'{hint}")
        return named[widths]
    units = tuple(widths)
    if len(units) != stages or not all(map(is_whole, units)):
        raise ModelError(
            f"widths: {widths!r} is not a whole number above 0 for each of {stages} stages"
        )
    return units
