"""Entry points of the networks that adaptive smoothing mixes, and of the mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Unpack

from robustray.errors import ModelError, choice_error
from robustray.manifest.fields import Channels, Depth, Depths, Pixels, SectionOf
from robustray.manifest.network import MixingNetworkConfig, MixtureConstants, ModelConfig
from robustray.models.architectures.bit_resnet import BitResNet
from robustray.models.architectures.cifar_resnet import (
    PRESETS,
    CifarResNet,
    CohenResNet,
    MixingNetwork,
    PlainPreActResNet,
)
from robustray.models.architectures.composite import PUBLISHED, Composite, Constants
from robustray.models.architectures.dm_wide_resnet import DmWideResNet, TradesWideResNet
from robustray.models.options import Sizes, WithPreProcess
from robustray.models.registry import (
    ADAPTIVE_SMOOTHING,
    BIT,
    RESNETS,
    SMOOTHING,
    TRADES,
    UNCOVERING,
    create_model,
    register,
)


class _WithConstants(Sizes, total=False):
    constants: str


class _Trades(_WithConstants, total=False):
    sub_block: bool


class _Small(WithPreProcess, total=False):
    width: Channels
    constants: str


class _PlainPreAct(_WithConstants, total=False):
    width: Channels
    last_norm: bool
    activated_skips: bool


@register(paper=BIT)
def bit_r50x1(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-50 of width 1."""
    return BitResNet((3, 4, 6, 3), 1, **options)


@register(paper=BIT)
def bit_r50x3(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-50 of width 3."""
    return BitResNet((3, 4, 6, 3), 3, **options)


@register(paper=BIT)
def bit_r101x1(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-101 of width 1."""
    return BitResNet((3, 4, 23, 3), 1, **options)


@register(paper=BIT)
def bit_r101x3(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-101 of width 3."""
    return BitResNet((3, 4, 23, 3), 3, **options)


@register(paper=BIT)
def bit_r152x2(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-152 of width 2: the accurate base of the published composites."""
    return BitResNet((3, 8, 36, 3), 2, **options)


@register(paper=BIT)
def bit_r152x4(**options: Unpack[Sizes]) -> BitResNet:
    """BiT ResNet-152 of width 4."""
    return BitResNet((3, 8, 36, 3), 4, **options)


@register(paper=BIT)
def bit_resnet(
    *, depths: Depths = (1, 1, 1, 1), width: Channels = 1, **options: Unpack[Sizes]
) -> BitResNet:
    """BiT ResNet of any size: bottlenecks in each of its blocks, and the factor of its width."""
    return BitResNet(depths, width, **options)


@register(paper=UNCOVERING)
def dm_wrn_70_16(*, activations: str = "SiLU", **options: Unpack[_WithConstants]) -> DmWideResNet:
    """DeepMind's WRN-70-16: the robust base of the published composites."""
    return DmWideResNet(70, 16, activations, **options)


@register(paper=UNCOVERING)
def dm_wrn_28_10(*, activations: str = "SiLU", **options: Unpack[_WithConstants]) -> DmWideResNet:
    """DeepMind's WRN-28-10."""
    return DmWideResNet(28, 10, activations, **options)


@register(paper=UNCOVERING)
def dm_wrn(
    *,
    depth: Depth = 28,
    width: Channels = 10,
    activations: str = "SiLU",
    **options: Unpack[_WithConstants],
) -> DmWideResNet:
    """DeepMind's wide residual network of any size: depth 6 n + 4."""
    return DmWideResNet(depth, width, activations, **options)


@register(paper=TRADES)
def trades_wrn(
    *, depth: Depth = 34, width: Channels = 10, **options: Unpack[_Trades]
) -> TradesWideResNet:
    """Wide residual network of the TRADES code, of any size: depth 6 n + 4."""
    return TradesWideResNet(depth, width, **options)


@register(paper=SMOOTHING)
def smoothing_resnet20(**options: Unpack[Sizes]) -> CohenResNet:
    """ResNet-20 of randomised smoothing, behind its own standardisation."""
    return CohenResNet(20, **options)


@register(paper=SMOOTHING)
def smoothing_resnet110(**options: Unpack[Sizes]) -> CohenResNet:
    """ResNet-110 of randomised smoothing, behind its own standardisation."""
    return CohenResNet(110, **options)


@register(paper=TRADES)
def trades_wrn_34_10(**options: Unpack[_Trades]) -> TradesWideResNet:
    """WRN-34-10 of the TRADES code, with its unused copy of the first group."""
    return TradesWideResNet(34, 10, **options)


@register(paper=RESNETS)
def cifar_resnet18(*, depths: Depths = (2, 2, 2, 2), **options: Unpack[_Small]) -> CifarResNet:
    """ResNet-18 for 32-pixel images."""
    return CifarResNet("postact", depths, **options)


@register(paper=RESNETS)
def cifar_preact_resnet18(
    *, depths: Depths = (2, 2, 2, 2), **options: Unpack[_Small]
) -> CifarResNet:
    """Pre-activation ResNet-18 for 32-pixel images, without a last normalisation."""
    return CifarResNet("preact", depths, **options)


@register(paper=RESNETS)
def plain_preact_resnet18(
    *, depths: Depths = (2, 2, 2, 2), **options: Unpack[_PlainPreAct]
) -> PlainPreActResNet:
    """Pre-activation ResNet-18 as published for fast and early-stopped adversarial training."""
    return PlainPreActResNet(depths, **options)


_BIT_SIZE = 128  # pixels that BiT networks get for 32-pixel images


_Base = Annotated[Mapping[str, Any], SectionOf(ModelConfig)]
_Mixing = Annotated[Mapping[str, Any], SectionOf(MixingNetworkConfig)]
_Constants = Annotated[Mapping[str, float | None], SectionOf(MixtureConstants)]


@register(paper=ADAPTIVE_SMOOTHING)
def adaptive_smoothing(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    preset: str | None = None,
    accurate: _Base | None = None,
    robust: _Base | None = None,
    mixing: _Mixing | None = None,
    use_policy: bool = True,
    constants: _Constants | None = None,
    policy_graph: bool = True,
    resize: Pixels | None = None,
) -> Composite:
    """Mixed classifier: an accurate and a robust network, weighed for each image by a third.

    Parameters
    ----------
    num_classes, in_channels : int
        Of both bases.
    preset : str, optional
        A key of ``PUBLISHED``: its bases and constants, where they are not given.
    accurate, robust : mapping, optional
        The bases: a ``name`` of the catalogue and its options. Default: BiT-M-R152x2 and
        WRN-70-16, as published.
    mixing : mapping, optional
        ``version`` (3 or 4), and four channels for each base (``accurate``, ``robust``).
    use_policy : bool
        Without it the weight is sigmoid(constants.gamma) for all images.
    constants : mapping, optional
        Fields of `Constants`; the others are the preset's, or their defaults.
    policy_graph : bool
        Whether input gradients go through the mixing network's features too.
    resize : int, optional
        Size of the accurate base's images; 128 for BiT networks.

    Raises
    ------
    ModelError
        For a base that can't be mixed, and wrong options (a ``ValueError``).
    """
    if preset is not None and preset not in PUBLISHED:
        raise choice_error("preset", preset, sorted(PUBLISHED))
    first: dict[str, Any] = dict(accurate or {"name": "bit_r152x2"})
    second: dict[str, Any] = dict(robust or {"name": "dm_wrn_70_16"})
    given = {key: value for key, value in (constants or {}).items() if value is not None}
    chosen = (vars(PUBLISHED[preset]) if preset else {}) | given
    bases = [
        create_model(**{**base, "num_classes": num_classes, "in_channels": in_channels})
        for base in (first, second)
    ]
    if resize is None and str(first["name"]).startswith("bit_"):
        resize = _BIT_SIZE
    return Composite(
        bases[0],
        bases[1],
        _mixing(bases, **(mixing or {})) if use_policy else None,
        constants=Constants(**chosen),
        policy_graph=policy_graph,
        resize=resize,
    )


def _mixing(bases: list[Any], version: Any = 4, **channels: Any) -> MixingNetwork:
    """Return a mixing network that fits the features of two bases."""
    unknown = set(channels) - {"accurate", "robust"}
    if unknown:
        raise choice_error("option of mixing", min(unknown), ("version", "accurate", "robust"))
    second = 0
    for base, role in zip(bases, ("accurate", "robust"), strict=True):
        if not hasattr(base, "feature_channels"):
            raise ModelError(f"the {role} base has no features that a mixing network could see")
        first = base.feature_channels[0]
        second += base.feature_channels[1]
        if channels.get(role) is None:
            channels[role] = PRESETS.get(first, (first, 2 * first, 4 * first, 8 * first))
    return MixingNetwork(**channels, second=second, version=version)
