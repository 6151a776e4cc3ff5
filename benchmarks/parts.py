"""How far training in parts strays from training on whole batches.

Takes eight steps on handwritten digits with a thin pre-activation network, once with whole batches
and once in parts, with each answer to what batch normalization makes of parts, and prints how far
the weights are apart: the norm of the difference, relative to the distance that they have moved.
Workers compute the same parts, so these figures are theirs too. The row "1e-7" has whole batches,
and initial weights that were off by one part in ten million: what rounding alone may come to.

    python benchmarks/parts.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustray.data import EpochBatches, load_dataset
from robustray.manifest import DataConfig, Recipe
from robustray.models import create_model
from robustray.training import Trainer

DATA = DataConfig(name="digits", validation=41, train_limit=200, test_limit=21)
RECIPE = {
    "threat": {"eps": 0.1},
    "inner": {"steps": 3, "step_size": 0.04},
    "batch_size": 50,
    "augmentation": {"crop_padding": 0, "flip": False},
}
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "1e-7": ({}, 1e-7),
    "synchronised, 2 parts": (
        {"batch_norm": {"statistics": "synchronised"}, "micro_batches": 2},
        0.0,
    ),
    "synchronised, 5 parts": (
        {"batch_norm": {"statistics": "synchronised"}, "micro_batches": 5},
        0.0,
    ),
    "local, 2 parts": ({"micro_batches": 2}, 0.0),
    "local, 5 parts": ({"micro_batches": 5}, 0.0),
}


def main() -> None:
    """Print a table: cases down, objectives and steps across."""
    torch.set_num_threads(1)
    print(f"{'':24}" + "".join(f"{name:>20}" for name in ("natural", "sat", "trades")))
    print(f"{'steps':24}" + f"{'1':>10}{'8':>10}" * 3)
    whole = {name: _train(name, {}, 0.0) for name in ("natural", "sat", "trades")}
    for case, (changes, jitter) in CASES.items():
        cells = []
        for objective, path in whole.items():
            other = _train(objective, changes, jitter)
            cells += [_strayed(path, other, step) for step in (1, 8)]
        print(f"{case:24}" + "".join(f"{cell:>10.1e}" for cell in cells), flush=True)


def _train(objective: str, changes: dict[str, Any], jitter: float) -> list[Tensor]:
    """Return the weights at the start and after each step."""
    recipe = Recipe.model_validate({"objective": objective, **RECIPE, **changes})
    data = load_dataset(DATA)
    torch.manual_seed(0)
    model = create_model(
        "preact_resnet", depths=(1, 1, 1), widths=(0.25, 0.25, 0.25), in_channels=1
    )
    path = [_weights(model)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + jitter * torch.randn_like(parameter))
    trainer = Trainer(model, recipe, seed=3)
    for epoch in range(2):
        trainer.start_epoch(epoch)
        batches = EpochBatches(
            data.train, recipe.batch_size, recipe.augmentation, seed=3, epoch=epoch
        )
        for step, batch in enumerate(batches):
            trainer.step(batch.x_BCHW, batch.y_B, epoch=epoch, step=step)
            path.append(_weights(model))
    return path


def _weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def _strayed(one: list[Tensor], other: list[Tensor], step: int) -> float:
    return float((one[step] - other[step]).norm() / (one[step] - one[0]).norm())


if __name__ == "__main__":
    main()
