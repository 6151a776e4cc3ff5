"""Entry point of mixed classifiers: the published composites, and any two networks mixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from robustray.errors import ModelError, choice_error
from robustray.manifest.fields import Pixels, SectionOf
from robustray.manifest.schema import MixingNetworkConfig, MixtureConstants, ModelConfig
from robustray.models.architectures.composite import PUBLISHED, Composite, Constants
from robustray.models.architectures.mixing_network import PRESETS, MixingNetwork
from robustray.models.registry import ADAPTIVE_SMOOTHING, create_model, register

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
