"""The options of a PreActResNet: checked, completed, and put into one resolved form."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypedDict

from robustray.errors import ModelError, choice_error
from robustray.manifest.fields import Channels, Depth, Depths, PerStage, Pixels, Widths
from robustray.models.architectures.layers import ACTIVATIONS, NORMALIZATIONS

BLOCKS = ("basic", "robust")
SE_POSITIONS = ("residual", "standard", "conv3x3", "identity", "none")
STEM_CHANNELS = 16


class Sizes(TypedDict, total=False):
    """What every entry point takes, from its caller."""

    num_classes: int
    in_channels: int


class WithPreProcess(Sizes, total=False):
    """Options of networks that may standardise their input themselves."""

    pre_process: bool


class Style(WithPreProcess, total=False):
    """Options of a PreActResNet of fixed structure."""

    activations: str | tuple[str, ...]
    normalizations: str | tuple[str, ...]


class Structure(Style, total=False):
    """All options of a PreActResNet; `catalogue.resnets.preact_resnet` explains them."""

    depths: Depths
    widths: Widths
    channels: PerStage
    strides: PerStage
    stem_stride: Pixels
    block: str | tuple[str, ...]
    kernel_sizes: Pixels | PerStage
    use_init: bool
    scales: Depth
    base_width: Channels
    cardinality: Channels
    se_reduction: Channels
    se: str


@dataclass(frozen=True)
class RobustOptions:
    """What only `RobustResBlock` has; the defaults are those of the published networks.

    ``se`` is one of ``SE_POSITIONS``; `architectures.robust_block` says what each means.
    """

    scales: int = 8
    base_width: int = 10
    cardinality: int = 4
    se_reduction: int = 64
    se: str = "residual"


@dataclass(frozen=True)
class PreActResNetConfig:
    """The resolved options of a network; one value for each stage where a tuple stands.

    Attributes
    ----------
    depths : tuple of int
        Blocks in each stage.
    channels : tuple of int
        Channels of the stem, then planes of each stage.
    strides, kernel_sizes, blocks, activations, normalizations : tuple
        Of each stage; the tail's activation and normalization are those of the last stage.
    robust : RobustOptions or None
        None where no stage has robust blocks.
    pre_process : bool
        Whether the network standardises its input with CIFAR-10's mean and deviation.
    in_channels, num_classes : int
        Channels of the image, and number of logits.
    stem_stride : int
        Stride of the first convolution.
    use_init : bool
        Whether convolutions start from fan-out normal draws; PyTorch's defaults stay if not.
    """

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    blocks: tuple[str, ...]
    activations: tuple[str, ...]
    normalizations: tuple[str, ...]
    robust: RobustOptions | None
    pre_process: bool
    in_channels: int
    num_classes: int
    stem_stride: int = 1
    use_init: bool = True


def _natural(name: str, value: Any) -> int:
    """Return a whole number of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise ModelError(f"{name}: {value!r} is not a whole number of at least 1")
    return number


def _odd(name: str, value: Any) -> int:
    if _natural(name, value) % 2 == 0:
        raise ModelError(f"{name}: {value!r} is even; only odd sizes keep the resolution")
    return _natural(name, value)


def _per_stage(name: str, value: Any, stages: int) -> tuple[Any, ...]:
    """Repeat one value for every stage, or check that there is one for each."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * stages
    if len(value) != stages:
        raise ModelError(
            f"{name}: {len(value)} values for {stages} stages (as many as depths has); "
            "give one for each stage"
        )
    return tuple(value)


def _names(
    name: str, kind: str, value: Any, stages: int, allowed: Sequence[str]
) -> tuple[str, ...]:
    for item in (values := _per_stage(name, value, stages)):
        if item not in allowed:
            raise choice_error(kind, item, allowed)
    return values


def _planes(widths: Any, stages: int) -> tuple[int, ...]:
    """Turn widening factors W_i into channels 16 * W_i * 2**i, which must be whole."""
    channels: list[int] = []
    for i, width in enumerate(_per_stage("widths", widths, stages)):
        if isinstance(width, bool) or not isinstance(width, Real):
            raise ModelError(f"widths: {width!r} is not a number")
        exact = STEM_CHANNELS * float(width) * 2**i
        if not 0.5 < exact < 2**24 or abs(exact - round(exact)) > 1e-6 * exact:
            raise ModelError(
                f"widths: {width!r} in stage {i + 1} gives {exact:g} channels "
                f"(16 * {width} * {2**i}); channels are whole and at least 1, so a width is "
                f"a multiple of 1/{STEM_CHANNELS * 2**i}"
            )
        channels.append(round(exact))
    return (STEM_CHANNELS, *channels)


def _channels(widths: Any, channels: Any, stages: int) -> tuple[int, ...]:
    if channels is None:
        if widths is None and stages != 3:
            raise ModelError(f"give widths or channels for the {stages} stages of depths")
        return _planes((10, 10, 10) if widths is None else widths, stages)
    if widths is not None:
        raise ModelError("give widths or channels, not both: channels says all that widths does")
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise ModelError(f"channels: {channels!r} is not a list, the stem's channels first")
    if len(channels) != stages + 1:
        raise ModelError(
            f"channels: {len(channels)} values for {stages} stages (as many as depths has); "
            f"give {stages + 1}, the stem's first"
        )
    return tuple(_natural("channels", c) for c in channels)


def _robust(blocks: tuple[str, ...], se: Any, **given: Any) -> RobustOptions | None:
    numbers = {k: _natural(k, v) for k, v in given.items() if v is not None}
    named = [*numbers, *(["se"] if se is not None else [])]
    if "robust" not in blocks:
        if named:
            raise ModelError(
                f"{', '.join(named)}: only blocks of kind 'robust' have this, and no stage has them"
            )
        return None
    if se is not None and se not in SE_POSITIONS:
        raise choice_error("position of squeeze-and-excitation (se)", se, SE_POSITIONS)
    if se == "none" and "se_reduction" in numbers:
        raise ModelError("se_reduction: with se='none' there is no gate to reduce")
    return RobustOptions(**numbers, se=se or "residual")


def check_robust_block(*, kernel_size: Any, se: Any, **numbers: Any) -> None:
    """Refuse what no robust block can be built with.

    Parameters
    ----------
    kernel_size, se : object
        Has to be odd, and one of ``SE_POSITIONS``.
    **numbers
        Have to be whole numbers of at least 1.

    Raises
    ------
    ModelError
        For the first one that is wrong; says what is allowed (a ``ValueError``).
    """
    _odd("kernel_size", kernel_size)
    for name, value in numbers.items():
        _natural(name, value)
    if se not in SE_POSITIONS:
        raise choice_error("position of squeeze-and-excitation (se)", se, SE_POSITIONS)


def resolve_config(
    *,
    depths: Sequence[int] | None = None,
    widths: float | Sequence[float] | None = None,
    channels: Sequence[int] | None = None,
    strides: int | Sequence[int] | None = None,
    block: str | Sequence[str] = "basic",
    activations: str | Sequence[str] = "ReLU",
    normalizations: str | Sequence[str] = "BatchNorm",
    kernel_sizes: int | Sequence[int] = 3,
    scales: int | None = None,
    base_width: int | None = None,
    cardinality: int | None = None,
    se_reduction: int | None = None,
    se: str | None = None,
    pre_process: bool = False,
    in_channels: int = 3,
    num_classes: int = 10,
    stem_stride: int = 1,
    use_init: bool = True,
) -> PreActResNetConfig:
    """Check the options of `robustray.models.catalogue.resnets.preact_resnet` and complete them.

    Raises
    ------
    ModelError
        For the first option that is wrong; says what is allowed (a ``ValueError``).
    """
    depths = (4, 4, 4) if depths is None else depths
    if isinstance(depths, str) or not isinstance(depths, Sequence) or not depths:
        raise ModelError(f"depths: {depths!r} is not a list of blocks, one number for each stage")
    stages = len(depths)
    strides = (1,) + (2,) * (stages - 1) if strides is None else strides
    for name, flag in (("pre_process", pre_process), ("use_init", use_init)):
        if not isinstance(flag, bool):
            raise ModelError(f"{name}: {flag!r} is neither true nor false")
    if pre_process and in_channels != 3:
        raise ModelError(f"pre_process: its constants are those of 3 channels, not {in_channels}")
    blocks = _names("block", "block", block, stages, BLOCKS)
    return PreActResNetConfig(
        depths=tuple(_natural("depths", d) for d in depths),
        channels=_channels(widths, channels, stages),
        strides=tuple(_natural("strides", s) for s in _per_stage("strides", strides, stages)),
        kernel_sizes=tuple(
            _odd("kernel_sizes", k) for k in _per_stage("kernel_sizes", kernel_sizes, stages)
        ),
        blocks=blocks,
        activations=_names("activations", "activation", activations, stages, tuple(ACTIVATIONS)),
        normalizations=_names(
            "normalizations", "normalization", normalizations, stages, tuple(NORMALIZATIONS)
        ),
        robust=_robust(
            blocks,
            se,
            scales=scales,
            base_width=base_width,
            cardinality=cardinality,
            se_reduction=se_reduction,
        ),
        pre_process=pre_process,
        in_channels=_natural("in_channels", in_channels),
        num_classes=_natural("num_classes", num_classes),
        stem_stride=_natural("stem_stride", stem_stride),
        use_init=use_init,
    )
