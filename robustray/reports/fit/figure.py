"""What the fit of a study says: accuracy against cost, and against each stage's share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustray.reports.canvas import make_canvas
from robustray.reports.fit.surface import Shape, Surface
from robustray.reports.rows import Axis, TrialRow, judged
from robustray.reports.style import GREY, STAGE_COLOURS, VERMILION, accuracy_label, framed, style
from robustray.reports.words import amount, metric_label

WORDS = (
    "A ridge regression of accuracy on the logarithm of the MACs and on each stage's share, linear "
    "and squared. Lines: what it expects; bands: 95 % intervals from resampling the networks. "
    "First panel: an even division. Others: one stage's share varies at the median cost, the other "
    "stages divide the rest evenly."
)
_STEPS = 41


def fit_figure(
    surface: Surface,
    rows: Sequence[TrialRow],
    *,
    metric: str,
    title: str = "",
    caption: str = "",
    partial: bool = False,
) -> Figure:
    """Draw a fitted surface: against cost with the networks, and against shares.

    Parameters
    ----------
    surface : Surface
        Fitted to the rows.
    rows : sequence of TrialRow
        The trials.
    metric : str
        The accuracy.
    title, caption, partial
        See `make_canvas`.
    """
    with style():
        figure = make_canvas(
            4.6 if not surface.axes else 4.4 + 3.6 * len(surface.axes),
            title=title, caption=caption, partial=partial,
        )  # fmt: skip
        panels = figure.subplots(1 + len(surface.axes), 1, squeeze=False)[:, 0]
        _draw_cost(panels[0], surface, rows, metric)
        for panel, by in zip(panels[1:], surface.axes, strict=True):
            _draw_shares(panel, surface, by, metric)
    return figure


def fit_title(surface: Surface) -> str:
    """Return how well a fit predicts, as a sentence."""
    return (
        f"A fit to {len(surface.shapes)} networks predicts one that was left out within "
        f"{100 * surface.error:.1f} points; their mean, within {100 * surface.blind:.1f}"
    )


def even_shape(surface: Surface, macs: float) -> Shape:
    """Return a shape of some cost whose stages share alike."""
    return Shape(macs, *(_even(surface.shapes[0].share(by)) for by in ("width", "depth")))


def _even(share: tuple[float, ...]) -> tuple[float, ...]:
    return (1 / len(share),) * len(share) if share else ()


def _draw_cost(panel: Axes, surface: Surface, rows: Sequence[TrialRow], metric: str) -> None:
    low, high = surface.macs
    costs = np.geomspace(low, high, _STEPS)
    found = judged(rows, metric)
    marks = panel.scatter(
        [row.macs for row in found], [100 * row.metrics[metric] for row in found],
        s=26, color=GREY, alpha=0.7, label="networks", linewidths=0,
    )  # fmt: skip
    marks.set_urls([
        f"tip:{row.name}: {100 * row.metrics[metric]:.1f} % under {metric_label(metric)}, "
        f"{amount(row.macs)} MACs"
        for row in found
    ])  # fmt: skip
    shapes = [even_shape(surface, float(cost)) for cost in costs]
    _line(panel, costs, surface, shapes, VERMILION, "fit, an even division")
    panel.set_xscale("log", base=2)
    ticks = np.geomspace(low, high, 5)
    panel.set_xticks(ticks, [amount(float(tick)) for tick in ticks])
    panel.minorticks_off()
    panel.legend(frameon=False, loc="upper left")
    framed(panel, "MACs", accuracy_label(metric))


def _draw_shares(panel: Axes, surface: Surface, by: Axis, metric: str) -> None:
    shares = np.array([shape.share(by) for shape in surface.shapes])
    middle = float(np.median([shape.macs for shape in surface.shapes]))
    for stage in range(shares.shape[1]):
        values = np.linspace(shares[:, stage].min(), shares[:, stage].max(), _STEPS)
        shapes = [_with_share(surface, middle, by, stage, float(one)) for one in values]
        colour = STAGE_COLOURS[stage % len(STAGE_COLOURS)]
        _line(panel, 100 * values, surface, shapes, colour, f"stage {stage + 1}")
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    framed(panel, f"% of the {by} in one stage", accuracy_label(metric))


def _with_share(surface: Surface, macs: float, by: Axis, stage: int, share: float) -> Shape:
    even = even_shape(surface, macs)
    stages = len(even.share(by))
    changed = [(1 - share) / (stages - 1)] * stages
    changed[stage] = share
    both = {one: even.share(one) for one in ("width", "depth")} | {by: tuple(changed)}
    return Shape(macs, both["width"], both["depth"])


def _line(
    panel: Axes, x: np.ndarray, surface: Surface, shapes: Sequence[Shape], colour: str, label: str
) -> None:
    found = surface.predict(shapes)
    panel.plot(x, [100 * one.accuracy for one in found], color=colour, label=label, linewidth=2)
    low, high = [100 * one.low for one in found], [100 * one.high for one in found]
    panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
