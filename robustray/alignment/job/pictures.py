"""Sheets of images: what attacks and delta-x make of some examples of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robustray.alignment.curves import Box, ErrorCurve, attack_examples, predict
from robustray.alignment.delta_x import DeltaXSource
from robustray.alignment.manifest import Alignment
from robustray.alignment.pages.figures import RADII
from robustray.alignment.pages.methods import attack_words, number
from robustray.alignment.pages.sheets import (
    ClassPairs,
    comparison_figure,
    pairs_figure,
    rows_by_class,
)
from robustray.alignment.splits import StudySplit
from robustray.reports.style import render

_SHOWN = 8  # examples of a sheet of gradients
_DIRECTIONS = 20  # rays of a radius figure
_TARGETS = 10  # classes on which an example of each is moved


def has_images(split: StudySplit) -> bool:
    """Tell whether a split's examples can be drawn."""
    return len(split.image_shape) == 3


def gradient_sheet(split: StudySplit, gradient: Tensor, delta: Tensor | None) -> dict[str, bytes]:
    """Return the first images with their gradient of f_c - f_y and, where it is known, delta-x."""
    x = split.images(slice(_SHOWN))
    rows = {"x": x.numpy(), "gradient": gradient[:_SHOWN].numpy()}
    if delta is not None:
        rows |= {"Δx": delta[:_SHOWN].numpy(), "x'": (x + delta[:_SHOWN]).numpy()}
    figure = comparison_figure(rows, signed=("gradient", "Δx"), title=split.label)
    return {"gradients.png": render(figure)}


def adversarial_sheets(
    model: nn.Module,
    split: StudySplit,
    manifest: Alignment,
    curves: Mapping[str, ErrorCurve],
    box: Box,
) -> dict[str, bytes]:
    """Return for each attack with strengths a sheet of some images of each class and its work.

    The images are the first of each class that are classified correctly. They are attacked at the
    strength that breaks about half of all.
    """
    wanted = manifest.evaluation
    assert wanted is not None
    files: dict[str, bytes] = {}
    for attack in wanted.attacks:
        curve = curves[attack.label]
        rows = rows_by_class(split.y_N, split.num_classes, curve.predicted[0.0] == split.y_N)
        if curve.distance_N is not None or not rows:
            continue
        eps = telling_strength(curve.errors)
        chosen = split.select(torch.tensor([row for some in rows.values() for row in some]))
        x_adv = attack_examples(
            model, chosen, attack, eps, box=box, seed=manifest.seed, batch_size=wanted.batch_size
        )
        after = predict(model, x_adv, wanted.batch_size).cpu()
        classes = _pairs(chosen, x_adv.cpu(), after)
        size = "smoothness" if attack.attack == "stadv" else "ε ="
        title = f"{attack_words(attack.label)} at {size} {number(eps)}: before and after"
        files[f"{attack.label}_adversarial.png"] = render(pairs_figure(classes, title=title))
    return files


def telling_strength(errors: Mapping[float, float]) -> float:
    """Return the weakest strength that makes half of the examples wrong, else the strongest."""
    attacked = {eps: error for eps, error in errors.items() if eps}
    enough = {eps: error for eps, error in attacked.items() if error >= 0.5}
    if enough:
        return min(enough, key=lambda eps: (enough[eps], eps))
    return max(attacked, key=lambda eps: (attacked[eps], eps))


def x_prime_sheets(
    split: StudySplit, delta: Tensor, source: DeltaXSource, model: nn.Module | None = None
) -> dict[str, bytes]:
    """Return sheets of x' = x + delta-x: some images of each class, and one of each on every class.

    Parameters
    ----------
    split : StudySplit
        The images.
    delta : Tensor
        Delta-x of each towards the class that counts for it (N, C, H, W).
    source : callable
        Gives delta-x towards other classes; asked where there are 3 to 10.
    model : nn.Module, optional
        Images to logits (B, K), on its device; what it takes x' for is written below.
    """
    rows = rows_by_class(split.y_N, split.num_classes)
    chosen = torch.tensor([row for some in rows.values() for row in some])
    part = split.select(chosen)
    x_prime = part.images() + delta[chosen]
    taken = None
    if model is not None:
        taken = predict(model, x_prime.to(next(model.parameters()).device)).cpu()
    title = f"{split.label}: x and x' = x + Δx"
    files = {"x_prime.png": render(pairs_figure(_pairs(part, x_prime, taken), title=title))}
    if 2 < split.num_classes <= _TARGETS:
        files["x_prime_classes.png"] = _on_every_class(split, [some[0] for some in rows.values()],
                                                       source)  # fmt: skip
    return files


def _on_every_class(split: StudySplit, rows: Sequence[int], source: DeltaXSource) -> bytes:
    """Draw one image of each class, and its x' on every class."""
    part = split.select(torch.tensor(rows))
    x = part.images()
    moved = [
        x + source(x, part.y_N, torch.full_like(part.y_N, k), part.index_N).to(x)
        for k in range(split.num_classes)
    ]
    columns_NKCHW = torch.stack([x, *moved], 1).numpy()
    names = [class_name(split, int(k)) for k in part.y_N]
    drawn = dict(zip(names, columns_NKCHW, strict=True))
    heads = ["x", *(class_name(split, k) for k in range(split.num_classes))]
    return render(comparison_figure(drawn, heads=heads, title=f"{split.label}: x' on each class"))


def class_name(split: StudySplit, k: int) -> str:
    """Return what a class is called, or its number."""
    return split.class_names[k] if split.class_names else str(k)


def _pairs(part: StudySplit, after_NCHW: Tensor, taken_N: Tensor | None) -> list[ClassPairs]:
    """Group images and what became of them by class; say what they are taken for afterwards."""
    x = part.images()
    found: list[ClassPairs] = []
    for k in part.y_N.unique().tolist():
        rows = (part.y_N == k).nonzero()[:, 0]
        words, marked = [""] * len(rows), [False] * len(rows)
        if taken_N is not None:
            seen = taken_N[rows].tolist()
            words = [f"taken for {class_name(part, one)}" for one in seen]
            marked = [one != k for one in seen]
        name = class_name(part, k)
        found.append(ClassPairs(name, x[rows].numpy(), after_NCHW[rows].numpy(), words, marked))
    return found


@torch.no_grad()
def probabilities_along_rays(model: nn.Module, split: StudySplit) -> np.ndarray:
    """Return probabilities of class 1 along some rays through points of the spheres, (R, radii)."""
    device = next(model.parameters()).device
    x = split.images(slice(_DIRECTIONS))
    direction = (x / x.norm(dim=1, keepdim=True)).to(device)
    radii = torch.tensor(RADII, dtype=torch.float32, device=device)
    points = (direction[:, None] * radii[None, :, None]).flatten(0, 1)
    return model(points).softmax(1)[:, 1].reshape(len(x), -1).cpu().numpy()
