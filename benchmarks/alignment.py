"""Alignment, linearised and measured robustness of a robust and a plain network on MNIST.

    OMP_NUM_THREADS=1 python benchmarks/alignment.py --n 100 --figures out

TRADES' small CNN against a small CNN that is trained here on 10,000 images. Delta-x is the nearest
of 10,000 training images of the closest class, minus the image.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from networks import SHARED, network
from torch import Tensor, nn

from robustray.alignment import (
    alignment_metrics,
    closest_class,
    jacobian,
    linearised_robustness,
)
from robustray.alignment.delta_x import nearest_other
from robustray.alignment.pages.figures import histogram_figure, linearity_figure
from robustray.alignment.pages.sheets import comparison_figure
from robustray.alignment.splits import StudySplit, load_study
from robustray.attacks import ThreatModel, carlini_wagner, minimum_norms, stadv
from robustray.reports.frontier import kendall
from robustray.reports.style import correlation_words, render

ALPHA = "cosine_similarity_gradient_vs_correctfn"


def main() -> None:
    """Measure both networks, print the numbers, and draw the figures if a folder is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    test = load_study("mnist", "test", root=SHARED, limit=options.n)
    known = load_study("mnist", "train", root=SHARED, limit=10_000)
    models = {"plain": _plain(known), "TRADES": network("trades_mnist")}
    found = {name: _measure(name, model, test, known) for name, model in models.items()}
    if options.figures:
        _draw(options.figures, test, found)


def _unit(split: StudySplit) -> Tensor:
    return (split.images() + 1) / 2


def _plain(known: StudySplit) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 36, 10),
    )  # fmt: skip
    optimizer, x = torch.optim.Adam(model.parameters(), 1e-3), _unit(known)
    for _ in range(3):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), known.y_N[rows]).backward()
            optimizer.step()
    return model.eval()


def _measure(name: str, model: nn.Module, test: StudySplit, known: StudySplit) -> dict[str, Tensor]:
    x, y = _unit(test), test.y_N
    logits, jac = jacobian(model, x)
    near = closest_class(logits, jac, y)
    delta, _ = nearest_other(x, y, _unit(known), known.y_N, near)
    metrics = alignment_metrics(logits, jac, x, y, delta)
    print(f"{name}: clean {(logits.argmax(1) == y).double().mean():.3f}")
    print("  " + ", ".join(f"{tag} {value.mean():.4f}" for tag, value in metrics.items()))
    linear = linearised_robustness(logits, jac, y)
    begun = time.perf_counter()
    cw = carlini_wagner(model, x, y, n_iter=200, search_steps=6).distance_B
    seconds = time.perf_counter() - begun
    fab = minimum_norms(model, x, y, "l2", n_iter=50).distance_B
    rank = kendall(linear.tolist(), cw.tolist())
    print(
        f"  median l2 distance: linearised {linear.median():.3f}, CW {cw.median():.3f} "
        f"({seconds:.0f} s), FAB {fab.median():.3f}; {correlation_words(rank)}"
    )
    for smoothness in (5.0, 0.5, 0.05):
        bent = stadv(model, x, y, ThreatModel("linf", 1.0), smoothness=smoothness, n_iter=60)
        print(f"  stAdv at {smoothness:g}: error {bent.success_B.double().mean():.3f}")
    rows = torch.arange(len(y))
    gradient = jac[rows, near] - jac[rows, y]
    return {"alpha": metrics[ALPHA], "delta": delta, "gradient": gradient, "linear": linear,
            "cw": cw}  # fmt: skip


def _draw(folder: Path, test: StudySplit, found: dict[str, dict[str, Tensor]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    robust = found["TRADES"]
    rows = {"x": test.images().numpy(), "nearest Δx": robust["delta"].numpy()}
    rows |= {name: part["gradient"].numpy() for name, part in found.items()}
    signed = ("nearest Δx", *found)
    figures = {
        "gradients": comparison_figure(rows, signed=signed, title="MNIST, nearest delta-x"),
        "alignment": histogram_figure(
            {n: part["alpha"] for n, part in found.items()}, title="MNIST"
        ),
        "linearity": linearity_figure(robust["linear"], robust["cw"], title="MNIST, TRADES"),
    }
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(render(figure))


if __name__ == "__main__":
    main()
