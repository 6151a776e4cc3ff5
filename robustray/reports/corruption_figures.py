"""Accuracy on corrupted images as figures: by corruption, and by severity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from robustray.manifest.corruptions import FAMILIES
from robustray.reports.canvas import WIDTH, make_canvas, shorten
from robustray.reports.style import STAGE_COLOURS, framed, show_percent, style
from robustray.reports.words import plain

COLOURS = mpl.colormaps["cividis"]  # read the same under common colour blindness
_MARKERS = "so^Dv"
_FEW = 5  # networks whose names stand upright over their columns


def heat_figure(result: Mapping[str, Any], *, title: str = "", caption: str = "") -> Figure:
    """Draw the mean accuracy under each corruption, a column of colours and numbers for a network.

    Parameters
    ----------
    result : mapping
        Of the job.
    title, caption
        See `make_canvas`.
    """
    networks, names = result["networks"], _ordered(result["corruptions"])
    shown = np.array([
        [100 * network["corruptions"][name]["accuracy"] for network in networks.values()]
        for name in names
    ])  # fmt: skip
    with style():
        width = max(WIDTH, 2.6 + 0.62 * len(networks))
        height = 0.31 * len(names) + (0.6 if len(networks) <= _FEW else 1.9)
        figure = make_canvas(height, title=title, caption=caption, width=width)
        axes = figure.add_subplot()
        axes.imshow(shown, cmap=COLOURS, vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(shown):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center",
                      color=ink_on(value / 100), fontsize=12.5)  # fmt: skip
        few = len(networks) <= _FEW
        room = 5.6 / len(networks) if few else 2.4
        labels = [plain(shorten(name, 13, room)) for name in networks]
        axes.set_xticks(range(len(networks)), labels, rotation=0 if few else 50,
                        ha="center" if few else "left")  # fmt: skip
        axes.set_yticks(range(len(names)), [words_of(name) for name in names])
        axes.tick_params(length=0, labelsize=13, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
    return figure


def heat_title(result: Mapping[str, Any]) -> str:
    """Return what `heat_figure` shows, as a sentence: the corruption that costs most."""
    names, networks = _ordered(result["corruptions"]), result["networks"].values()
    means = {
        name: sum(n["corruptions"][name]["accuracy"] for n in networks) / len(networks)
        for name in names
    }
    worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[worst] == means[best]:
        return f"Under every corruption {100 * means[worst]:.0f} % are classified correctly"
    return (
        f"Hardest is {words_of(worst)}, {100 * means[worst]:.0f} % correct; easiest is "
        f"{words_of(best)}, {100 * means[best]:.0f} %"
    )


def severity_figure(result: Mapping[str, Any], *, title: str = "", caption: str = "") -> Figure:
    """Draw the accuracy of each network against severity, mean over the averaged corruptions.

    Parameters
    ----------
    result : mapping
        Of the job.
    title, caption
        See `make_canvas`.
    """
    networks = result["networks"]
    with style():
        figure = make_canvas(4.6 + 0.26 * -(-len(networks) // 2), title=title, caption=caption)
        axes = figure.add_subplot()
        for number, (name, network) in enumerate(networks.items()):
            points = _by_severity(result, network)
            (line,) = axes.plot(
                [severity for severity, _ in points],
                [100 * accuracy for _, accuracy in points],
                color=STAGE_COLOURS[number % len(STAGE_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                linestyle=("-", "--", ":")[number // len(STAGE_COLOURS) % 3],
                linewidth=2,
                label=plain(shorten(name, 13, 2.9)),
            )
            line.set_url(f"tip:{name}")
        clean = any(network["clean"] for network in networks.values())
        axes.set_xticks([*([0] if clean else []), *sorted(result["severities"])])
        show_percent(axes)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=13,
            handletextpad=0.5, columnspacing=1.2, labelspacing=0.3, borderaxespad=0.1,
        )  # fmt: skip
        zero = " (0: without corruption)" if clean else ""
        framed(axes, f"severity{zero}", "% accuracy")
    return figure


def severity_title(result: Mapping[str, Any]) -> str:
    """Return what `severity_figure` shows, as a sentence: the best network's first and last."""
    best = max(result["networks"], key=lambda name: result["networks"][name]["mean_accuracy"])
    points = _by_severity(result, result["networks"][best])
    (first, high), (last, low) = points[0], points[-1]
    start = f"{best}: {100 * high:.0f} % correct "
    start += f"at severity {first}" if first else "without corruption"
    return f"{start}, {100 * low:.0f} % at severity {last}" if len(points) > 1 else start


def ink_on(accuracy: float) -> str:
    """Return the colour of text that is read on an accuracy's colour."""
    red, green, blue, _ = COLOURS(accuracy)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def _by_severity(result: Mapping[str, Any], network: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Return severities with the mean accuracy, ascending; 0 is without corruption."""
    points = [(0, network["clean"]["accuracy"])] if network["clean"] else []
    for place, severity in enumerate(result["severities"]):
        found = [
            network["corruptions"][name]["severities"][place]["accuracy"]
            for name in result["averaged"]
        ]
        points.append((severity, sum(found) / len(found)))
    return sorted(points)


def families(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield families with those of the names that belong to them; "other" takes the rest."""
    known = {name for members in FAMILIES.values() for name in members}
    others = {"other": [name for name in names if name not in known]}
    for family, members in {**FAMILIES, **others}.items():
        if found := [name for name in members if name in names]:
            yield family, found


def _ordered(names: Sequence[str]) -> list[str]:
    return [name for _, members in families(names) for name in members]


def words_of(name: str) -> str:
    """Return how a corruption is written."""
    return name.replace("_", " ")
