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
from robustray.alignment.pages.answers import COSINE
from robustray.alignment.pages.figures import histogram_figure
from robustray.alignment.pages.methods import published_similarity
from robustray.alignment.pages.sheets import comparison_figure
from robustray.alignment.splits import StudySplit
from robustray.reports.style import render

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
    files["lengths.csv"] = length_table(split, delta, exact).to_csv(index=False).encode()
    return Judged(metrics, files)


def length_table(split: StudySplit, delta: Tensor, exact: Tensor | None) -> pd.DataFrame:
    """Return mean lengths by class: of x, of delta-x, and of x' = x + delta-x.

    Parameters
    ----------
    split : StudySplit
        Examples.
    delta, exact : Tensor
        Their delta-x (N, ...), estimated and, if it is known, true.

    Returns
    -------
    DataFrame
        Columns class, name (of the class), what ("x", "delta_x", "x_prime"), mean, and true, which
        is empty where the truth is not known.
    """
    x, rows = split.images(), list[dict[str, object]]()
    for k in split.y_N.unique().tolist():
        of_class = split.y_N == k
        for what in ("x", "delta_x", "x_prime"):
            mean, true = (
                None if one is None else float(_lengths(_moved(what, x, one)[of_class]).mean())
                for one in (delta, exact)
            )
            name = class_name(split, k)
            rows.append({"class": k, "name": name, "what": what, "mean": mean, "true": true})
    return pd.DataFrame(rows)


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
