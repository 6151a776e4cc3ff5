"""Finished jobs of Mixing and Alignment: made-up numbers, drawn by the code for real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from robustray.alignment.job import presenting as alignment
from robustray.alignment.metrics import ALPHA
from robustray.alignment.pages.answers import COSINE
from robustray.alignment.pages.epochs import epochs_figure
from robustray.alignment.pages.figures import DrawnCurve, accuracy_figure, histogram_figure
from robustray.alignment.pages.sheets import ClassPairs, comparison_figure, pairs_figure
from robustray.manifest import build_manifest
from robustray.reports.style import render
from robustray.runtime.finished import Finished
from robustray.smoothing.job import presenting as mixing
from robustray.smoothing.pages.figures import Plane, plane_figure, weight_figure

EPS = (0.0, 0.05, 0.1, 0.2)
ERRORS = {"baseline": (0.02, 0.7, 0.9, 1.0), "l_alpha": (0.03, 0.1, 0.2, 0.4)}
BASE = {"model": {"name": "preact_resnet"}, "weights": {"uri": "net.safetensors"}}
MADE = {"Manifest (SHA-256)": "f" * 64, "Time": "1,234 s in 1 attempt", "Device": "CPU, 2 threads"}


def finished(
    document: Mapping[str, Any], metrics: Mapping[str, float], files: Mapping[str, Any]
) -> Finished:
    """A finished job of a manifest: tables become CSV, figures PNG."""
    written = {
        name: content.to_csv(index=False).encode()
        if isinstance(content, pd.DataFrame)
        else render(content)
        for name, content in files.items()
    }
    manifest = build_manifest(dict(document))
    job = f"{manifest.name}-1a2b3c4d"
    return Finished(job, manifest, {"metrics": dict(metrics), "selected_epoch": 3}, written, MADE,
                    f"s3://bucket/jobs/{job}", tracking_uri="http://mlflow.invalid")  # fmt: skip


def mixed() -> Finished:
    """A mixed classifier that lies above the line between its bases."""
    plane = Plane(
        (0.9, 0.0), (0.7, 0.5), {0.25: (0.87, 0.1), 0.5: (0.8, 0.3)},
        [(0.0, 0.9, 0.05), (0.5, 0.82, 0.35), (1.0, 0.7, 0.5)],
        {"standard": (0.83, 0.42), "worst case": (0.83, 0.38)},
    )  # fmt: skip
    source = np.random.default_rng(0)
    weights = {"clean": source.beta(2, 5, 500), "attacked": source.beta(5, 2, 500)}
    judged = pd.DataFrame(
        [("accurate", 0.9, 0.0, 0.0), ("alpha-0.5", 0.8, 0.3, 0.05), ("mixture", 0.83, 0.42, 0.24)],
        columns=pd.Index(["judged", "clean", "robust", "above_line"]),
    )
    fixed = pd.DataFrame(plane.curve, columns=pd.Index(["alpha", "clean", "robust_at_most"]))
    metrics = {
        "accurate_clean": 0.9, "accurate_robust": 0.0, "robust_clean": 0.7, "robust_robust": 0.5,
        "mixture_clean": 0.83, "mixture_robust": 0.42, "mixture_worst_case": 0.38,
    }  # fmt: skip
    document = {"kind": "Mixing", "name": "mixed", "data": {"name": "cifar10"},
                "accurate": BASE, "robust": BASE}  # fmt: skip
    return finished(document, metrics, {
        "judgements.csv": judged, "fixed_weights.csv": fixed,
        "trade_off.png": plane_figure(plane), "weights.png": weight_figure(weights),
    })  # fmt: skip


def _document(name: str, stage: str, **sections: Any) -> dict[str, Any]:
    return {"kind": "Alignment", "name": name, "stage": stage, "data": {"name": "squares32"},
            **sections}  # fmt: skip


def _curve(errors: tuple[float, ...]) -> pd.DataFrame:
    return pd.DataFrame({"eps": EPS, "error": errors})


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, 1, 16, 16))


def classifier(method: str = "l_alpha") -> Finished:
    """A classifier whose alignment was measured; the curve of L_α never reaches 50 %."""
    attack = {"attack": "pgd", "eps": list(EPS[1:]), "step_size": 0.02}
    training = {"method": method, "epochs": 5, "validation": attack}
    x, errors = _images(8), ERRORS[method]
    alphas = np.linspace(0.1, 0.9, 200)
    table = {"epoch": [1, 2, 3, 4, 5], "train_loss": [2.0, 1.0, 0.7, 0.6, 0.5],
             "validation_clean": [0.5, 0.8, 0.9, 0.9, 0.91]}  # fmt: skip
    pairs = [
        ClassPairs(name, x[:3], -x[:3], ["large", "small", "large"], [True, False, True])
        for name in ("small", "large")
    ]
    metrics = {"clean_error": errors[0], ALPHA: 0.5, "alpha_x": 0.1, "pgd-linf_epsilon_50": 0.19,
               "pgd-linf_epsilon_50_corrected": float("inf")}  # fmt: skip
    document = _document(f"squares-{method}", "classifier", training=training,
                         delta_x={"source": "exact"}, evaluation={"attacks": [attack]})  # fmt: skip
    return finished(document, metrics, {
        "examples.csv": pd.DataFrame({ALPHA: alphas, "alpha_x": alphas / 5}),
        "epochs.csv": pd.DataFrame(table), "pgd-linf.csv": _curve(errors),
        "pgd-linf.png": accuracy_figure(
            {method: DrawnCurve(EPS, errors, 0.19)}, eps_label="ε (PGD, l∞)"
        ),
        "alignment.png": histogram_figure({method: alphas}),
        "epochs.png": epochs_figure(table, selected=3),
        "gradients.png": comparison_figure(
            {"x": x, "gradient": x}, signed=("gradient",), title="squares32"
        ),
        "pgd-linf_adversarial.png": pairs_figure(pairs, title="PGD l∞ at ε = 0.2"),
    })  # fmt: skip


def comparison(methods: tuple[str, ...] = ("baseline", "l_alpha")) -> Finished:
    """Methods of which one never reaches 50 %, each trained with two seeds."""
    half = {"baseline": 0.035, "l_alpha": float("inf")}
    rows = [
        {"method": method, "job": f"squares-{method}-{seed}", "seed": seed, "accuracy_pct": 98.0,
         "eps50_pgd_linf": 0.035 if method == "baseline" else 0.19 + 0.01 * seed,
         "alpha_delta_x": 0.1 + 0.4 * (method == "l_alpha") + 0.01 * seed, "alpha_x": 0.05,
         "PGD l∞ ε50 corrected": half[method] + 0.001 * seed}
        for method in methods
        for seed in (0, 1)
    ]  # fmt: skip
    curves = {
        method: DrawnCurve(EPS, ERRORS[method], 0.035, [0.0, 0.05, 0.04, 0.02])
        for method in methods
    }
    alphas = {method: np.linspace(0, 0.5 + 0.4 * (method == "l_alpha"), 300) for method in methods}
    metrics = {
        f"{method}_pgd-linf_error_{eps:g}": error
        for method in methods
        for eps, error in zip(EPS, ERRORS[method], strict=True)
    }
    metrics |= {f"{name}_std": 0.01 for name in metrics}
    jobs = [row["job"] for row in rows]
    return finished(
        _document("squares-all", "comparison", comparison={"jobs": jobs}), metrics,
        {"comparison.csv": pd.DataFrame(rows),
         "pgd-linf.png": accuracy_figure(curves, eps_label="ε (PGD, l∞)"),
         "alignment.png": histogram_figure(alphas)},
    )  # fmt: skip


def estimate() -> Finished:
    """A generator's Δx beside the truth."""
    cosines, x = np.linspace(0.2, 0.9, 200), _images(8)
    lengths = [
        {"class": k, "name": name, "what": what, "mean": 1.0 + k, "true": 1.2 + k}
        for k, name in enumerate(("small", "large"))
        for what in ("x", "delta_x", "x_prime")
    ]
    return finished(
        _document("way", "generator", generator={"epochs": 2}),
        {COSINE: 0.55, "delta_x_norm": 1.4},
        {"examples.csv": pd.DataFrame({"cosine": cosines}), "lengths.csv": pd.DataFrame(lengths),
         "cosine.png": histogram_figure({"direct": cosines}, label="Cosine to the true Δx",
                                        published=0.7),
         "delta_x.png": comparison_figure({"x": x, "Δx": x, "x'": x}, signed=("Δx",),
                                          title="squares32")},
    )  # fmt: skip


PAGES: dict[str, Callable[[], str]] = {
    "mixing": lambda: _page(mixing.present, mixed()),
    "alignment": lambda: _page(alignment.present, classifier()),
    "comparison": lambda: _page(alignment.present, comparison()),
    "estimate": lambda: _page(alignment.present, estimate()),
}


def _page(present: Callable[[Finished], Any], job: Finished) -> str:
    return present(job).files["report.html"].decode()
