"""Classifiers of torchvision: ``torchvision:convnext_tiny``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn
from typing_extensions import override

from robustray.errors import ManifestError
from robustray.models.declared import InputFacts
from robustray.models.libraries.library import Library, Weights, prepare, refuse_channels
from robustray.models.registry import Entry
from robustray.words import unknown

_OTHER_CONSTANTS = ("googlenet", "inception_v3")


class Torchvision(Library):
    """Names are those of torchvision's functions.

    Arguments are those of the function, such as ``dropout`` or ``stochastic_depth_prob``;
    ``published`` names one of its sets of weights ("IMAGENET1K_V1"), ``trained: false`` leaves
    its weights random.
    """

    prefix = "torchvision"
    packages = ("torchvision",)
    command = "pip install torchvision, of the version that belongs to the installed torch"

    @override
    def find(self, name: str) -> Entry:
        self._check(name)
        return _entry(name)

    @override
    def names(self) -> list[str]:
        models = self.module("torchvision.models")
        return models.list_models(module=models)

    @override
    def input(self, name: str, options: Mapping[str, Any]) -> InputFacts:
        steps = self._weights(name, options).transforms()
        (size,), (resize,) = steps.crop_size, steps.resize_size
        return InputFacts(
            size=(size, size),
            resize=resize,
            crop_pct=size / resize,
            interpolation=steps.interpolation.value,
            mean=tuple(steps.mean),
            std=tuple(steps.std),
        )

    @override
    def fetch(self, name: str, options: Mapping[str, Any]) -> Weights:
        return Weights(self.download(name, self._weights(name, options).url))

    def arguments(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that torchvision's function sets where it loads its weights.

        The weights fit no other network: two get their images standardised by other constants,
        those of the networks from which the weights were taken over; vision transformers have a
        position for each patch.
        """
        if name in _OTHER_CONSTANTS:
            return {"transform_input": True}
        if name.startswith("vit_"):
            return {"image_size": self._weights(name, options).meta["min_size"][0]}
        return {}

    def _weights(self, name: str, options: Mapping[str, Any]) -> Any:
        self._check(name)
        known = self.module("torchvision.models").get_model_weights(name)
        wanted = options.get("published")
        if wanted is None:
            return known.DEFAULT
        if not isinstance(wanted, str) or wanted not in known.__members__:
            raise ManifestError(
                unknown(f"set of weights of torchvision:{name}", wanted, known.__members__),
                path="arguments.published",
            )
        return known[wanted]

    def _check(self, name: str) -> None:
        if name not in (names := self.names()):
            raise ManifestError(unknown("network of torchvision", name, names))


LIBRARY = Torchvision()


@cache
def _entry(name: str) -> Entry:
    def build(
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        trained: bool = True,
        published: str | None = None,
        **options: Any,
    ) -> nn.Module:
        """Network of torchvision."""
        refuse_channels("torchvision", name, in_channels)
        given = {"published": published}
        facts = LIBRARY.input(name, given)
        options = {**LIBRARY.arguments(name, given), **options}
        network = LIBRARY.module("torchvision.models").get_model(
            name, weights=None, num_classes=num_classes, **options
        )
        prepare(network, facts.mean, facts.std)
        return LIBRARY.load(name, network, given, trained=trained)

    return Entry(f"torchvision:{name}", build)
