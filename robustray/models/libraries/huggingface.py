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
from robustray.models.libraries.processors import read_processor
from robustray.models.libraries.timm import build_network, read_settings
from robustray.models.registry import Entry

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONFIG, _PROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
# Settings of transformers that name a type of numbers, which is ours, and code that may be fetched.
_DTYPES = ("dtype", "torch_dtype")
_CODE = ("attn_implementation", "_attn_implementation", "experts_implementation")
_OWN_CODE = (None, "eager", "sdpa")


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
        if _is_timms(config):
            return read_settings(
                f"hf:{name}", config.get("pretrained_cfg") or config, config.get("model_args") or {}
            )
        return read_processor(
            name,
            self._read(name, options, _PROCESSOR),
            config.get("model_type"),
            self.module("transformers"),
        )

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
        config = LIBRARY.config(name, options)
        if _is_timms(config):
            network = _build_timm(name, config, num_classes)
        else:
            network = _build_transformer(name, config, num_classes)
        facts = LIBRARY.input(name, options)
        prepare(network, facts.mean, facts.std)
        return LIBRARY.load(name, network, options, trained=trained)

    return Entry(f"hf:{name}", build)


def _is_timms(config: Mapping[str, Any]) -> bool:
    """Tell whether timm builds a network; transformers has a class that wraps timm's."""
    return "architecture" in config or config.get("model_type") == "timm_wrapper"


def _build_timm(name: str, config: Mapping[str, Any], num_classes: int | None) -> nn.Module:
    timm, arch = LIBRARY.module("timm"), config.get("architecture")
    if not isinstance(arch, str) or not timm.is_model(arch):
        raise ManifestError(f"hf:{name}: architecture {arch!r} is none of timm's")
    given = config.get("model_args") or {}
    return build_network(
        f"hf:{name}",
        arch,
        given,
        num_classes=num_classes or given.get("num_classes") or config.get("num_classes", 1000),
        in_chans=3,
    )


def _build_transformer(name: str, config: dict[str, Any], num_classes: int | None) -> nn.Module:
    library = LIBRARY.module("transformers")
    try:
        settings = library.AutoConfig.for_model(**_plain(name, config))
    except (ValueError, TypeError) as error:
        raise ManifestError(f"hf:{name}: transformers has no such model: {error}") from error
    if num_classes is not None and num_classes != settings.num_labels:
        settings.num_labels = num_classes
    network = library.AutoModelForImageClassification.from_config(settings)
    network.published_names = _published_names(network)
    return network


def _plain(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without types of numbers: all networks are built in float32.

    Raises
    ------
    ManifestError
        If they name code of another repository, or quantised weights.
    """
    found = {}
    for key, value in settings.items():
        if (key in _CODE and value not in _OWN_CODE) or (key == "quantization_config" and value):
            raise ManifestError(f"hf:{name}: {key} in {_CONFIG} is {value!r}, which is never used")
        if key not in _DTYPES:
            found[key] = _plain(name, value) if isinstance(value, dict) else value
    return found


def _published_names(network: nn.Module) -> dict[str, str]:
    """Return ours for names in files, where transformers has renamed modules since.

    It saves under the names that the files have had all along. What it would also compute anew is
    left out.
    """
    try:
        revert = LIBRARY.module("transformers.core_model_loading").revert_weight_conversion
    except (ManifestError, AttributeError):  # version 4 has its modules under these very names
        return {}
    state = network.state_dict()
    ours = {id(tensor): name for name, tensor in state.items()}
    pairs = {theirs: ours.get(id(tensor)) for theirs, tensor in revert(network, state).items()}
    return {theirs: own for theirs, own in pairs.items() if own and theirs not in state}
