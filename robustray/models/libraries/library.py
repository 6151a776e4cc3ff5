"""What an adapter of a library is, and what all of them share."""

from __future__ import annotations

import hashlib
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from robustray.errors import ManifestError, ModelError
from robustray.models.architectures.layers import Standardize
from robustray.models.declared import InputFacts
from robustray.models.registry import Entry
from robustray.models.weights.files import load_weights

_DIGITS = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
_WHERE = "; name a file of its weights instead (weights: FILE)"


@dataclass(frozen=True)
class Weights:
    """A library's published weights on this machine.

    Attributes
    ----------
    path : Path
        The file.
    format : str
        As in `robustray.models.load_weights`.
    """

    path: Path
    format: str = "auto"


@dataclass(frozen=True)
class Published:
    """What a library publishes of a network, in shares of 1.

    Attributes
    ----------
    data, norm, eps : str, str or None, float or None
        The data set by robustray's name, and the threat model; None: none that robustray has.
    clean, robust : float or None
        Accuracies.
    source : str
        Who says so: "robustbench 1.1.1".
    """

    data: str
    norm: str | None
    eps: float | None
    clean: float | None
    robust: float | None
    source: str


class Library(ABC):
    """An adapter: what `robustray.registry.Registry` asks about the names below a prefix.

    The ``options`` that its methods take are the arguments of a manifest. ``num_classes`` may be
    among them, where a name stands for networks of several data sets.

    Attributes
    ----------
    prefix : str
        Of its names.
    packages : tuple of str
        The distributions whose versions decide what a name stands for.
    command : str
        Installs what is missing.
    """

    prefix: str
    packages: tuple[str, ...]
    command: str

    @abstractmethod
    def find(self, name: str) -> Entry:
        """Return a network's entry; its ``build`` takes ``num_classes`` and ``in_channels``.

        Raises
        ------
        ManifestError
            If the library is missing, or has no such network.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of its networks, without the prefix; none where it is a hub."""

    @abstractmethod
    def input(self, name: str, options: Mapping[str, Any]) -> InputFacts:
        """Return how images are prepared; see `robustray.models.declared_input`."""

    @abstractmethod
    def fetch(self, name: str, options: Mapping[str, Any]) -> Weights:
        """Return the published weights, downloaded where they are not here.

        Raises
        ------
        ManifestError
            If there are none, or they can't be had.
        """

    def published(self, name: str, options: Mapping[str, Any]) -> Published | None:
        """Return published accuracies, or None where the library has none."""
        return None

    def versions(self) -> dict[str, str]:
        """Return the versions of its packages, as far as they are installed."""
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError as error:
                raise self._missing(str(error)) from error
        return found

    def module(self, name: str) -> ModuleType:
        """Import a module of the library.

        Raises
        ------
        ManifestError
            If it, or what it needs, is not installed; says what installs it.
        """
        try:
            return importlib.import_module(name)
        except (ImportError, RuntimeError, AttributeError) as error:
            raise self._missing(f"{type(error).__name__}: {error}") from error

    def load(
        self, name: str, network: nn.Module, options: Mapping[str, Any], *, trained: bool
    ) -> nn.Module:
        """Load the published weights into a network, if wanted; on the meta device it has none.

        Raises
        ------
        ManifestError
            If they can't be had, or do not fit.
        """
        if trained and not any(tensor.is_meta for tensor in network.parameters()):
            found = self.fetch(name, options)
            try:
                load_weights(network, found.path, found.format)
            except ModelError as error:
                raise ManifestError(
                    f"{self.prefix}:{name}: the published weights do not fit; with trained: false "
                    f"it begins with random ones. {error}"
                ) from error
        return network

    def download(self, name: str, url: str) -> Path:
        """Return a file of torch's cache, downloaded if it is not there.

        Digits of a SHA-256 that end the file's name, as PyTorch has them, are checked.

        Raises
        ------
        ManifestError
            If it can't be had, or has another digest.
        """
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        digits = _DIGITS.search(path.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                torch.hub.download_url_to_file(url, str(path), digits and digits[1], progress=False)
        except (OSError, RuntimeError) as error:
            raise self.away(name, error) from error
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digits and not digest.startswith(digits[1]):
            raise self.away(name, f"{path} has SHA-256 {digest}, not {digits[1]}...; delete it")
        return path

    def away(self, name: str, error: Exception | str) -> ManifestError:
        """Return the error for published weights that can't be had."""
        return ManifestError(f"{self.prefix}:{name} can't be downloaded: {error}{_WHERE}")

    def _missing(self, why: str) -> ManifestError:
        return ManifestError(
            f"networks called {self.prefix}:... need {self.packages[0]}, which can't be used here "
            f"({why}). Install it: {self.command}"
        )


def prepare(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let a network take pixels in [0, 1] and return logits; its state dict keeps its names.

    Its input is standardised first, unless ``mean`` is empty. An output that is an object with
    logits (as classifiers of transformers return, and some of torchvision's in training) counts
    as these.
    """
    if mean:
        network.add_module("pre_process", Standardize(tuple(mean), tuple(std)))
        network.register_forward_pre_hook(_standardise)
    network.register_forward_hook(_take_logits)


def _standardise(network: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    pre_process = network.get_submodule("pre_process")
    return pre_process(given[0]), *given[1:]


def _take_logits(network: nn.Module, given: tuple[Tensor, ...], answer: Any) -> Any:
    return logits_of(answer)


def logits_of(answer: Any) -> Any:
    """Return the ``logits`` of an answer that has some; any other answer as it is."""
    found = None if isinstance(answer, Tensor) else getattr(answer, "logits", None)
    return found if isinstance(found, Tensor) else answer


class TakesLogits(nn.Module):
    """A network whose output is an object; its ``logits`` are what counts.

    Parameters
    ----------
    network : nn.Module
        Images (B, C, H, W) to such objects.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        return logits_of(self.network(x))


def refuse_channels(library: str, name: str, in_channels: int) -> None:
    """Refuse images of other than 3 channels.

    Raises
    ------
    ModelError
        Names the library.
    """
    if in_channels != 3:
        raise ModelError(
            f"{library}:{name} takes images of 3 channels, and these have {in_channels}; the "
            f"library's function has no option for that"
        )
