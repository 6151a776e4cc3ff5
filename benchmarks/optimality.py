"""Minimum-norm attacks on one network: median distances, and optimality against the best known.

    OMP_NUM_THREADS=1 python benchmarks/optimality.py --images 200 --steps 100

Trains a small convolutional network on the handwritten digits, naturally or with PGD. FMN, DDN,
DeepFool, Carlini-Wagner (nine weights) and FAB (all boundaries at each step) attack test images;
`fmn, published` does without the growth that ours adds. Local optimality is AttackBench's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script: in it is another script with the name of a package.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from benchmarks.networks import describe_machine  # noqa: E402
from robustray.attacks import (  # noqa: E402
    AttackSpec,
    ThreatModel,
    find_nearest,
    minimum_norms,
    pgd,
)
from robustray.attacks.distances import best_known, local_optimality, median_distance  # noqa: E402
from robustray.data import load_dataset  # noqa: E402
from robustray.manifest.job import DataConfig  # noqa: E402

NORMS = ("linf", "l2", "l1", "l0")


def train(x: Tensor, y: Tensor, epochs: int, eps: float) -> nn.Module:
    """Return a convolutional network for 8 x 8 images; trained with PGD where eps is not 0."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            points = x[rows]
            if eps:
                threat = ThreatModel("linf", eps)
                points = pgd(model, points, y[rows], threat, index=rows + len(x) * epoch, steps=5)
                points = points.x_adv
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(points), y[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def specs(norm: str, steps: int) -> dict[str, AttackSpec]:
    """Return the attacks of a norm that `find_nearest` makes, by what the table calls them."""
    budget = {"n_iter": steps}
    found = {"fmn": AttackSpec("fmn", options=budget)}
    if norm != "l0":
        found["fmn, published"] = AttackSpec("fmn", options={**budget, "growth": 0.0})
    if norm == "l2":
        found["ddn"] = AttackSpec("ddn", options=budget)
        found["cw-l2"] = AttackSpec("cw-l2", options={**budget, "lr": 0.05})
    if norm in ("linf", "l2"):
        found["deepfool"] = AttackSpec("deepfool", options=budget)
    return found


def measure(model: nn.Module, x: Tensor, y: Tensor, norm: str, steps: int) -> dict[str, np.ndarray]:
    """Return the distances (N,) of each attack."""
    found = {
        name: find_nearest(model, x, y, norm, spec).distance_B
        for name, spec in specs(norm, steps).items()
    }
    if norm != "l0":
        found["fab"] = minimum_norms(model, x, y, norm, n_iter=steps, n_targets=0).distance_B
    return {name: distance.double().numpy() for name, distance in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--eps", type=float, default=0.1, help="of training with PGD (linf)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(DataConfig(name="digits"))
    train_x, train_y = data.train.x_NCHW.float() / 255, data.train.y_N
    x, y = data.test.x_NCHW[: args.images].float() / 255, data.test.y_N[: args.images]
    print(f"{describe_machine('cpu', 1)}; {len(x)} digits, {args.steps} steps\n")
    print("| network | norm | attack | found | median distance | optimality |")
    print("|---|---|---|---|---|---|")
    for label, eps in (("natural", 0.0), ("PGD", args.eps)):
        model = train(train_x, train_y, args.epochs, eps)
        right = int((model(x).argmax(1) == y).sum())
        for norm in NORMS:
            distances = measure(model, x, y, norm, args.steps)
            best = best_known(distances.values())
            for name, one in distances.items():
                found = 100 * int((np.isfinite(one) & (one > 0)).sum()) / right
                optimality = 100 * local_optimality(one, best)
                print(
                    f"| {label}, {100 * right / len(x):.1f} % | {norm} | {name} | {found:.1f} % "
                    f"| {median_distance(one):.4g} | {optimality:.1f} % |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
