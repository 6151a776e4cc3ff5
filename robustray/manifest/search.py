"""What a Sweep may say about searching its grid: who goes on, who comes next, for how long."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustray.manifest.fields import Epochs, Natural, PositiveNumber, Section
from robustray.manifest.recipe import Recipe

Searcher = Literal["random", "tpe", "gp"]


class Search(Section):
    """Which trials are trained, and how far.

    By asynchronous successive halving (``name: asha``), poor trials stop early. After
    ``grace_epochs * reduction**k`` epochs, k = 0, 1, ..., a trial goes on only if its score
    reaches the best ``1 / reduction`` of the scores that others had there before. The score is the
    accuracy under ``recipe.selection.attack`` on held-out data. ``budget_epochs`` caps the epochs
    of all trials together: a trial that would begin one beyond it is stopped for good, however
    good it is, so it should be above what halving is expected to take (the plan tells).

    A ``searcher`` chooses from the scores so far which trial of the grid begins next, in place of
    the costliest first; ``budget_hours`` is how many device-hours it may spend. What it leaves is
    not started. With ``name: none`` it trains each trial that it chooses to its end.
    """

    name: Literal["asha", "none"] = "asha"
    grace_epochs: Epochs = 1
    reduction: Annotated[Epochs, Field(ge=2)] = 3
    budget_epochs: Natural | None = None
    searcher: Searcher | None = None
    budget_hours: PositiveNumber | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.name == "none":
            self.refuse("name: none stops no trial early", "grace_epochs", "reduction")
        if self.searcher is None:
            if self.name == "none":
                raise ValueError("name: none without a searcher searches nothing; leave search out")
            self.refuse("only a searcher keeps to device-hours", "budget_hours")
        else:
            self.refuse("a searcher's budget is budget_hours", "budget_epochs")
        return self

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs (1-based) after which trials are judged."""
        if self.name == "none":
            return ()
        rungs = [self.grace_epochs]
        while rungs[-1] * self.reduction < epochs:
            rungs.append(rungs[-1] * self.reduction)
        return tuple(rung for rung in rungs if rung < epochs)

    def check(self, recipe: Recipe, workers: int) -> None:
        """Refuse a recipe or a number of workers with which nothing could be searched.

        Raises
        ------
        ValueError
            If trials would have no scores when they are judged, or none could finish.
        """
        if workers > 1:
            raise ValueError(f"search stops trials of one worker; resources.workers is {workers}")
        if recipe.guard and recipe.guard.action == "stop":
            raise ValueError("search stops trials by itself; set recipe.guard.action: warn")
        if self.name == "asha":
            self._check_rungs(recipe)

    def _check_rungs(self, recipe: Recipe) -> None:
        grace, budget = self.grace_epochs, self.budget_epochs
        if grace >= recipe.epochs:
            raise ValueError(
                f"search.grace_epochs is {grace} of {recipe.epochs} epochs: nothing would stop"
            )
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
