"""The compile option: it trains, or it says why not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustray.training import CompileError, fit

from .small import tiny, toy_data, toy_recipe


class Branching(nn.Module):
    """Its path depends on its data, which no single graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc(x.flatten(1))
        return logits if logits.sum().item() > 0 else 2 * logits


def test_what_cannot_be_compiled_is_refused() -> None:
    recipe = toy_recipe(compile=True, objective="natural")
    with pytest.raises(CompileError, match=r"recipe.compile.*compile: false"):
        fit(Branching(), toy_data(), recipe, seed=0)


@pytest.mark.slow
def test_compiled_training_follows_eager_training() -> None:
    data, models = toy_data(train=32), {}
    for compiled in (False, True):
        models[compiled] = tiny()
        fit(models[compiled], data, toy_recipe(epochs=1, compile=compiled), seed=0)
    for eager, compiled in zip(models[False].parameters(), models[True].parameters(), strict=True):
        assert torch.allclose(eager, compiled, rtol=1e-3, atol=1e-4)
