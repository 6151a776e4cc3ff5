"""The compile option: it trains, or it says why not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustray.training import CompileError, fit
from tests.helpers.small_training import mixed_data, tiny, toy_data, toy_recipe


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
        recipe = toy_recipe(epochs=1, compile=compiled, objective="natural")
        fit(models[compiled], data, recipe, seed=0)
    for eager, compiled in zip(models[False].parameters(), models[True].parameters(), strict=True):
        assert torch.allclose(eager, compiled, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_compiled_training_follows_eager_training_with_everything_on() -> None:
    """Statistics that are updated or not, momentum that changes, and perturbed weights."""
    everything = {
        "epochs": 1,
        "label_smoothing": 0.1,
        "batch_norm": {"first_momentum": 1.0, "momentum": 0.05, "updates": "adversarial"},
        "inner": {"steps": 2, "step_size": 0.05, "start": "uniform", "statistics": "batch"},
        "awp": {"gamma": 0.01},
        "mixture": {"extra": 0.5, "epoch_images": 32},
        "augmentation": {"cutmix": 1.0},
    }
    models = {}
    for compiled in (False, True):
        models[compiled] = tiny()
        fit(models[compiled], mixed_data(), toy_recipe(compile=compiled, **everything), seed=0)
    # Compiled kernels round otherwise, on each processor in its own way, and an attack's steps are
    # signs: a pixel that goes the other way moves a weight in the third digit.
    states = (model.state_dict().values() for model in models.values())
    for eager, compiled in zip(*states, strict=True):
        assert torch.allclose(eager, compiled, rtol=0.02, atol=5e-3)
