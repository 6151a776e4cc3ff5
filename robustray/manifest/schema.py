"""What a manifest may say: frozen pydantic models that refuse unknown keys.

The same classes describe a run everywhere: in YAML, in `fit(model, data, recipe)`, in the hash
that names a study. Numbers such as ``8/255`` may be written as fractions.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustray.manifest.data import DataConfig, ExtraData
from robustray.manifest.fields import (
    BatchSize,
    Code,
    Epochs,
    Natural,
    Number,
    Section,
    Seed,
    SuiteName,
)
from robustray.manifest.grid import Grid, GridSetting, StageGrid
from robustray.manifest.job import Manifest, Resources, Retries
from robustray.manifest.lengths import Extent, check_lengths
from robustray.manifest.network import MixingNetworkConfig, MixtureConstants, ModelConfig
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
    "GridSetting",
    "InnerAttack",
    "MixingNetworkConfig",
    "Mixture",
    "MixtureConstants",
    "ModelConfig",
    "Optimizer",
    "Recipe",
    "Resources",
    "Retention",
    "Retries",
    "Schedule",
    "Selection",
    "StageGrid",
    "Sweep",
    "ThreatConfig",
]


class EvaluationConfig(Section):
    """Suites on the test set with the selected checkpoint of each trial."""

    attacks: Annotated[tuple[SuiteName, ...], Field(min_length=1)] = Field(
        default=("fgsm", "pgd-20", "cw-40"), validate_default=False
    )
    threat: ThreatConfig | None = None
    batch_size: BatchSize = 250


class Retention(Section):
    """Which checkpoints keep their bytes; every one that was made keeps its record.

    ``best-last`` keeps the selected checkpoint and the newest, ``last`` drops the selected one
    once the trial was evaluated, ``all`` keeps everything. ``every`` adds each k-th epoch.
    """

    keep: Literal["best-last", "last", "all"] = "best-last"
    every: Epochs | None = None


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


class Sweep(Manifest):
    """A manifest of kind Sweep: one trial for each setting of the grid, or the model as it is.

    ``search`` stops poor trials early; ``narrow`` multiplies every width, for a cheap proxy of
    the study whose trials keep the names of those that they stand for. ``code`` holds digests of
    what a user brings, by its names (``package.module:name``); the study fills it in as it begins.
    """

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
                f"resources.gpus: a worker trains on one GPU; to use {gpus:g} GPUs set "
                f"workers: {gpus:g} and gpus: 1"
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
