"""Networks of timm (pytorch-image-models): ``timm:resnet50.a1_in1k``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import override

from robustray.errors import ManifestError, ModelError
from robustray.models.declared import InputFacts
from robustray.models.libraries.library import Library, Weights, prepare
from robustray.models.registry import Entry
from robustray.words import unknown


class Timm(Library):
    """Names are timm's, with or without the tag of the weights.

    Arguments are those of timm's function for the network, such as ``drop_path_rate``,
    ``depths`` or ``img_size``; ``trained: false`` leaves its weights random.
    """

    prefix = "timm"
    packages = ("timm",)
    command = "pip install 'robustray[timm]'"

    @override
    def find(self, name: str) -> Entry:
        self._settings(name)
        return _entry(name)

    @override
    def names(self) -> list[str]:
        timm = self.module("timm")
        return sorted({*timm.list_models(), *timm.list_models(include_tags=True)})

    @override
    def input(self, name: str, options: Mapping[str, Any]) -> InputFacts:
        sizes = {key: value for key, value in options.items() if key == "img_size"}
        found = self.module("timm.data").resolve_data_config(
            args=sizes, pretrained_cfg=self._settings(name)
        )
        size: tuple[int, int] = tuple(found["input_size"][1:])
        share = found["crop_pct"]
        # timm rounds down, and squashes images where its configuration says so.
        edges = tuple(math.floor(edge / share) for edge in size)
        squashed = found["crop_mode"] == "squash" or edges[0] != edges[1]
        return InputFacts(
            size=size,
            resize=(edges[0], edges[1]) if squashed else edges[0],
            crop_pct=share,
            interpolation=found["interpolation"],
            mean=tuple(found["mean"]),
            std=tuple(found["std"]),
        )

    @override
    def fetch(self, name: str, options: Mapping[str, Any]) -> Weights:
        settings = self._settings(name)
        if settings.get("hf_hub_id"):
            return Weights(self._from_hub(name, settings))
        if url := settings.get("url"):
            return Weights(self.download(name, url))
        raise ManifestError(
            f"timm publishes no weights of {name}; name a file (weights: FILE), or set "
            "trained: false"
        )

    def _from_hub(self, name: str, settings: Mapping[str, Any]) -> Path:
        hub = self.module("huggingface_hub")
        try:
            return Path(
                hub.hf_hub_download(
                    settings["hf_hub_id"],
                    settings.get("hf_hub_filename") or "model.safetensors",
                )
            )
        except (OSError, ValueError) as error:
            raise self.away(name, error) from error

    def _settings(self, name: str) -> dict[str, Any]:
        """Return timm's record of a network.

        Raises
        ------
        ManifestError
            If timm has none of this name, or this tag.
        """
        timm = self.module("timm")
        arch, dot, _ = name.partition(".")
        if not timm.is_model(arch):
            words = unknown("network of timm", arch, timm.list_models()).partition(" Allowed: ")[0]
            raise ManifestError(f"{words} `robustray models 'timm:*'` lists them all")
        tagged = timm.list_models(f"{arch}.*", include_tags=True)
        if dot and name not in tagged:
            raise ManifestError(unknown("network of timm", name, [arch, *tagged]))
        found = timm.get_pretrained_cfg(name)
        if found is None:
            raise ManifestError(f"timm records nothing of the input of {name}")
        return found.to_dict()


LIBRARY = Timm()


def find_input(name: str, options: Mapping[str, Any]) -> InputFacts:
    """Return how images are prepared for one of timm's models, or of those added to them."""
    return LIBRARY.input(name, options)


@cache
def _entry(name: str) -> Entry:
    def build(
        num_classes: int = 1000, in_channels: int = 3, *, trained: bool = True, **options: Any
    ) -> nn.Module:
        """Network of timm."""
        if trained and in_channels != 3:
            raise ModelError(
                f"the weights of timm:{name} are for 3 channels, and these images have "
                f"{in_channels}; trained: false begins with random ones"
            )
        facts = LIBRARY.input(name, options)
        if in_channels != 3:  # its constants are those of photographs
            facts = replace(facts, mean=(), std=())
        network = LIBRARY.module("timm").create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **options
        )
        prepare(network, facts.mean, facts.std)
        return LIBRARY.load(name, network, options, trained=trained)

    return Entry(f"timm:{name}", build)
