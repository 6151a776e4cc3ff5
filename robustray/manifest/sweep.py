"""What manifests of kind Sweep say: a grid of networks, how each is trained, judged and kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import override

from robustray.manifest.fields import (
    MOST_BLOCKS,
    MOST_STAGES,
    Argument,
    BatchSize,
    Code,
    Depths,
    Epochs,
    Extent,
    ModelName,
    Natural,
    Number,
    Section,
    Seed,
    SuiteName,
    Width,
    Widths,
    check_lengths,
)
from robustray.manifest.job import DataConfig, Manifest
from robustray.manifest.network import ModelConfig
from robustray.manifest.recipe import Recipe, ThreatConfig
from robustray.manifest.search import Search
from robustray.words import alternatives

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
            raise ValueError("the same setting appears twice")
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
        raise ValueError("the same value appears twice")
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
            raise ValueError("the same setting appears twice")
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
        extent = Extent.of(self.data.name, self.data.transform)
        check_lengths(self.recipe.lengths(), extent, "recipe.")
        if self.evaluation.threat is not None:
            check_lengths(self.evaluation.threat.lengths("evaluation.threat.eps"), extent)
        return self

    @override
    def named_models(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        grid, own = self.grid, (self.model.name, self.model.options())
        if grid is not None and grid.settings:
            names = dict.fromkeys(setting.name or own[0] for setting in grid.settings)
            return [(name, own[1]) for name in names]
        if grid is None or not grid.arguments:
            return [own]
        rows = [
            dict(zip(grid.arguments, row, strict=True)) for row in product(*grid.arguments.values())
        ]
        return [(own[0], self.model.with_options(row).options()) for row in rows]

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
        if self.search is not None:
            self.search.check(self.recipe, self.resources.workers)
        return self
