"""Manifests of kind Evaluation: which network is judged, on which images, by which attacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import override

from robustray.manifest.fields import (
    UNIT,
    Address,
    Argument,
    BatchSize,
    DataName,
    Extent,
    Length,
    Natural,
    Number,
    PositiveNumber,
    Section,
    Seed,
    Workers,
    check_lengths,
    read_option,
)
from robustray.manifest.job import DataConfig, Manifest, Transform
from robustray.manifest.network import ModelConfig
from robustray.registry import MODELS


class WeightsConfig(Section):
    """A file of weights: a path, or an object of a store (``s3://bucket/prefix/file``).

    ``sha256`` (hexadecimal) is checked where it is given; ``format`` is one that
    ``robustray.models.load_weights`` knows.
    """

    uri: Address
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    format: str = "auto"


class FactoryConfig(Section):
    """A user's own network: ``package.module:function``, called with ``arguments``.

    It returns a module that takes images in [0, 1]. Its weights come from ``weights``, or it
    loads them itself.
    """

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)


Option = Annotated[bool | int | float | str | None, BeforeValidator(read_option)]


class SurrogateConfig(Section):
    """Where attacks take gradients from; verdicts stay the network's own.

    Either the ``name`` of a surrogate (see `robustray.attacks.surrogates`) with its ``options``,
    for the components that ``modules`` names; or a user's ``function``, called with the network
    and ``options``, that returns the surrogate: images in [0, 1] to logits.
    """

    name: str | None = None
    modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    options: dict[str, Option | tuple[Number, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.name is None) == (self.function is None):
            raise ValueError("give a name or a function, one of them")
        if self.function is not None and self.modules is not None:
            raise ValueError("modules belongs to a name, not to a function")
        return self


class Preprocessing(Section):
    """What stands before a network that takes standardised images: (x - mean) / std, by channel."""

    mean: Annotated[tuple[Number, ...], Field(min_length=1)]
    std: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)]


class JudgedData(Section):
    """The images that are judged: the ``first`` ones of a split, or all of it.

    ``validation`` and ``parts`` say, as in a sweep, what the splits "validation" and "train" are,
    and ``transform`` how images are resized and cut.
    ``name`` may be left out where a study is evaluated, and is "cifar10" elsewhere.
    """

    name: DataName | None = None
    arguments: dict[str, Argument] | None = None
    split: Literal["test", "validation", "train"] = "test"
    first: Natural | None = None
    validation: Natural = 1024
    parts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    download: bool = False
    transform: Transform | Literal["model"] | None = None

    def config(self) -> DataConfig:
        """Return the data set of which the images are a part; ``name`` is given."""
        first = self.first if self.split == "test" else None
        given = self.model_dump(exclude={"split", "first"})
        return DataConfig.model_validate({**given, "test_limit": first})


class JudgedThreat(Section):
    """The perturbations that attacks may use: ``||x' - x|| <= eps`` within the pixel box [0, 1].

    l0 counts the values that differ, each channel of a pixel by itself.
    """

    norm: Literal["linf", "l2", "l1", "l0"] = "linf"
    eps: PositiveNumber = 8 / 255

    @model_validator(mode="after")
    def _within_the_box(self) -> Self:
        check_lengths(self.lengths(), UNIT)
        return self

    def lengths(self, path: str = "eps") -> tuple[Length, ...]:
        """Return what must not be longer than the box is wide."""
        return (Length(path, self.eps, self.norm),)


class SuiteItem(Section):
    """One entry of a suite: a registered suite by its name, or an attack with its budget.

    With ``attack`` or ``options`` it is an attack, called ``name`` in every table; ``attack`` is
    then the name itself where it is not given.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")]
    attack: str | None = None
    options: dict[str, Option] = Field(default_factory=dict)


def suite_lengths(items: Sequence[SuiteItem], norm: str, path: str) -> tuple[Length, ...]:
    """Return the steps of a suite's attacks, which must not be longer than the box is wide."""
    return tuple(
        Length(f"{path}[{number}].options.step_size", float(size), norm)
        for number, item in enumerate(items)
        if isinstance(size := item.options.get("step_size"), int | float)
    )


def _suite(value: object) -> object:
    """Read "pgd-20" as [{name: pgd-20}]."""
    items = cast(Sequence[object], value) if isinstance(value, list | tuple) else [value]
    return [{"name": item} if isinstance(item, str) else item for item in items]


SuiteItems = Annotated[tuple[SuiteItem, ...], BeforeValidator(_suite), Field(min_length=1)]


class Curve(Section):
    """Robust accuracy at further sizes of the perturbation, by the same suite or a cheaper one."""

    eps: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)]
    suite: SuiteItems | None = None


class Composition(Section):
    """The batches in which a network is judged whose output depends on the batch.

    ``size`` images each, neighbours in official order (``file``) or in a ``random`` one of
    ``seed``. Every image is judged and attacked at its place in its batch, with clean companions:
    a pass over one image costs a pass over its batch.
    """

    size: BatchSize = 100
    order: Literal["file", "random"] = "file"
    seed: Seed = 0

    @model_validator(mode="after")
    def _seed_of_an_order(self) -> Self:
        if self.order == "file":
            self.refuse("the order of the file has no seed", "seed")
        return self


class Evaluation(Manifest):
    """A manifest of kind Evaluation: one network, or every selected checkpoint of a study.

    ``model`` may be a name of the catalogue or ``package.module:function``, ``weights`` a path.
    No part of what is computed, and free to change between two runs of the same evaluation:
    ``shard_size`` (images in a unit of work; the first run decides), ``bundle`` (units that one
    worker takes at once, at most) and ``batch_size`` (images on a device at a time).
    ``compute_shape`` (the physical batch of every pass) is 64 on CPUs and 128 on GPUs.
    ``suite_mode`` says on which images the attacks of ``suite`` run: in a ``cascade`` (what a list
    is without it) on those that the attacks before have left; ``independent`` ones each on all
    correctly classified images, so that each has an accuracy of its own. A suite within a list is
    then one column.
    ``composition`` declares the batches of a network whose output depends on its batch; without
    it such a network is refused.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "evaluation"
    seed: Seed = 0
    study: str | None = None
    model: ModelConfig | None = None
    factory: FactoryConfig | None = None
    preprocessing: Preprocessing | None = None
    weights: WeightsConfig | None = None
    surrogate: SurrogateConfig | None = None
    data: JudgedData = JudgedData()
    threat: JudgedThreat | None = None
    suite: SuiteItems = (SuiteItem(name="autoattack-standard"),)
    suite_mode: Literal["cascade", "independent"] | None = None
    engine: Literal["robustray", "reference"] = "robustray"
    search_dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    fused_blocks: bool = False
    composition: Composition | None = None
    compute_shape: Annotated[BatchSize, Field(ge=8, multiple_of=8)] | None = None
    batch_size: BatchSize = 256
    shard_size: BatchSize = 100
    bundle: Workers = 16
    save_adversarial: bool = False
    audit: bool = True
    curve: Curve | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, document: Any) -> Any:
        """Spell out names and paths, and what an evaluation outside a study defaults to."""
        if not isinstance(document, dict):
            return document
        full = cls.spell_out(cast(dict[str, Any], document))
        if full.get("study") is None:
            data: Any = full.get("data") or {}
            if isinstance(data, dict):
                data = cast(dict[str, Any], data)
                full["data"] = {**data, "name": data.get("name") or "cifar10"}
            full["threat"] = full.get("threat") or {}
        return full

    @model_validator(mode="after")
    def _lengths_fit_the_images(self) -> Self:
        if self.threat is not None:
            check_lengths(self.lengths(self.threat), Extent.of(self.data.name, self.data.transform))
        return self

    def lengths(self, threat: JudgedThreat) -> tuple[Length, ...]:
        """Return what must not be longer than the box is wide, under a threat model."""
        curve, found = self.curve, threat.lengths("threat.eps")
        found += suite_lengths(self.suite, threat.norm, "suite")
        if curve is not None:
            found += suite_lengths(curve.suite or (), threat.norm, "curve.suite")
            found += tuple(
                Length(f"curve.eps[{number}]", eps, threat.norm)
                for number, eps in enumerate(curve.eps)
            )
        return found

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        given = [name for name in ("study", "model", "factory") if getattr(self, name) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "none of them"
            raise ValueError(f"give one of model, factory and study (there is {what})")
        if self.study is not None and (self.weights or self.preprocessing or self.curve):
            raise ValueError("a study brings its own weights, and has no preprocessing or curve")
        if self.resources.workers > 1:
            raise ValueError(
                "resources.workers: they train one trial together; an evaluation is spread over "
                "as many processes as there is room for (resources.max_concurrent bounds them)"
            )
        return self

    @override
    def needed_data(self) -> DataConfig | None:
        return None if self.data.name is None else self.data.config()

    @classmethod
    @override
    def spell_out(cls, document: dict[str, Any]) -> dict[str, Any]:
        full = dict(document)
        model = full.get("model")
        if isinstance(model, str) and ":" in model and MODELS.library_of(model) is None:
            full |= {"model": None, "factory": model}
        elif isinstance(model, str):
            full["model"] = {"name": model}
        for field, inner in (("factory", "function"), ("weights", "uri")):
            if isinstance(full.get(field), str):
                full[field] = {inner: full[field]}
        surrogate = full.get("surrogate")
        if isinstance(surrogate, str):
            full["surrogate"] = {"function" if ":" in surrogate else "name": surrogate}
        return full
