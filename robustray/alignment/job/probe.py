"""Does alignment predict robust accuracy? Measured over the networks of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from robustray.alignment import alignment, class_gradient, closest_class, jacobian
from robustray.alignment.delta_x import nearest_other
from robustray.alignment.manifest import Alignment
from robustray.alignment.pages.figures import probe_figure
from robustray.data import Split
from robustray.errors import UserError
from robustray.evaluation.study_setting import resolve_study, selected_subject
from robustray.evaluation.subjects import load_subject
from robustray.manifest import Evaluation, build_manifest
from robustray.reports.frontier import kendall
from robustray.reports.style import accuracy_label, correlation_words, render
from robustray.runtime.file_jobs import Product
from robustray.runtime.job import Context
from robustray.store.staged_data import load_staged_dataset
from robustray.sweeps.records import finished_trials
from robustray.sweeps.trial import read_result


def probe(context: Context, root: Path, device: torch.device) -> Product:
    """Measure the alignment of each finished trial of some studies with the nearest delta-x.

    Networks of studies take images in [0, 1], so the images are the study's own there. Alpha is
    the cosine between delta-x and grad(f_c - f_y), c the closest class, averaged over images.
    """
    manifest: Alignment = context.job.manifest
    assert manifest.probe is not None
    rows: list[dict[str, Any]] = []
    for name in manifest.probe.studies:
        wanted = build_manifest(
            {"kind": "Evaluation", "study": name, "data": {"first": manifest.data.first}}
        )
        assert isinstance(wanted, Evaluation)
        setting = resolve_study(wanted, context.store, str(root))
        known = load_staged_dataset(setting.study.manifest.data, root, context.store).train
        known = known.select(slice(manifest.data.train_limit)).to(device)
        images = setting.images.split.to(device)
        done = finished_trials(context.store, setting.study)
        for trial in setting.study.trials:
            if trial.name not in done:
                continue
            subject = selected_subject(context.store, setting, trial)
            model = load_subject(subject, context.store).to(device)
            result = read_result(context.store, setting.study.trial_prefix(trial.name))
            assert result is not None
            alpha = mean_alignment(model, images, known, manifest.probe.batch_size)
            rows.append({"study": name, "trial": trial.name, "alpha": alpha, **result["metrics"]})
    if not rows:
        raise UserError(f"no trial of {', '.join(manifest.probe.studies)} is finished")
    return _product(pd.DataFrame(rows), manifest)


def mean_alignment(model: nn.Module, images: Split, known: Split, batch_size: int) -> float:
    """Return a network's mean alignment with the way to the nearest image of the closest class.

    Parameters
    ----------
    model : nn.Module
        Images in [0, 1] to logits (B, K), on the images' device.
    images, known : Split
        What is measured, and what is searched for the nearest image.
    batch_size : int
        Images at a time.
    """
    near_x = known.x_NCHW.float() / 255
    values: list[Tensor] = []
    for rows in torch.arange(len(images)).split(batch_size):
        part = images.select(rows.to(images.y_N.device))
        x = part.x_NCHW.float() / 255
        near_B = closest_class(*jacobian(model, x), part.y_N)
        delta, _ = nearest_other(x, part.y_N, near_x, known.y_N, near_B)
        values.append(alignment(class_gradient(model, x, near_B, part.y_N), delta))
    return float(torch.cat(values).mean())


def _product(table: pd.DataFrame, manifest: Alignment) -> Product:
    """Write the table, and a figure with the rank correlation for each accuracy."""
    files = {"probe.csv": table.to_csv(index=False).encode()}
    metrics: dict[str, float] = {"networks": float(len(table))}
    accuracies = [name for name in table.columns if name not in ("study", "trial", "alpha")]
    for name in accuracies:
        known = table[["alpha", name]].dropna()
        found = kendall(known["alpha"].tolist(), known[name].tolist())
        if found is not None:
            metrics[f"kendall_{name}"] = found.tau
        figure = probe_figure(
            known["alpha"], known[name], accuracy_label=accuracy_label(name),
            words=f"Kendall {correlation_words(found)}", title=manifest.name,
        )  # fmt: skip
        files[f"probe-{name}.png"] = render(figure)
    return Product({"metrics": metrics}, files)
