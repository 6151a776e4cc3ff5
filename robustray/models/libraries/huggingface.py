"""Image classifiers of a hub: ``hf:OWNER/REPO``, at a commit.

Two forms of repositories are read: those of transformers (``config.json`` names a model type that
transformers itself has) and those of timm (``config.json`` has an ``architecture``). Code in a
repository is never run, and no other file of weights than safetensors is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import override

from robustray.errors import ManifestError
from robustray.models.declared import InputFacts
from robustray.models.libraries.library import Library, Weights, prepare, refuse_channels
from robustray.models.registry import Entry

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONFIG, _PROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
# PIL's numbers of its filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


class HuggingFace(Library):
    """Names are ``OWNER/REPO``.

    ``commit`` (40 hexadecimal digits) is needed: a branch may mean other files tomorrow.
    ``trained: false`` leaves the weights random.
    """

    prefix = "hf"
    packages = ("transformers", "huggingface_hub", "timm")
    command = "pip install 'robustray[hf]'"

    @override
    def find(self, name: str) -> Entry:
        if not _NAME.fullmatch(name):
            raise ManifestError(f"hf:{name}: a name is hf:OWNER/REPO")
        return _entry(name)

    @override
    def names(self) -> list[str]:
        return []

    @override
    def input(self, name: str, options: Mapping[str, Any]) -> InputFacts:
        config = self.config(name, options)
        if "architecture" in config:
            return _of_timm(config.get("pretrained_cfg", config))
        return _of_processor(self._read(name, options, _PROCESSOR))

    @override
    def fetch(self, name: str, options: Mapping[str, Any]) -> Weights:
        return Weights(self._file(name, options, _WEIGHTS))

    def config(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``config.json`` of a commit.

        Raises
        ------
        ManifestError
            If it can't be had, is no mapping, or wants code of the repository.
        """
        config = self._read(name, options, _CONFIG)
        if config.get("auto_map"):
            raise ManifestError(
                f"hf:{name} needs code from its repository, which is never run; write the network "
                "as a function of your own (package.module:name)"
            )
        return config

    def _read(self, name: str, options: Mapping[str, Any], file: str) -> dict[str, Any]:
        path = self._file(name, options, file)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ManifestError(f"hf:{name}: {file} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise ManifestError(f"hf:{name}: {file} is no mapping")
        return found

    def _file(self, name: str, options: Mapping[str, Any], file: str) -> Path:
        commit = options.get("commit")
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise ManifestError(
                f"hf:{name} needs the commit that is meant, 40 hexadecimal digits "
                f"(got {commit!r}); the repository's page lists them",
                path="arguments.commit",
            )
        hub = self.module("huggingface_hub")
        try:
            return Path(hub.hf_hub_download(name, file, revision=commit))
        except (OSError, ValueError) as error:
            raise self.away(name, f"{file}: {error}") from error


LIBRARY = HuggingFace()


def _of_timm(settings: Mapping[str, Any]) -> InputFacts:
    height, width = settings["input_size"][1:]
    share = settings.get("crop_pct") or 0.875
    return InputFacts(
        (height, width),
        int(height / share),
        share,
        settings.get("interpolation") or "bicubic",
        tuple(settings["mean"]),
        tuple(settings["std"]),
    )


def _of_processor(settings: Mapping[str, Any]) -> InputFacts:
    """Read what transformers' image processors are configured to do."""
    size: Any = settings.get("size", 224)
    crop: Any = settings.get("crop_size") if settings.get("do_center_crop") else None
    resize: int | tuple[int, int] | None
    if isinstance(size, dict):
        resize = size.get("shortest_edge") or (size["height"], size["width"])
    else:
        resize = (size, size)
    if not settings.get("do_resize", True):
        resize = None
    cut = crop if crop is not None else (resize if resize is not None else 224)
    if isinstance(cut, dict):
        cut = (cut["height"], cut["width"]) if "height" in cut else cut["shortest_edge"]
    if isinstance(cut, int):
        cut = (cut, cut)
    share = settings.get("crop_pct")
    if share and isinstance(resize, int):  # ConvNeXt: the edge is that of the cut
        cut, resize = (resize, resize), int(resize / share)
    kept = cut[0] / resize if isinstance(resize, int) else 1.0
    mean = settings.get("image_mean") if settings.get("do_normalize", True) else None
    return InputFacts(
        (int(cut[0]), int(cut[1])),
        resize,
        kept,
        _FILTERS.get(settings.get("resample", 2), "bilinear"),
        tuple(mean or ()),
        tuple(settings["image_std"]) if mean else (),
    )


@cache
def _entry(name: str) -> Entry:
    def build(
        num_classes: int | None = None,
        in_channels: int = 3,
        *,
        commit: str,
        trained: bool = True,
    ) -> nn.Module:
        """Image classifier of a hub."""
        refuse_channels("hf", name, in_channels)
        options = {"commit": commit}
        config, facts = LIBRARY.config(name, options), LIBRARY.input(name, options)
        if "architecture" in config:
            network = _build_timm(config, num_classes)
        else:
            network = _build_transformer(name, config, num_classes)
        prepare(network, facts.mean, facts.std)
        return LIBRARY.load(name, network, options, trained=trained)

    return Entry(f"hf:{name}", build)


def _build_timm(config: Mapping[str, Any], num_classes: int | None) -> nn.Module:
    return LIBRARY.module("timm").create_model(
        config["architecture"],
        pretrained=False,
        num_classes=num_classes or config.get("num_classes", 1000),
        **config.get("model_args", {}),
    )


def _build_transformer(name: str, config: dict[str, Any], num_classes: int | None) -> nn.Module:
    library = LIBRARY.module("transformers")
    try:
        settings = library.AutoConfig.for_model(**config)
    except (ValueError, TypeError) as error:
        raise ManifestError(f"hf:{name}: transformers has no such model: {error}") from error
    if num_classes is not None and num_classes != settings.num_labels:
        settings.num_labels = num_classes
    return library.AutoModelForImageClassification.from_config(settings)
