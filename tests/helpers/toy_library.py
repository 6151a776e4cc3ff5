"""A library of networks that is always here, for tests of what all libraries share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from typing_extensions import override

from robustray.errors import ManifestError
from robustray.models.declared import InputFacts
from robustray.models.libraries.library import Library, Published, Weights, prepare
from robustray.models.registry import Entry


class Answer:
    """What some networks return."""

    def __init__(self, logits: Any) -> None:
        self.logits = logits


class Small(nn.Module):
    def __init__(self, classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return Answer(self.fc(self.conv(x).relu().mean((2, 3))))


class Toy(Library):
    prefix, packages, command = "toy", ("toy",), "pip install toy"
    version = "1"
    files: ClassVar[dict[str, Path]] = {}

    @override
    def find(self, name: str) -> Entry:
        if name not in self.names():
            raise ManifestError(f"no {name}")

        def build(
            num_classes: int = 10, in_channels: int = 1, *, trained: bool = True, width: int = 4
        ) -> nn.Module:
            facts = self.input(name, {})
            network = Small(num_classes, in_channels, width)
            prepare(network, facts.mean, facts.std)
            return self.load(name, network, {}, trained=trained)

        return Entry(f"toy:{name}", build)

    @override
    def names(self) -> list[str]:
        return ["small"]

    @override
    def input(self, name: str, options: Mapping[str, Any]) -> InputFacts:
        return InputFacts((8, 8), 9, 8 / 9, "bilinear", (0.5,), (0.25,))

    @override
    def fetch(self, name: str, options: Mapping[str, Any]) -> Weights:
        if name not in self.files:
            raise self.away(name, "no network")
        return Weights(self.files[name])

    @override
    def published(self, name: str, options: Mapping[str, Any]) -> Published:
        return Published("digits", "linf", 0.1, 0.9, 0.5, "toy 1")

    @override
    def versions(self) -> dict[str, str]:
        return {"toy": self.version}


LIBRARY = Toy()
