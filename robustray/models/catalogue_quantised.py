"""Entry points of the Robust-Model-Zoo: quantised networks that normalise with batch statistics."""

from __future__ import annotations

from typing import Unpack

from robustray.manifest.fields import Channels, Depths, PositiveNumber
from robustray.models.options import Sizes
from robustray.models.quantised import Mode, QuantisedNetwork
from robustray.models.registry import PublishedWeights, register


class _Options(Sizes, total=False):
    mode: Mode
    quantise: bool
    alpha: PositiveNumber


_HIDDEN = (
    "Predictions depend on the batch: printed accuracies are of batches of 100 in file order. "
    "'Without BPDA' gradients are NaN, so that number is random starts and Square."
)


def _weights(model: str, **numbers: float) -> tuple[PublishedWeights, ...]:
    return (
        PublishedWeights(
            name="tf1",
            sources=("https://github.com/metinaktas/Robust-Model-Zoo",),
            licence="AGPL-3.0",
            data="CIFAR-10",
            numbers=tuple(numbers.items()),
            note=f"{model}: a TensorFlow 1 checkpoint (checkpoint-0), linked from its notebook. "
            + _HIDDEN,
        ),
    )


@register(
    parameters=43_911_430,
    macs=1_697_692_716,
    conv_linear_macs=1_695_895_296,
    corrections=(_HIDDEN,),
    weights=_weights("model_1", clean=77.10, without_bpda=62.20, with_bpda=53.30),
)
def robust_model_zoo_1(
    *, width: Channels = 48, depths: Depths = (2, 1, 2), **options: Unpack[_Options]
) -> QuantisedNetwork:
    """Robust-Model-Zoo, model 1: twelve quantisers, trios in all stages."""
    return QuantisedNetwork(width, depths, "trio", **options)


@register(
    parameters=25_916_422,
    macs=2_186_992_428,
    conv_linear_macs=2_184_269_568,
    corrections=(_HIDDEN,),
    weights=_weights("model_2", clean=69.30, without_bpda=49.70, with_bpda=43.10),
)
def robust_model_zoo_2(
    *, width: Channels = 48, depths: Depths = (5, 1, 5), **options: Unpack[_Options]
) -> QuantisedNetwork:
    """Robust-Model-Zoo, model 2: fourteen quantisers, plain residual units in the last stage."""
    return QuantisedNetwork(width, depths, "unit", **options)
