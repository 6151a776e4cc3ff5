"""The grids of sweeps."""

from __future__ import annotations

import math
from itertools import product
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from robustray.manifest.fields import (
    MOST_BLOCKS,
    MOST_STAGES,
    Argument,
    Depths,
    ModelName,
    Natural,
    Section,
    Width,
    Widths,
)
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
