"""What a training's epochs gave, one panel for each kind of number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robustray.alignment.metrics import ALPHA
from robustray.reports.style import OTHER, STAGE_COLOURS, framed, plain, style

Column = Sequence[float] | np.ndarray
_WIDTH, _HEIGHT = 5.2, 3.7  # of a panel, in inches


def _percent(share_N: np.ndarray) -> np.ndarray:
    return 100 * share_N


def _percent_right(error_N: np.ndarray) -> np.ndarray:
    return 100 * (1 - error_N)


def _as_it_is(values_N: np.ndarray) -> np.ndarray:
    return values_N


# Panels, and in each what is drawn of which column, under which words.
_PANELS: dict[str, dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]] = {
    "Loss": {
        "train_loss": ("training", _as_it_is),
        "critic_loss": ("critic", _as_it_is),
        "adversarial_loss": ("generator: class", _as_it_is),
        "length_loss": ("generator: length", _as_it_is),
        "validation_total_loss": ("all, validation", _as_it_is),
        "feature_distance": ("generator: features", _as_it_is),
        "generator_hinge": ("generator: hinge", _as_it_is),
    },
    "Accuracy (%)": {
        "train_error": ("training batches", _percent_right),
        "validation_clean": ("validation, clean", _percent),
    },
    "ε50, validation": {
        "epsilon_50": ("published formula", _as_it_is),
        "epsilon_50_corrected": ("corrected", _as_it_is),
    },
    "Alignment": {
        f"{ALPHA}_val": ("α, validation", _as_it_is),
        f"{ALPHA}_train": ("α, training batches", _as_it_is),
        "train_alignment": ("α, training batches", _as_it_is),
        "alpha_x_val": ("αx, validation", _as_it_is),
        "alpha_x_train": ("αx, training batches", _as_it_is),
    },
    "Cosine to the true Δx": {"validation_cosine": ("validation", _as_it_is)},
    "Mean length of Δx": {
        "norm_delta_x_0": ("class 0", _as_it_is),
        "norm_delta_x_1": ("class 1", _as_it_is),
    },
}


def epochs_figure(
    table: Mapping[str, Column],
    *,
    selected: int | None = None,
    title: str = "",
    word: str = "Epoch",
) -> Figure:
    """Draw losses, accuracies, median robustness and alignment by epoch, as far as they are known.

    Parameters
    ----------
    table : mapping of str to array
        Columns of equal length (N,): "epoch" and metrics under the names of trainings.
    selected : int, optional
        The epoch whose weights were kept; it is marked.
    title : str
        What was trained.
    word : str
        What is counted.

    Raises
    ------
    ValueError
        If no column is one that is drawn.
    """
    panels = {
        label: known
        for label, columns in _PANELS.items()
        if (known := {name: how for name, how in columns.items() if _is_known(table.get(name))})
    }
    if not panels:
        raise ValueError(f"nothing to draw among {', '.join(table)}")
    if f"{ALPHA}_train" in table and "Alignment" in panels:
        panels["Alignment"].pop("train_alignment", None)  # the same numbers
    with style():
        rows = -(-len(panels) // 2)
        columns = min(2, len(panels))
        figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.4), layout="constrained")
        places: Any = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes in places.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (label, known) in zip(places.flat, panels.items(), strict=False):
            _draw(framed(axes, word, label), table, known, selected)
        if title:
            figure.suptitle(plain(title), fontsize=16)
    return figure


def _is_known(column: Column | None) -> bool:
    return column is not None and bool(np.isfinite(np.asarray(column, float)).any())


def _draw(
    axes: Any,
    table: Mapping[str, Column],
    known: Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]],
    selected: int | None,
) -> None:
    epoch_N = np.asarray(table["epoch"], float)
    for number, (name, (words, transform)) in enumerate(known.items()):
        values_N = transform(np.asarray(table[name], float))
        axes.plot(
            epoch_N, values_N, color=STAGE_COLOURS[number], label=words,
            marker="osD^v"[number], markersize=4, linestyle=("-", "--", "-.", ":", "-")[number],
        )  # fmt: skip
    if selected is not None:
        axes.axvline(selected, color=OTHER, linestyle=":", linewidth=1.2, label="selected")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_tick_params(labelbottom=True)
    axes.margins(x=0.08)
    axes.legend(frameon=False, fontsize=11, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
