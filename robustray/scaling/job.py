"""What the command line does about the published study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustray.files import write_atomically
from robustray.manifest import ModelConfig, Recipe, Sweep
from robustray.reports import TrialRow, kendall, render
from robustray.reports.html import Picture
from robustray.reports.rows import Axis, judged
from robustray.reports.style import correlation_words
from robustray.runtime.session import start_tracking
from robustray.scaling.pages.figures import METRIC, compare_scale_figure, compound_scale_figure
from robustray.scaling.pages.grids import scale_figure
from robustray.scaling.pages.paper import paper_page
from robustray.scaling.pages.published import (
    names_of,
    published_correlations,
    published_tables,
    setting,
)
from robustray.scaling.pages.tables import (
    Line,
    MeasuredStudy,
    Measurement,
    columns,
    compare_table,
    csv_bytes,
    parquet_bytes,
)
from robustray.scaling.rules import split
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study
from robustray.sweeps.mending import list_studies
from robustray.sweeps.plan import make_plan
from robustray.sweeps.records import TrialState, load_study, read_trials
from robustray.sweeps.report import grid_kind
from robustray.sweeps.runs import trial_row
from robustray.tracking import RunRecord

NAME = "robust_resnets"
_EPS = 8 / 255
_ROBUST = {"scales": 8, "base_width": 10, "cardinality": 4, "se_reduction": 64}
_TITLES = {
    "compare_scale": "Ways to scale, compared",
    "compound_scale": "Compound scaling",
    "scale_depth": "Scaling by depth",
    "scale_width": "Scaling by width",
}


@dataclass(frozen=True)
class WrittenPaper:
    """A written report: its folder, its files, and how many accuracies are measured."""

    folder: Path
    artifacts: dict[str, bytes]
    measured: int
    accuracies: int


def publish_paper(
    studies: Sequence[Study],
    store: ObjectStore,
    report_root: Path,
    tracking_uri: str,
    say: Callable[[str], None],
) -> WrittenPaper:
    """Write the tables and figures, into the store and to MLflow as well.

    Parameters
    ----------
    studies : sequence of Study
        Whose finished trials count, as far as they are what a table speaks of.
    store : ObjectStore
        Where they are; the report goes to ``reports/robust_resnets``.
    report_root : Path
        The report goes to ``report_root/robust_resnets``.
    tracking_uri : str
        MLflow; may be away.
    say : callable
        Takes lines for a person.
    """
    files, compared = _make(*_read(studies, store))
    folder = report_root / NAME
    for name, data in files.items():
        write_atomically(folder / name, data)
        store.put(f"reports/{NAME}/{name}", data)
    artifacts = {f"report/{name}": data for name, data in files.items()}
    _track(tracking_uri, [study.id for study in studies], artifacts, say)
    cells = [
        cell
        for lines in compared.values()
        for line in lines
        for column, cell in line.cells.items()
        if column not in ("parameters", "macs")
    ]
    return WrittenPaper(folder, artifacts, sum(c.measured is not None for c in cells), len(cells))


def _read(
    studies: Sequence[Study], store: ObjectStore
) -> tuple[list[Measurement], list[MeasuredStudy]]:
    measurements, grids = [], []
    for study in studies:
        if not _counts(study.manifest):
            continue
        profiles = {name: cost.profile for name, cost in make_plan(study).costs.items()}
        states = read_trials(store, study)
        rows = [trial_row(s, profiles[s.trial.name], failed=s.status == "failed") for s in states]
        measurements += _measurements(study, states, rows)
        grids.append(_study(study, rows))
    return measurements, grids


def _counts(manifest: Sweep) -> bool:
    """Whether a study's threat model is the paper's, and its networks are what they are named."""
    threat = manifest.evaluation.threat or manifest.recipe.threat
    return manifest.narrow is None and threat.norm == "linf" and abs(threat.eps - _EPS) < 1e-9


def _training(recipe: Recipe) -> str:
    """Return how the tables call a recipe; TRADES on pseudo-labelled images too is "rst"."""
    threat = recipe.threat
    further = ["awp"] if recipe.awp else []
    if recipe.objective != "natural" and (threat.norm != "linf" or abs(threat.eps - _EPS) > 1e-9):
        further.append(f"{threat.norm} {threat.eps:g}")
    name = recipe.objective
    if recipe.mixture is not None:
        name = "rst" if name == "trades" else f"{name} on extra images"
    return " with ".join([name, *further])


def _measurements(
    study: Study, states: Sequence[TrialState], rows: Sequence[TrialRow]
) -> list[Measurement]:
    manifest = study.manifest
    data = manifest.data
    restricted = any(part is not None for part in (data.parts, data.train_limit, data.test_limit))
    return [
        Measurement(
            study.id, data.name, _training(manifest.recipe), manifest.recipe.epochs,
            state.result["data"]["label"], restricted, _names(state.trial.model), row,
        )
        for state, row in zip(states, rows, strict=True)
        if state.result is not None
    ]  # fmt: skip


def _names(model: ModelConfig) -> tuple[str, ...]:
    """Return a network's names; none where it has options that the published ones haven't."""
    options = model.options()
    block = options.pop("block", "basic")
    depths, widths = options.pop("depths", ()), options.pop("widths", ())
    if block == "robust":
        options = {k: v for k, v in options.items() if _ROBUST.get(k) != v}
    if options:
        return ()
    if model.name == "preact_resnet" and isinstance(block, str) and depths and widths:
        return (setting(block, depths, widths),)
    return names_of(model.name)


def _study(study: Study, rows: Sequence[TrialRow]) -> MeasuredStudy:
    manifest = study.manifest
    partial = len(judged(rows, METRIC)) < len(study.trials)
    return MeasuredStudy(
        study.id, manifest.data.name, _training(manifest.recipe),
        grid_kind(manifest.grid), rows, partial,
    )  # fmt: skip


def _make(
    measured: list[Measurement], grids: list[MeasuredStudy]
) -> tuple[dict[str, bytes], dict[str, list[Line]]]:
    """Return every file by its name, and the compared tables."""
    tables = published_tables()
    compared = {name: compare_table(table, measured) for name, table in tables.items()}
    files: dict[str, bytes] = {}
    for name, table in tables.items():
        cells = columns(table, compared[name])
        files[f"{name}.csv"], files[f"{name}.parquet"] = csv_bytes(cells), parquet_bytes(cells)
    pictures = []
    for name, figure, words in [*_of_tables(compared, measured), *map(_of_grid(grids), _AXES)]:
        files[f"{name}.png"] = render(figure)
        pictures.append(Picture(files[f"{name}.png"], _TITLES[name], words))
    words, files["correlations.csv"] = _correlations(grids)
    pairs = [(tables[name], lines) for name, lines in compared.items()]
    files["paper.html"] = paper_page(pairs, pictures, words).encode()
    return files, compared


_AXES: tuple[Axis, ...] = ("depth", "width")


def _of_tables(compared: dict[str, list[Line]], measured: list[Measurement]) -> list:
    basic = [
        m.row
        for m in measured
        if (m.data, m.objective) == ("cifar10", "trades")
        and any(name.startswith("basic ") for name in m.models)
        and _is_split(m.row)
    ]
    words = (
        "Open marks on dashed lines are published (with known corrections), filled ones on solid "
        "lines measured; costs are counted."
    )
    compare = compare_scale_figure(compared, "CIFAR-10, TRADES")
    compound = compound_scale_figure(compared["figure_compound"], basic, "CIFAR-10, TRADES")
    return [("compare_scale", compare, words), ("compound_scale", compound, words)]


def _is_split(row: TrialRow) -> bool:
    """Whether depths and widths are divided over the stages as the compound rule does."""
    if len(row.depths) != 3 or len(row.widths) != 3 or sum(row.depths) < 5 or sum(row.widths) < 3:
        return False
    ruled = split(sum(row.depths), round(sum(row.widths)))
    return (row.depths, row.widths) == (ruled.depths, tuple(map(float, ruled.widths)))


def _largest(grids: Sequence[MeasuredStudy], by: Axis) -> MeasuredStudy | None:
    """Return the study of one axis on CIFAR-10 under TRADES with most results."""
    found = [g for g in grids if (g.grid, g.data, g.objective) == (by, "cifar10", "trades")]
    return max(found, key=lambda g: (len(judged(g.rows, METRIC)), g.id), default=None)


def _of_grid(grids: Sequence[MeasuredStudy]) -> Callable:
    def draw(by: Axis) -> tuple:
        study = _largest(grids, by)
        rows = study.rows if study else []
        printed = published_correlations()[by]
        caption = f"{study.id if study else 'no study in the store'}; published tau {printed:.3f}"
        partial = study is None or study.partial
        figure = scale_figure(rows, by=by, metric=METRIC, caption=caption, partial=partial)
        words = "The networks of the published figure are not printed; these are measured."
        return f"scale_{by}", figure, words

    return draw


def _correlations(grids: Sequence[MeasuredStudy]) -> tuple[str, bytes]:
    lines, words = ["grid,published_tau,measured_tau,p_value,n,study"], []
    for by, printed in published_correlations().items():
        study = _largest(grids, by)  # type: ignore[arg-type]
        found = judged(study.rows, METRIC) if study else []
        tau = kendall([row.macs for row in found], [row.metrics[METRIC] for row in found])
        numbers = f"{tau.tau!r},{tau.p_value!r}" if tau else "missing,missing"
        lines.append(f"{by},{printed!r},{numbers},{len(found)},{study.id if study else 'missing'}")
        measured = correlation_words(tau) if tau else "MISSING"
        words.append(f"{by} {printed:.3f} published, {measured} measured")
    text = f"Kendall's tau between MACs and CW-40: {'; '.join(words)}."
    return text, ("\n".join(lines) + "\n").encode()


def _track(
    uri: str, studies: list[str], artifacts: dict[str, bytes], say: Callable[[str], None]
) -> None:
    now = int(time.time() * 1000)
    record = RunRecord(
        key=f"reports/{NAME}", name=NAME, experiment=NAME, status="FINISHED", start_ms=now,
        end_ms=now, tags={"studies": ", ".join(studies)}, artifacts=artifacts,
    )  # fmt: skip
    uploader = start_tracking(uri, say)
    try:
        uploader.submit(record.key, lambda: record)
        if uploader.drain():
            say("the report is not in MLflow yet; run the same command again when MLflow answers")
    finally:
        uploader.close()


Say = Callable[[str], None]


def paper(
    names: Sequence[str], store: ObjectStore, report_root: Path, tracking_uri: str, say: Say
) -> None:
    """Write the published study's tables and figures from some studies, or from all."""
    studies = [load_study(store, name) for name in names or list_studies(store)]
    written = publish_paper(studies, store, report_root, tracking_uri, say)
    say(f"measured     {written.measured} of {written.accuracies} accuracies of the tables")
    say(f"report       {written.folder / 'paper.html'}")
