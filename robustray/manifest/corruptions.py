"""Manifests of kind Corruptions: which networks are judged on which corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self, cast

from pydantic import Field, model_validator
from typing_extensions import override

from robustray.manifest.evaluation import (
    Evaluation,
    FactoryConfig,
    JudgedData,
    Preprocessing,
    WeightsConfig,
)
from robustray.manifest.explaining import check_options
from robustray.manifest.fields import Argument, BatchSize, DataName, Natural, Section, Workers
from robustray.manifest.job import DataConfig, Manifest, Transform
from robustray.manifest.network import ModelConfig
from robustray.registry import DATASETS

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
BENCHMARK = tuple(name for names in FAMILIES.values() for name in names)
# Published beside the benchmark's, to tune methods on; no part of its means.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET = "alexnet"

_SETS = {"benchmark": BENCHMARK, "all": (*BENCHMARK, *EXTRA)}
_DATA = "cifar10-c"
# The set of uncorrupted images that a corrupted one was made from.
_CLEAN = {"cifar10-c": "cifar10", "cifar100-c": "cifar100"}
_CELL = ("corruption", "severity")

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")]
Severity = Annotated[int, Field(ge=1, le=len(SEVERITIES), strict=True)]


class JudgedNetwork(Section):
    """A network as in a manifest of kind Evaluation: ``model`` with ``weights``, or ``factory``."""

    model: ModelConfig | None = None
    factory: FactoryConfig | None = None
    preprocessing: Preprocessing | None = None
    weights: WeightsConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.model is None) == (self.factory is None):
            raise ValueError("give a model or a factory, one of them")
        return self


class CorruptedData(Section):
    """The corrupted images: a data set with the options ``corruption`` and ``severity``.

    ``arguments`` are its other options; ``first`` takes the first images of each corruption and
    severity only.
    """

    name: DataName = _DATA
    arguments: dict[str, Argument] | None = None
    first: Natural | None = None
    download: bool = False
    transform: Transform | None = None

    @model_validator(mode="after")
    def _has_corruptions(self) -> Self:
        given = self.arguments or {}
        for name in _CELL:
            if name in given:
                raise ValueError(f"arguments: {name} stands in the manifest's own field")
        if DATASETS.is_brought(self.name):  # a user's code is not imported for this
            return self
        if not set(_CELL) <= DATASETS.options(self.name).model_fields.keys():
            known = [one for one in DATASETS.names() if one.endswith("-c")]
            raise ValueError(
                f"name: {self.name} has no corruptions. Allowed: {', '.join(known)}, "
                "package.module:name"
            )
        cell = {"corruption": BENCHMARK[0], "severity": 1}
        check_options(DATASETS.options(self.name), {**given, **cell}, "arguments")
        return self

    def cell(self, corruption: str, severity: int) -> JudgedData:
        """Return the images of one corruption and severity."""
        options = {**(self.arguments or {}), "corruption": corruption, "severity": severity}
        return JudgedData(
            name=self.name,
            arguments=options,
            first=self.first,
            download=self.download,
            transform=self.transform,
        )


class Corruptions(Manifest):
    """A manifest of kind Corruptions: accuracy of some networks by corruption and severity.

    ``networks`` have names of one's own. ``corruptions`` is "benchmark" (the 15), "all" (with the 4
    extra ones), or a list. ``clean`` are the images without corruption, for errors relative to it;
    null leaves them out. ``baseline`` normalises errors: "alexnet" (published, of ImageNet-C), or
    one of the ``networks``. ``shard_size``, ``bundle``, ``batch_size`` and ``compute_shape`` are
    as in an Evaluation.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "corruptions"
    networks: Annotated[dict[Word, JudgedNetwork], Field(min_length=1)]
    data: CorruptedData = Field(default_factory=CorruptedData)
    corruptions: Annotated[tuple[Word, ...], Field(min_length=1)] = BENCHMARK
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = SEVERITIES
    clean: JudgedData | None = None
    baseline: str | None = None
    compute_shape: Annotated[BatchSize, Field(ge=8, multiple_of=8)] | None = None
    batch_size: BatchSize = 256
    shard_size: BatchSize = 1000
    bundle: Workers = 16

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, document: Any) -> Any:
        """Spell out short forms, and what belongs to a data set of corruptions."""
        if not isinstance(document, dict):
            return document
        full = cls.spell_out(cast(dict[str, Any], document))
        data: Any = full.get("data")
        name = cast(dict[str, Any], data).get("name", _DATA) if isinstance(data, dict) else _DATA
        if "clean" not in full and name in _CLEAN:
            full["clean"] = {"name": _CLEAN[name]}
        if "baseline" not in full and name == "imagenet-c" and _is_imagenet(data):
            wanted: Any = full.get("severities") or SEVERITIES
            listed = cast(list[object], wanted) if isinstance(wanted, list | tuple) else []
            whole = {repr(one) for one in listed} == {repr(one) for one in SEVERITIES}
            full["baseline"] = ALEXNET if whole else None
        return full

    @classmethod
    @override
    def spell_out(cls, document: dict[str, Any]) -> dict[str, Any]:
        full = dict(document)
        networks: Any = full.get("networks")
        if isinstance(networks, dict):
            full["networks"] = {
                name: Evaluation.spell_out(cast(dict[str, Any], entry))
                if isinstance(entry, dict)
                else entry
                for name, entry in cast(dict[str, Any], networks).items()
            }
        listed = full.get("corruptions")
        if isinstance(listed, str):
            full["corruptions"] = _SETS.get(listed, (listed,))
        return full

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for field in ("corruptions", "severities"):
            values = getattr(self, field)
            if twice := [one for one in values if values.count(one) > 1]:
                raise ValueError(f"{field}: {twice[0]} is named twice")
        if self.resources.workers > 1:
            raise ValueError("resources.workers: they train one trial together; not used here")
        if self.clean is not None and (self.clean.name is None or self.clean.transform == "model"):
            raise ValueError("clean: it needs a name, and a transform that is written out")
        return self

    @model_validator(mode="after")
    def _baseline_is_comparable(self) -> Self:
        if self.baseline is None or self.baseline in self.networks:
            return self
        if self.baseline != ALEXNET:
            names = ", ".join(["null", *self.networks, ALEXNET])
            raise ValueError(f"baseline: allowed here are {names}, not {self.baseline}")
        if self.data.name != "imagenet-c" or not _is_imagenet(self.data.model_dump()):
            raise ValueError(
                "baseline: the published errors of alexnet are of imagenet-c with 1000 classes"
            )
        others = set(self.averaged()) - set(BENCHMARK)
        if set(self.severities) != set(SEVERITIES) or others:
            raise ValueError(
                "baseline: the published errors of alexnet are means over severities 1 to 5 of the "
                "15 corruptions of the benchmark; judge these, or set baseline: null"
            )
        return self

    @override
    def needed_data(self) -> DataConfig | None:
        return None if self.clean is None else self.clean.config()  # others can't be staged

    def cells(self) -> dict[tuple[str, int], JudgedData]:
        """Return what is judged: ("clean", 0) first, then ("fog", 3) and so on."""
        found: dict[tuple[str, int], JudgedData] = {}
        if self.clean is not None:
            first = self.clean.first or self.data.first
            found["clean", 0] = self.clean.model_copy(update={"first": first})
        for corruption in self.corruptions:
            for severity in self.severities:
                found[corruption, severity] = self.data.cell(corruption, severity)
        return found

    def averaged(self) -> tuple[str, ...]:
        """Return the corruptions that means are over: without the extra ones, if there are others.

        Hendrycks and Dietterich hold the extra ones out for validation.
        """
        return tuple(name for name in self.corruptions if name not in EXTRA) or self.corruptions

    def evaluation(self, network: str) -> Evaluation:
        """Return what is asked of one network as an evaluation; its attacks do not matter."""
        entry = self.networks[network]
        cell = self.data.cell(self.corruptions[0], self.severities[0])
        return Evaluation(
            kind="Evaluation",
            name=self.name,
            model=entry.model,
            factory=entry.factory,
            preprocessing=entry.preprocessing,
            weights=entry.weights,
            data=cell,
            compute_shape=self.compute_shape,
            batch_size=self.batch_size,
            bundle=self.bundle,
            resources=self.resources,
        )


def _is_imagenet(data: Any) -> bool:
    """Whether images of imagenet-c have ImageNet's classes, as far as the arguments say."""
    arguments: Any = cast(dict[str, Any], data).get("arguments") if isinstance(data, dict) else None
    number = (
        cast(dict[str, Any], arguments).get("num_classes") if isinstance(arguments, dict) else None
    )
    return number in (None, 1000)
