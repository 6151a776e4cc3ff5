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

_CROPS = ("center", "squash")
# Arguments of timm's function that are none of a network's: files, addresses, other outputs.
_REFUSED = {
    "model_name", "checkpoint_path", "cache_dir", "features_only", "feature_cfg", "out_indices",
    "scriptable", "exportable", "no_jit", "in_chans", "model_cfg", "kwargs_filter", "device",
    "dtype",
}  # fmt: skip


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
        return read_settings(f"timm:{name}", self._settings(name), options)

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


def read_settings(name: str, settings: Mapping[str, Any], options: Mapping[str, Any]) -> InputFacts:
    """Return how images are prepared for a network, from timm's record of it.

    Parameters
    ----------
    name : str
        Of the network, for messages.
    settings : mapping
        The record.
    options : mapping
        Arguments of the network; ``img_size`` is looked at.

    Raises
    ------
    ManifestError
        If images are to be prepared in a way that robustray has not, or ``img_size`` is no size.
    """
    edges = _read_size(options.get("img_size"))
    found = LIBRARY.module("timm.data").resolve_data_config(
        args={"input_size": (3, *edges)} if edges else {}, pretrained_cfg=dict(settings)
    )
    if found["crop_mode"] not in _CROPS:
        raise ManifestError(
            f"{name} prepares images by the crop mode {found['crop_mode']!r}; robustray has "
            f"{' and '.join(_CROPS)}"
        )
    size: tuple[int, int] = tuple(found["input_size"][1:])
    share = found["crop_pct"]
    # timm rounds down, and squashes images where its configuration says so.
    enlarged = tuple(math.floor(edge / share) for edge in size)
    squashed = found["crop_mode"] == "squash" or enlarged[0] != enlarged[1]
    return InputFacts(
        size=size,
        resize=(enlarged[0], enlarged[1]) if squashed else enlarged[0],
        crop_pct=share,
        interpolation=found["interpolation"],
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
    )


def build_network(
    name: str, arch: str, options: Mapping[str, Any], *, num_classes: int, in_chans: int
) -> nn.Module:
    """Build one of timm's networks with random weights.

    Raises
    ------
    ManifestError
        For an argument that is none of the network's own: timm's function has some that read and
        download files.
    """
    for key in options:
        if key in _REFUSED or key.startswith("pretrained"):
            raise ManifestError(f"{name}: {key} is no argument that robustray passes on")
    _read_size(options.get("img_size"))
    return LIBRARY.module("timm").create_model(
        arch,
        **{**options, "pretrained": False, "num_classes": num_classes, "in_chans": in_chans},
    )


def _read_size(given: Any) -> tuple[int, int] | None:
    """Return height and width from ``img_size``."""
    if given is None:
        return None
    edges = list(given) if isinstance(given, list | tuple) else [given, given]
    if len(edges) != 2 or not all(type(edge) is int and edge > 0 for edge in edges):
        raise ManifestError(
            f"must be a whole number above 0, or two of them (got {given!r})",
            path="arguments.img_size",
        )
    return edges[0], edges[1]


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
        network = build_network(
            f"timm:{name}", name, options, num_classes=num_classes, in_chans=in_channels
        )
        prepare(network, facts.mean, facts.std)
        return LIBRARY.load(name, network, options, trained=trained)

    return Entry(f"timm:{name}", build)
