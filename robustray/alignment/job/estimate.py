"""What is measured of an estimate of delta-x."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from robustray.alignment import alignment
from robustray.alignment.delta_x import DeltaXSource
from robustray.alignment.job.judging import Judged
from robustray.alignment.job.pictures import class_name, has_images, x_prime_sheets
from robustray.alignment.manifest import Alignment
from robustray.alignment.pages.estimate import EstimateLine, estimate_page
from robustray.alignment.pages.figures import histogram_figure
from robustray.alignment.pages.page import published_lengths, published_similarity
from robustray.alignment.pages.sheets import comparison_figure
from robustray.alignment.splits import StudySplit
from robustray.reports.html import Picture
from robustray.reports.style import render

COSINE = "cosine_similarity_correct_vs_net_g_val"
_SHOWN = 8  # examples of a sheet


def judge_delta_x(source: DeltaXSource, split: StudySplit, manifest: Alignment) -> Judged:
    """Compare an estimate of delta-x with the true one, where that is known.

    Parameters
    ----------
    source : callable
        The estimate; of several classes each example is moved to the next one.
    split : StudySplit
        Examples.
    manifest : Alignment
        The job's.
    """
    size = manifest.evaluation.batch_size if manifest.evaluation else 100
    target_N = (split.y_N + 1) % split.num_classes
    parts: list[Tensor] = []
    for rows in torch.arange(len(split)).split(size):
        part = split.select(rows)
        parts.append(source(part.images(), part.y_N, target_N[rows], part.index_N))
    delta, exact = torch.cat(parts), split.delta_x()
    cosine_N = None if exact is None else alignment(delta, exact)
    metrics = {"delta_x_norm": float(_lengths(delta).mean())}
    if cosine_N is not None:
        metrics[COSINE] = float(cosine_N.mean())
    estimator = "direct" if manifest.stage == "generator" else manifest.delta_x.source
    files = {"examples.csv": _examples(split, delta, cosine_N)}
    files |= _figures(source, split, delta, cosine_N, estimator)
    lines = estimate_lines(split, delta, exact, estimator)
    pictures = [
        Picture(content, name.removesuffix(".png"), split.label)
        for name, content in files.items()
        if name.endswith(".png")
    ]
    facts = {"data": split.label, "examples": len(split), "seed": manifest.seed}
    files["alignment.html"] = estimate_page(manifest.name, lines, pictures, facts=facts).encode()
    return Judged(metrics, files)


def estimate_lines(
    split: StudySplit, delta: Tensor, exact: Tensor | None, estimator: str
) -> list[EstimateLine]:
    """Return the cosine to the true delta-x and mean lengths by class, beside published ones.

    Parameters
    ----------
    split : StudySplit
        Examples.
    delta, exact : Tensor
        Their delta-x (N, ...), estimated and, if it is known, true.
    estimator : str
        "direct", "projected" or another source of delta-x.
    """
    lines: list[EstimateLine] = []
    if exact is not None:
        cosine = float(alignment(delta, exact).mean())
        told = published_similarity(split.name, estimator)
        lines.append(EstimateLine("Cosine to the true Δx", cosine, 1.0, told))
    x = split.images()
    words = {"x": "x", "delta_x": "Δx", "x_prime": "x' = x + Δx"}
    for k in split.y_N.unique().tolist():
        rows, told = split.y_N == k, published_lengths(split.name, estimator, k)
        for name, what in words.items():
            measured, true = (
                None if one is None else float(_lengths(_moved(name, x, one)[rows]).mean())
                for one in (delta, exact)
            )
            assert measured is not None
            text = f"Length of {what}, class {class_name(split, k)}"
            lines.append(EstimateLine(text, measured, true, told.get(name)))
    return lines


def _moved(name: str, x: Tensor, delta: Tensor) -> Tensor:
    return {"x": x, "delta_x": delta, "x_prime": x + delta}[name]


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.flatten(1).norm(dim=1)


def _examples(split: StudySplit, delta: Tensor, cosine_N: Tensor | None) -> bytes:
    columns = {
        "index": split.index_N.numpy(),
        "class": split.y_N.numpy(),
        "delta_x_norm": _lengths(delta).numpy(),
    }
    if cosine_N is not None:
        columns["cosine"] = cosine_N.numpy()
    return pd.DataFrame(columns).to_csv(index=False).encode()


def _figures(
    source: DeltaXSource,
    split: StudySplit,
    delta: Tensor,
    cosine_N: Tensor | None,
    estimator: str,
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    if cosine_N is not None:
        figure = histogram_figure(
            {estimator: cosine_N.numpy()},
            label="Cosine to the true Δx",
            title=split.label,
            published=published_similarity(split.name, estimator),
        )
        files["cosine.png"] = render(figure)
    if has_images(split):
        x = split.images(slice(_SHOWN))
        rows = {"x": x.numpy(), "Δx": delta[:_SHOWN].numpy(), "x'": (x + delta[:_SHOWN]).numpy()}
        figure = comparison_figure(rows, signed=("Δx",), title=split.label)
        files["delta_x.png"] = render(figure)
        files |= x_prime_sheets(split, delta, source)
    return files
