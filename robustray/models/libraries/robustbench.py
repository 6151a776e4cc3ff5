"""Networks of RobustBench's model zoo: ``robustbench:Carmon2019Unlabeled``.

Croce et al., "RobustBench: a standardized adversarial robustness benchmark" (2021),
arXiv:2010.09670. The library gives architectures and records. Its files of weights are read by
`robustray.models.weights`, and no function of its own loads them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from robustray.errors import ManifestError, ModelError
from robustray.models.declared import InputFacts
from robustray.models.libraries.leaderboards import RobustBenchRecord, load_robustbench
from robustray.models.libraries.library import (
    Library,
    Published,
    Weights,
    prepare,
    refuse_channels,
)
from robustray.models.libraries.timm import find_input
from robustray.models.registry import Entry, Paper
from robustray.words import unknown

_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
_THREATS = ("Linf", "L2", "corruptions")
# What RobustBench calls its ways to prepare photographs: resize, cut, interpolation.
_PREPARED: dict[str | None, tuple[int | tuple[int, int] | None, int, str]] = {
    "Res256Crop224": (256, 224, "bilinear"),
    "BicubicRes256Crop224": (256, 224, "bicubic"),
    "Res224": ((224, 224), 224, "bilinear"),
    "Crop288": (None, 288, "bilinear"),
}
# Files that hold several networks, of which the benchmark takes the last.
_LAST = re.compile(r"^(Kireev2021Effectiveness.*|Andriushchenko2020Understanding)$")
# Standardisations that a class has as buffers, which many of the files lack; of the last one's
# class the values are placeholders for those in the file.
_CONSTANTS = ("mu", "sigma")
_PLACEHOLDERS = "Modas2021PRIMEResNet18"
_NORMALISED = "BoostingWideResNet"


@dataclass(frozen=True)
class Record:
    """A network of the zoo under one threat model.

    Attributes
    ----------
    name, data, threat : str
        As RobustBench spells them.
    build : callable
        Makes the network.
    files : tuple of str
        Ids of its files on Google Drive; several are parts of one network.
    prepared : str or None
        How photographs are prepared.
    """

    name: str
    data: str
    threat: str
    build: Any
    files: tuple[str, ...]
    prepared: str | None

    @property
    def timm(self) -> str:
        """What it is called among timm's models, if it is one."""
        return f"{self.name}_{self.data}_{self.threat}".lower().replace("-", "_")


class RobustBench(Library):
    """Names are those of the model zoo.

    ``dataset`` ("cifar10", "cifar100", "imagenet") and ``threat_model`` ("Linf", "L2",
    "corruptions") are needed where a name stands for several networks; the number of classes
    tells data sets apart too. ``trained: false`` leaves the weights random.
    """

    prefix = "robustbench"
    packages = ("robustbench", "timm")
    command = (
        "pip install 'robustray[robustbench]' && pip install --no-deps robustbench==1.1.1 "
        "(its own pins don't go with those of robustray)"
    )

    @override
    def find(self, name: str) -> Entry:
        if name not in (names := self.names()):
            raise ManifestError(unknown("network of robustbench", name, names))
        return _entry(name)

    @override
    def names(self) -> list[str]:
        return sorted({record.name for record in self.records()})

    @override
    def input(self, name: str, options: Mapping[str, Any]) -> InputFacts:
        record = self.record(name, options)
        if self.module("timm").is_model(record.timm) and record.data == "imagenet":
            return replace(find_input(record.timm, {}), mean=(), std=())
        if record.prepared is None:
            edge = 224 if record.data == "imagenet" else 32
            return InputFacts((edge, edge), None, 1.0, "bilinear", (), ())
        resize, size, interpolation = _PREPARED[record.prepared]
        share = size / resize if isinstance(resize, int) else 1.0
        return InputFacts((size, size), resize, share, interpolation, (), ())

    @override
    def fetch(self, name: str, options: Mapping[str, Any]) -> Weights:
        record, timm = self.record(name, options), self.module("timm")
        if timm.is_model(record.timm) and (settings := timm.get_pretrained_cfg(record.timm)).url:
            return Weights(self.download(name, settings.url))
        if len(record.files) != 1:
            what = f"{len(record.files)} files" if record.files else "no file on Google Drive"
            raise ManifestError(
                f"robustbench:{name} has {what}; name one file of its weights (weights: FILE)"
            )
        path = Path(torch.hub.get_dir()) / "robustbench" / record.data / record.threat
        path = path / f"{name}.pt"
        if not path.is_file():
            address = f"Google Drive's file {record.files[0]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.module("gdown").download(
                    id=record.files[0], output=str(path), quiet=True, resume=True
                )
            except Exception as error:  # gdown raises what requests does, and its own
                raise self.away(name, f"{address}: {error}") from error
            if not path.is_file():
                raise self.away(name, f"{address} can't be had")
        return Weights(path, "last" if _LAST.match(name) else "auto")

    @override
    def published(self, name: str, options: Mapping[str, Any]) -> Published | None:
        record = self.record(name, options)
        row = self.rows().get((record.data, record.threat, name))
        if row is None:
            return None
        norm = record.threat.lower() if row.eps is not None else None
        return Published(
            data=record.data,
            norm=norm,
            eps=row.eps,
            clean=_share(row.clean),
            robust=_share(row.robust) if norm else None,
            source=f"robustbench {version('robustbench')}",
        )

    def paper(self, name: str) -> Paper | None:
        """Return the paper that RobustBench names, if it is on arXiv."""
        found = [row for row in load_robustbench() if row.id == name and row.arxiv]
        return Paper("", found[0].paper, found[0].venue, found[0].arxiv) if found else None

    def record(self, name: str, options: Mapping[str, Any]) -> Record:
        """Return the one network that is meant; ``num_classes`` may be among the options.

        Raises
        ------
        ManifestError
            If there is none, or it is not known which of several.
        """
        data, threat = options.get("dataset"), options.get("threat_model")
        num_classes = options.get("num_classes")
        for value, allowed, field in (
            (data, _CLASSES, "dataset"),
            (threat, _THREATS, "threat_model"),
        ):
            if value is not None and not (isinstance(value, str) and value in allowed):
                raise ManifestError(unknown(field, value, allowed), path=f"arguments.{field}")
        named = [record for record in self.records() if record.name == name]
        found = [r for r in named if data in (None, r.data) and threat in (None, r.threat)]
        if num_classes is not None:
            found = [r for r in found if _CLASSES[r.data] == num_classes]
        if len({(r.data, r.files) for r in found}) == 1:  # the same file under two threats
            return found[0]
        there = "; ".join(f"dataset: {r.data}, threat_model: {r.threat}" for r in named)
        if not found:
            wanted = [data, threat, num_classes and f"{num_classes} classes"]
            words = ", ".join(str(part) for part in wanted if part)
            raise ManifestError(f"robustbench:{name} is not there for {words}, but for {there}")
        raise ManifestError(
            f"robustbench:{name} stands for several networks; say which by arguments: {there}"
        )

    def records(self) -> tuple[Record, ...]:
        """Return all networks of the zoo."""
        return _records(self)

    def rows(self) -> dict[tuple[str, str, str], RobustBenchRecord]:
        """Return the rows of all leaderboards, by data set, threat model and name."""
        threats = {threat.lower(): threat for threat in _THREATS}
        return {
            (row.data, threats[row.threat.split()[0]], row.id): row for row in load_robustbench()
        }


LIBRARY = RobustBench()


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


@cache
def _records(library: RobustBench) -> tuple[Record, ...]:
    with _without_face(library), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old names of timm's modules
        found = library.module("robustbench.model_zoo.models").model_dicts
    return tuple(
        Record(
            name,
            data.value,
            threat.value,
            entry["model"],
            _ids(entry["gdrive_id"]),
            entry.get("preprocessing"),
        )
        for data, threats in found.items()
        for threat, entries in threats.items()
        for name, entry in entries.items()
    )


def _ids(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (str(given),) if given else ()


@contextlib.contextmanager
def _without_face(library: RobustBench) -> Iterator[None]:
    """Let modules of the package be imported whose ``__init__`` can't be.

    That imports the benchmark itself, which needs a package that is in no index.
    """
    if "robustbench" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("robustbench")
    if spec is None:
        library.module("robustbench")  # tells that it is missing
        return
    sys.modules["robustbench"] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules["robustbench"]


@cache
def _entry(name: str) -> Entry:
    def build(
        num_classes: int | None = None,
        in_channels: int = 3,
        *,
        trained: bool = True,
        dataset: str | None = None,
        threat_model: str | None = None,
    ) -> nn.Module:
        """Network of RobustBench's model zoo."""
        refuse_channels("robustbench", name, in_channels)
        options = {
            "dataset": dataset,
            "threat_model": threat_model,
            "num_classes": num_classes,
        }
        record = LIBRARY.record(name, options)
        with _untrained(LIBRARY, name), contextlib.redirect_stdout(io.StringIO()):
            network = _build(LIBRARY.module("timm"), record)
        names = [part for part, _ in network.named_children()]
        mean: tuple[float, ...] = ()
        std: tuple[float, ...] = ()
        if isinstance(network, nn.Sequential) and names == ["normalize", "model"]:
            mean, std = (
                tuple(_values(network.get_submodule("normalize").get_buffer(part)))
                for part in ("mean", "std")
            )
            network = network.get_submodule("model")
        elif type(network).__name__ != _PLACEHOLDERS:
            own = {part for part, _ in network.named_buffers(recurse=False)}
            network.keeps_constants = tuple(n for n in _CONSTANTS if n in own)  # type: ignore[assignment]
        for part in network.parameters():
            if part.is_floating_point():
                part.requires_grad_(True)
        _keep_constants(network)
        if type(network).__name__ == _NORMALISED:
            network.fc = _UnitRows(network.get_submodule("fc"))
        prepare(network, mean, std)
        return LIBRARY.load(name, network, options, trained=trained)

    return Entry(f"robustbench:{name}", build, LIBRARY.paper(name))


def _build(timm: Any, record: Record) -> nn.Module:
    """Build a network as the benchmark does: some are models that it adds to timm's."""
    if timm.is_model(record.timm):
        return timm.create_model(record.timm, num_classes=_CLASSES[record.data])
    return record.build()


class _UnitRows(nn.Module):
    """A linear layer by the unit vectors of its rows, which the zoo's class writes to its weights.

    A network that changes in a forward pass can't be judged; this computes the same.
    """

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.weight = linear.get_parameter("weight")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K) of features (B, F)."""
        return nn.functional.linear(x, nn.functional.normalize(self.weight, dim=1))


def _keep_constants(network: nn.Module) -> None:
    """Make buffers of tensors that are mere attributes, so that they move with the network."""
    for module in network.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):
                delattr(module, name)
                module.register_buffer(name, value, persistent=False)


def _values(buffer: torch.Tensor) -> list[float]:
    """Return constants as their decimal digits, not as the float32 beside them."""
    return [float(f"{value:.7g}") for value in buffer.flatten().tolist()]


def _stay(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Take the place of ``cuda``, which some constructors ask for where there may be none."""
    return tensor


@contextlib.contextmanager
def _untrained(library: RobustBench, name: str) -> Iterator[None]:
    """Keep functions of the zoo from downloading weights, and from loading them, by themselves."""
    timm, models = library.module("timm"), library.module("torchvision.models")
    create = timm.create_model

    def create_untrained(*given: Any, **options: Any) -> nn.Module:
        return create(*given, **{**options, "pretrained": False})

    def refuse(*_: Any, **__: Any) -> None:
        raise ModelError(
            f"robustbench:{name} has torchvision's own weights; take torchvision:NAME instead"
        )

    api = sys.modules[f"{models.__name__}._api"]
    move, torch.Tensor.cuda = torch.Tensor.cuda, _stay  # pyright: ignore[reportAttributeAccessIssue]
    fetch, timm.create_model = api.load_state_dict_from_url, create_untrained  # pyright: ignore[reportAttributeAccessIssue]
    api.load_state_dict_from_url = refuse  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.Tensor.cuda = move
        timm.create_model, api.load_state_dict_from_url = create, fetch  # pyright: ignore[reportAttributeAccessIssue]
