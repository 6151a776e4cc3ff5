"""Finished jobs side by side; jobs that differ in their seeds alone count as one method."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd
import yaml

from robustray.alignment.job.files import find_run
from robustray.alignment.manifest import Alignment
from robustray.alignment.metrics import ALPHA
from robustray.alignment.pages.figures import DrawnCurve, accuracy_figure, histogram_figure
from robustray.alignment.pages.methods import (
    corrected_columns,
    method_named,
    published_columns,
    strength_words,
)
from robustray.errors import ManifestError
from robustray.manifest import build_manifest
from robustray.reports.style import render
from robustray.runtime.file_jobs import Product, read_file
from robustray.runtime.job import Context
from robustray.store import ObjectStore, canonical_json

_NO_SETTINGS = ("kind", "name", "description", "resources", "tracking", "seed", "code")
_REFERENCE = {"run", "uri", "sha256"}


@dataclass(frozen=True)
class JudgedJob:
    """A finished job that judged a classifier.

    Attributes
    ----------
    name : str
        As the comparison's manifest names it.
    prefix : str
        Its place in the store.
    result : dict
        Its canonical result.
    seed : int
        Of the classifier's training.
    settings : bytes
        All that the numbers depend on but seeds.
    """

    name: str
    prefix: str
    result: dict[str, Any]
    seed: int
    settings: bytes

    @property
    def metrics(self) -> dict[str, float]:
        """Its numbers by name."""
        return self.result["metrics"]

    def table(self, store: ObjectStore, name: str) -> pd.DataFrame:
        """Read one of its tables."""
        return pd.read_csv(io.BytesIO(read_file(store, self.prefix, self.result, name)))


@dataclass(frozen=True)
class Method:
    """Jobs with the same settings and different seeds, under one name."""

    name: str
    jobs: tuple[JudgedJob, ...]

    def means(self) -> dict[str, float]:
        """Return the mean over seeds of every number that all jobs have."""
        return {name: fmean(values) for name, values in self._values().items()}

    def spreads(self) -> dict[str, float]:
        """Return the standard deviations over seeds; none for one seed."""
        if len(self.jobs) == 1:
            return {}
        return {name: stdev(values) for name, values in self._values().items()}

    def _values(self) -> dict[str, list[float]]:
        first, *others = (job.metrics for job in self.jobs)
        names = [name for name in first if all(name in other for other in others)]
        return {name: [first[name], *(other[name] for other in others)] for name in names}


def compare(context: Context) -> Product:
    """Put the methods of finished jobs on one page; see `robustray.runtime.job`.

    Raises
    ------
    ManifestError
        If a job is not finished, or judged no classifier.
    """
    manifest: Alignment = context.job.manifest
    assert manifest.comparison is not None
    store, data = context.store, manifest.data.name
    methods = group_by_method([_judged(store, name) for name in manifest.comparison.jobs])
    figures = {
        f"{label}.png": accuracy_figure(drawn, eps_label=strength_words(label), title=data)
        for label, drawn in _curves(methods, store).items()
    }
    if alphas := _alphas(methods, store):
        figures["alignment.png"] = histogram_figure(alphas, title=data)
    files = {name: render(figure) for name, figure in figures.items()}
    files["comparison.csv"] = _by_job(methods).to_csv(index=False).encode()
    return Product({"metrics": _metrics(methods)}, files)


def group_by_method(jobs: Sequence[JudgedJob]) -> list[Method]:
    """Group jobs that differ in their seeds alone, in the order of their first ones.

    A method has the name that its first job tells; the job's own where that is taken or none is
    told. Of two jobs with the same settings and the same seed the second stands by itself.
    """
    groups: dict[tuple[bytes, int], list[JudgedJob]] = {}
    for job in jobs:
        place = 0
        while any(job.seed == other.seed for other in groups.get((job.settings, place), ())):
            place += 1
        groups.setdefault((job.settings, place), []).append(job)
    methods: list[Method] = []
    for members in groups.values():
        name = method_named(members[0].name)
        taken = {method.name for method in methods}
        methods.append(Method(members[0].name if name in taken else name, tuple(members)))
    return methods


def _judged(store: ObjectStore, name: str) -> JudgedJob:
    prefix, result = find_run(store, name)
    if "clean_error" not in result["metrics"]:
        raise ManifestError(f"comparison.jobs: {name} judged no classifier")
    seed, settings = _settings(store, prefix)
    return JudgedJob(name, prefix, result, seed, canonical_json(settings))


def _settings(store: ObjectStore, prefix: str) -> tuple[int, dict[str, Any]]:
    """Return the seed of a job's network, and its settings without seeds and names.

    Where it names another job, that one's settings stand instead.
    """
    document = yaml.safe_load(store.get(f"{prefix}/manifest.yaml"))
    with suppress(ManifestError):  # with the fields that were added since
        document = build_manifest(document).model_dump(mode="json")
    weights = document.get("weights") or {}
    seed = document["seed"]
    if weights.get("run"):
        seed, _ = _settings(store, find_run(store, weights["run"])[0])
    kept = {name: value for name, value in document.items() if name not in _NO_SETTINGS}
    return seed, {name: _resolved(store, value) for name, value in kept.items()}


def _resolved(store: ObjectStore, value: Any) -> Any:
    """Put the settings of jobs in the places where they are named."""
    if not isinstance(value, dict):
        return value
    if value.get("run") and set(value) <= _REFERENCE:
        return _settings(store, find_run(store, value["run"])[0])[1]
    return {name: _resolved(store, one) for name, one in value.items()}


def _curves(methods: Sequence[Method], store: ObjectStore) -> dict[str, dict[str, DrawnCurve]]:
    """Return the curve of each method under each attack: the mean over its seeds."""
    curves: dict[str, dict[str, DrawnCurve]] = {}
    for method in methods:
        medians, spreads = method.means(), method.spreads()
        for file in sorted(method.jobs[0].result["files"]):
            label = file.removesuffix(".csv")
            if f"{label}_error_0" not in medians:
                continue
            tables: list[Any] = [job.table(store, file) for job in method.jobs]
            if label == "stadv":  # weights of smoothness: none of them is 0
                tables = [table[table["eps"] > 0] for table in tables]
            error_SN = np.stack([table["error"].to_numpy() for table in tables])
            curves.setdefault(label, {})[method.name] = DrawnCurve(
                tables[0]["eps"].tolist(),
                error_SN.mean(0).tolist(),
                medians.get(f"{label}_epsilon_50") if label != "stadv" else None,
                error_SN.std(0, ddof=1).tolist() if len(tables) > 1 else None,
                spreads.get(f"{label}_epsilon_50"),
            )
    return curves


def _alphas(methods: Sequence[Method], store: ObjectStore) -> dict[str, np.ndarray]:
    """Return the alignment of every example under every seed, by method, where it was measured."""
    found: dict[str, np.ndarray] = {}
    for method in methods:
        tables = [job.table(store, "examples.csv") for job in method.jobs]
        if all(ALPHA in table for table in tables):
            found[method.name] = np.concatenate([table[ALPHA].to_numpy() for table in tables])
    return found


def _metrics(methods: Sequence[Method]) -> dict[str, float]:
    found: dict[str, float] = {}
    for method in methods:
        found |= {f"{method.name}_{key}": value for key, value in method.means().items()}
        if len(method.jobs) > 1:
            found |= {f"{method.name}_{k}_std": value for k, value in method.spreads().items()}
            found[f"{method.name}_seeds"] = float(len(method.jobs))
    return found


def _by_job(methods: Sequence[Method]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": method.name,
            "job": job.name,
            "seed": job.seed,
            **published_columns(job.metrics),
            **corrected_columns(job.metrics),
        }
        for method in methods
        for job in method.jobs
    )
