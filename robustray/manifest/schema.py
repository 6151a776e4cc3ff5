"""What a manifest may say: frozen pydantic models that refuse unknown keys.

The same classes describe a run everywhere: in YAML, in `fit(model, data, recipe)`, in the hash
that names a study. Numbers such as ``8/255`` may be written as fractions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from robustray.manifest.explaining import check_options, read_options
from robustray.manifest.fields import (
    MOST_BLOCKS,
    MOST_STAGES,
    Argument,
    BatchSize,
    Channels,
    Code,
    DataName,
    Depths,
    Epochs,
    ModelName,
    Natural,
    Number,
    PerStage,
    PositiveNumber,
    Section,
    Seed,
    Width,
    Widths,
    Workers,
    read_number,
)
from robustray.manifest.lengths import Extent, check_lengths
from robustray.manifest.recipe import (
    Augmentation,
    Awp,
    BatchNormConfig,
    DecayGroup,
    Ema,
    InnerAttack,
    Mixture,
    Optimizer,
    Recipe,
    Schedule,
    Selection,
    ThreatConfig,
)
from robustray.registry import DATASETS, MODELS
from robustray.words import alternatives

__all__ = [
    "Augmentation",
    "Awp",
    "BatchNormConfig",
    "DataConfig",
    "DecayGroup",
    "Ema",
    "EvaluationConfig",
    "ExtraData",
    "Grid",
    "InnerAttack",
    "Mixture",
    "ModelConfig",
    "Natural",
    "Number",
    "Optimizer",
    "PerStage",
    "PositiveNumber",
    "Recipe",
    "Resources",
    "Retention",
    "Retries",
    "Schedule",
    "Section",
    "Selection",
    "StageGrid",
    "Sweep",
    "ThreatConfig",
    "read_number",
]


class MixingNetworkConfig(Section):
    """A mixing network: how second features come in, and four channels for each base."""

    version: Literal[3, 4] = 4
    accurate: Annotated[tuple[Channels, ...], Field(min_length=4, max_length=4)] | None = None
    robust: Annotated[tuple[Channels, ...], Field(min_length=4, max_length=4)] | None = None


class MixtureConstants(Section):
    """The seven numbers of a mixed classifier; see ``robustray.smoothing.Constants``."""

    gamma: Number | None = None
    gamma_scale: Number | None = None
    gamma_bias: Number | None = None
    alpha_scale: Annotated[Number, Field(ge=0, le=1)] | None = None
    alpha_bias: Annotated[Number, Field(ge=0, le=1)] | None = None
    std_scale: PositiveNumber | None = None
    rob_scale: PositiveNumber | None = None


class ModelConfig(Section):
    """The network: its name, and the options that stand beside it.

    A name of the catalogue (``robustray models``) has its options beside it; one that a user
    brings (``package.module:function``, or the entry point of an installed package) has them in
    ``arguments``. Classes and input channels come from the data set.
    """

    model_config = ConfigDict(extra="allow")

    name: ModelName = Field(default="preact_resnet", validate_default=False)
    arguments: dict[str, Argument] | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_options_of_its_entry(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        given = {k: value for k, value in document.items() if value is not None or k == "name"}
        name = given.pop("name", cls.model_fields["name"].default)
        if not given or not isinstance(name, str) or not MODELS.knows(name):
            return {"name": name, **given} if "name" in document else given
        entry = _Brought if MODELS.is_brought(name) else MODELS.options(name)
        return {"name": name, **read_options(entry, given, "name")}

    def options(self) -> dict[str, Any]:
        """Return the options that were given, as keyword arguments of ``create_model``."""
        beside = self.model_dump(exclude={"name", "arguments"}, exclude_none=True)
        return beside | (self.arguments or {})

    def with_options(self, changes: Mapping[str, Any]) -> ModelConfig:
        """Return the same network with other values of some options, which are not checked."""
        if MODELS.is_brought(self.name):
            changes = {"arguments": {**(self.arguments or {}), **changes}}
        return self.model_copy(update=dict(changes))


class _Brought(Section):
    """What stands beside the name of a network that a user brings."""

    arguments: dict[str, Argument] | None = None


_MOST_TRIALS = 1_000_000


class StageGrid(Section):
    """The settings of one option over the stages: a product, or a list.

    ``each_stage: [4, 8], stages: 3`` gives the 8 combinations; ``settings`` lists them instead.
    """

    each_stage: Annotated[tuple[Width, ...], Field(min_length=1)] | None = None
    stages: Annotated[Natural, Field(le=MOST_STAGES)] = 3
    settings: Annotated[tuple[Widths, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.each_stage is None) == (self.settings is None):
            raise ValueError("give either each_stage or settings, and not an empty one")
        given = self.each_stage if self.settings is None else self.settings
        if given is not None and len(set(given)) != len(given):
            raise ValueError("the same setting stands there twice")
        return self

    def count(self) -> int:
        """Return how many settings there are, without listing them."""
        if self.settings is not None:
            return len(self.settings)
        return len(self.each_stage or ()) ** self.stages

    def largest(self) -> list[tuple[float, ...]]:
        """Return settings that tell of all: the listed ones, or each value in every stage."""
        if self.settings is not None:
            return list(self.settings)
        return [(value,) * self.stages for value in self.each_stage or ()]

    def rows(self) -> list[tuple[float, ...]]:
        """Return every setting, one value for each stage."""
        if self.settings is not None:
            return list(self.settings)
        assert self.each_stage is not None
        return list(product(self.each_stage, repeat=self.stages))


class GridSetting(Section):
    """One network of a listed grid: what it changes of the sweep's ``model``.

    ``name`` is another entry of the catalogue, which fixes depths, widths and block itself.
    """

    name: ModelName | None = None
    block: str | None = None
    depths: Depths | None = None
    widths: Annotated[Widths, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.changes():
            raise ValueError("an empty setting: give name, block, depths or widths")
        if self.name and len(self.changes()) > 1:
            raise ValueError(f"{self.name} fixes block, depths and widths: give the name alone")
        return self

    def changes(self) -> dict[str, Any]:
        """Return the fields of ``model`` that it sets."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


def _different(values: tuple[Argument, ...]) -> tuple[Argument, ...]:
    if len(set(values)) != len(values):
        raise ValueError("the same value stands there twice")
    return values


Values = Annotated[tuple[Argument, ...], Field(min_length=1), AfterValidator(_different)]


class Grid(Section):
    """What a sweep varies: widths or depths of the stages, or both (their product), or a list.

    ``arguments`` gives values of any options of the network by their names, and takes the product
    of them; ``settings`` lists whole networks, for grids that are no product.
    """

    widths: StageGrid | None = None
    depths: StageGrid | None = None
    arguments: Annotated[dict[str, Values], Field(min_length=1)] | None = None
    settings: Annotated[tuple[GridSetting, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        given = [name for name in ("arguments", "settings") if getattr(self, name) is not None]
        given += ["widths and depths"] if self.widths or self.depths else []
        if not given:
            raise ValueError("an empty grid: give widths, depths or both, arguments, or settings")
        if len(given) > 1:
            raise ValueError(f"give one of {alternatives(given)}, not both")
        if self.settings and len(set(self.settings)) != len(self.settings):
            raise ValueError("the same setting stands there twice")
        if self.count() > _MOST_TRIALS:
            raise ValueError(f"{self.count():,} trials; at most {_MOST_TRIALS:,} make a study")
        for row in self.depths.largest() if self.depths else ():
            if any(depth != int(depth) for depth in row):
                raise ValueError(f"depths are whole numbers of blocks, not {list(row)}")
            if sum(row) > MOST_BLOCKS:
                raise ValueError(f"depths of {sum(row):,.0f} blocks; at most {MOST_BLOCKS:,}")
        return self

    def count(self) -> int:
        """Return how many trials there are, without listing them."""
        if self.settings is not None:
            return len(self.settings)
        if self.arguments is not None:
            return math.prod(map(len, self.arguments.values()))
        parts = [part.count() for part in (self.widths, self.depths) if part is not None]
        return math.prod(parts)


class ExtraData(Section):
    """Pseudo-labelled images beside the official ones; the recipe's ``mixture`` uses them.

    ``file`` lies in the folder of data files: an ``.npz`` with ``image`` (N, H, W, C) uint8 and
    ``label`` (N,), or a ``.pickle`` of a dict with ``data`` and ``extrapolated_targets``, as the
    500K images of arXiv:1905.13736 are published. ``sha256`` is checked if it is given; ``limit``
    takes the first images only.
    """

    file: Annotated[str, Field(pattern=r"\.(npz|pickle)$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    limit: Natural | None = None


class DataConfig(Section):
    """The data set, its held-out validation part, and labelled subsets of it.

    ``name`` is that of an official set, ``folder`` for a folder of images, or that of a function
    of a user's (``package.module:function``); ``arguments`` are those of the function.
    ``parts`` names official files of the training set ("data_batch_1"); ``train_limit`` and
    ``test_limit`` take the first images only. Each of them changes the label that stands beside
    every number ("cifar10[data_batch_1][:4000]").
    """

    name: DataName
    arguments: dict[str, Argument] | None = None
    validation: Natural = 1024
    parts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    train_limit: Natural | None = None
    test_limit: Natural | None = None
    extra: ExtraData | None = None
    download: bool = False

    @model_validator(mode="after")
    def _options_of_the_set(self) -> Self:
        if not DATASETS.is_brought(self.name):  # a user's code is not imported for this
            check_options(DATASETS.options(self.name), self.arguments or {}, "arguments")
        return self


class EvaluationConfig(Section):
    """Attacks on the test set with the selected checkpoint of each trial."""

    attacks: Annotated[
        tuple[Literal["fgsm", "pgd-10", "pgd-20", "cw-40"], ...], Field(min_length=1)
    ] = ("fgsm", "pgd-20", "cw-40")
    threat: ThreatConfig | None = None
    batch_size: BatchSize = 250


class Retention(Section):
    """Which checkpoints keep their bytes; every one that was made keeps its record.

    ``best-last`` keeps the selected checkpoint and the newest, ``last`` drops the selected one
    once the trial was evaluated, ``all`` keeps everything. ``every`` adds each k-th epoch.
    """

    keep: Literal["best-last", "last", "all"] = "best-last"
    every: Epochs | None = None


Retry = Annotated[int, Field(ge=0, le=1000)]
Patience = Annotated[PositiveNumber, Field(le=1_000_000)]


class Retries(Section):
    """How often a trial is tried again after each kind of failure, and the back-off between.

    Waits are ``backoff_seconds * 2**k`` with k earlier failures of that kind, at most
    ``backoff_limit_seconds``. An error of the user's or the program's is never retried unless
    ``user_error`` says so.
    """

    preemption: Retry = 20
    out_of_memory: Retry = 1
    storage: Retry = 5
    user_error: Retry = 0
    backoff_seconds: Patience = 5.0
    backoff_limit_seconds: Patience = 300.0


def _whole_or_share(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError("CPUs and GPUs are whole numbers, or a fraction below 1")
    return value


class Resources(Section):
    """What one trial takes, and how failures are handled.

    ``workers`` train a trial together; ``gpus`` and ``cpus`` are of each of them. Where the
    cluster has no room for all of them an attempt may begin with fewer, down to ``min_workers``
    (null: it waits for all). No part of a study's identity; but the order of sums follows the
    number of workers, and on CPUs that of threads follows ``cpus``, and with them the last bit of
    every sum.
    """

    workers: Workers = 1
    min_workers: Workers | None = None

    gpus: Annotated[Number, Field(ge=0), AfterValidator(_whole_or_share)] = 1.0
    cpus: Annotated[PositiveNumber, AfterValidator(_whole_or_share)] = 1.0
    max_concurrent: Workers | None = None
    wait_minutes: Patience = 30.0
    retries: Retries = Retries()

    @model_validator(mode="after")
    def _one_device_each(self) -> Self:
        if self.workers > 1 and self.gpus not in (0, 1):
            raise ValueError(f"each of {self.workers} workers takes 1 GPU or none: gpus: 1 or 0")
        if self.min_workers and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers: {self.min_workers} is more than workers: {self.workers}"
            )
        return self


class Search(Section):
    """Stopping poor trials early, by asynchronous successive halving (ASHA).

    After ``grace_epochs * reduction**k`` epochs, k = 0, 1, ..., a trial goes on only if its score
    reaches the best ``1 / reduction`` of the scores that others had there before. The score is the
    accuracy under ``recipe.selection.attack`` on held-out data. ``budget_epochs`` caps the epochs
    of all trials together: a trial that would begin one beyond it is stopped for good, however
    good it is, so it should be above what halving is expected to take (the plan tells).
    """

    name: Literal["asha"] = "asha"
    grace_epochs: Epochs = 1
    reduction: Annotated[Epochs, Field(ge=2)] = 3
    budget_epochs: Natural | None = None

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs (1-based) after which trials are judged."""
        rungs = [self.grace_epochs]
        while rungs[-1] * self.reduction < epochs:
            rungs.append(rungs[-1] * self.reduction)
        return tuple(rung for rung in rungs if rung < epochs)


class Sweep(Section):
    """A manifest of kind Sweep: one trial for each setting of the grid, or the model as it is.

    ``search`` stops poor trials early; ``narrow`` multiplies every width, for a cheap proxy of
    the study whose trials keep the names of those that they stand for. ``code`` holds digests of
    what a user brings, by its names (``package.module:name``); the study fills it in as it begins.
    """

    kind: Literal["Sweep"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    description: str = ""
    seed: Seed = 0
    code: Code = Field(default_factory=dict)
    model: ModelConfig = ModelConfig()
    grid: Grid | None = None
    search: Search | None = None
    narrow: Annotated[Number, Field(gt=0, lt=1)] | None = None
    recipe: Recipe = Recipe()
    data: DataConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    retention: Retention = Retention()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _lengths_fit_the_images(self) -> Self:
        extent = Extent.of(self.data.name)
        check_lengths(self.recipe.lengths(), extent, "recipe.")
        if self.evaluation.threat is not None:
            check_lengths(self.evaluation.threat.lengths("evaluation.threat.eps"), extent)
        return self

    @model_validator(mode="after")
    def _shareable(self) -> Self:
        workers, gpus = self.resources.workers, self.resources.gpus
        if gpus > 1:
            raise ValueError(
                f"resources.gpus: a worker trains on one GPU; for {gpus:g} of them say workers: "
                f"{gpus:g} and gpus: 1"
            )
        parts, statistics = self.recipe.micro_batches, self.recipe.batch_norm.statistics
        if parts < workers and statistics == "local":
            raise ValueError(
                f"recipe.micro_batches: {parts} can't be shared by resources.workers: {workers}; "
                f"set it to {workers} or more (batch norm is then local to each part), or "
                "recipe.batch_norm.statistics to synchronised or frozen"
            )
        if parts > self.recipe.batch_size:
            raise ValueError(
                f"recipe.micro_batches: {parts} parts of {self.recipe.batch_size} images"
            )
        return self

    @model_validator(mode="after")
    def _trains_one_network(self) -> Self:
        if self.model.name == "adaptive_smoothing":
            raise ValueError(
                "model.name: adaptive_smoothing is trained by a manifest of kind Mixing"
            )
        return self

    @model_validator(mode="after")
    def _mixture_has_images(self) -> Self:
        if (self.recipe.mixture is None) != (self.data.extra is None):
            raise ValueError("recipe.mixture and data.extra: one needs the other")
        return self

    @model_validator(mode="after")
    def _search_has_scores(self) -> Self:
        if self.search is None:
            return self
        if self.resources.workers > 1:
            raise ValueError(
                f"search stops trials of one worker; resources.workers is {self.resources.workers}"
            )
        grace, recipe = self.search.grace_epochs, self.recipe
        if grace >= recipe.epochs:
            raise ValueError(
                f"search.grace_epochs is {grace} of {recipe.epochs} epochs: nothing would stop"
            )
        budget = self.search.budget_epochs
        if budget is not None and budget < recipe.epochs:
            raise ValueError(
                f"search.budget_epochs is {budget}: below recipe.epochs ({recipe.epochs}) no trial "
                "can finish"
            )
        if recipe.selection.start * recipe.epochs >= grace:
            raise ValueError(
                f"search.grace_epochs is {grace}, and validation begins later: "
                f"recipe.selection.start must be below {grace / recipe.epochs:g}"
            )
        return self
