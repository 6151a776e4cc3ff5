"""Made-up studies: the published grids with a smooth accuracy function and seeded noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from robustray.reports.rows import Axis, TrialRow

WIDTHS = (4, 6, 8, 10, 12, 14, 16, 20)


def macs(depths: Sequence[int], widths: Sequence[float]) -> int:
    """Count the 3x3 convolutions of basic blocks on 32 x 32 images, and the stem."""
    total, before, side = 27 * 16 * 1024, 16.0, 32
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        channels = 16 * 2**stage * width
        side = 32 // 2**stage
        first = 9 * before * channels + 9 * channels**2 + before * channels
        total += int(side**2 * (first + (depth - 1) * 18 * channels**2))
        before = channels
    return total


def accuracy(depths: Sequence[int], widths: Sequence[float]) -> float:
    """Reward capacity with diminishing returns, and punish a heavy last stage."""
    stages = len(widths)
    capacity = math.log(sum(depths) / stages) + 0.6 * math.log(sum(widths) / stages)
    last = widths[-1] * depths[-1] / sum(d * w for d, w in zip(depths, widths, strict=True))
    return 0.505 + 0.013 * capacity - 0.045 * (last - 1 / (stages + 1))


def trial(
    depths: Sequence[int], widths: Sequence[float], noise: float = 0.0, **changes: object
) -> TrialRow:
    value = accuracy(depths, widths) + noise
    metrics = {"clean": value + 0.31, "pgd-20": value + 0.03, "cw-40": round(value, 4)}
    fields = {
        "name": f"d{'-'.join(map(str, depths))}_w{'-'.join(f'{w:g}' for w in widths)}",
        "depths": tuple(depths),
        "widths": tuple(map(float, widths)),
        "parameters": int(sum(18 * d * (16 * w) ** 2 for d, w in zip(depths, widths, strict=True))),
        "macs": macs(depths, widths),
        "status": "finished",
        "selected_epoch": 76,
        "validation_accuracy": round(value + 0.032, 4),
        "metrics": metrics,
        "weights_sha256": "ab" * 32,
        "seed": 7,
    }
    return TrialRow(**(fields | changes))  # type: ignore[arg-type]


def grid(
    by: Axis, values: Iterable[float], stages: int = 3, *, other: float | None = None, seed: int = 0
) -> list[TrialRow]:
    """Every combination of the values over the stages; the other option is the same in all."""
    rng = np.random.default_rng(seed)
    rows = []
    for setting in product(values, repeat=stages):
        noise = float(rng.normal(0, 0.0028))
        if by == "width":
            rows.append(trial((int(other or 4),) * stages, setting, noise))
        else:
            rows.append(trial([int(d) for d in setting], (other or 8.0,) * stages, noise))
    return rows


def curves(rows: Sequence[TrialRow], epochs: int = 100, every: int = 5, seed: int = 0) -> dict:
    """Validation histories with the jump of a step schedule at three quarters."""
    rng = np.random.default_rng(seed)
    return {row.name: _curve(row, epochs, every, rng) for row in rows}


def _curve(
    row: TrialRow, epochs: int, every: int, rng: np.random.Generator
) -> list[tuple[int, dict[str, float]]]:
    final = row.validation_accuracy or 0.5
    history = []
    for epoch in range(every, epochs + 1, every):
        jump = 0.0 if epoch < 0.75 * epochs else 0.05
        value = (final - 0.05) * (1 - math.exp(-4 * epoch / epochs)) + jump + rng.normal(0, 0.004)
        history.append(
            (epoch, {"validation_accuracy": value, "validation_loss": 2.2 - 1.6 * value})
        )
    return history
