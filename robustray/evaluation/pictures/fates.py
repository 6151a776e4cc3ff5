"""What became of the images under attack: in all, attack by attack, and for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustray.evaluation.units.merge import Merged
from robustray.reports.canvas import make_canvas, shorten
from robustray.reports.intervals import wilson
from robustray.reports.style import BLUE, GREY, SKY, VERMILION, style
from robustray.reports.words import plain

MISCLASSIFIED, UNDECIDED, ROBUST, BROKEN = "misclassified", "undecided", "robust", "broken"
_COLOURS = {ROBUST: BLUE, UNDECIDED: SKY, BROKEN: VERMILION, MISCLASSIFIED: GREY}
_INK = "#101010"  # on a light bar; black is the colour of a page's text, which may be light
_MOST = 30  # classes that are drawn one by one
_ENDS = 12  # of more classes, how many of the least and of the most robust


@dataclass(frozen=True)
class Fate:
    """Images that ended in the same way.

    Attributes
    ----------
    kind : str
        "misclassified" (without attack), "broken", "undecided" or "robust".
    attack : str
        The first attack that broke them; "" for the other kinds.
    images : int
        How many.
    """

    kind: str
    attack: str
    images: int

    @property
    def words(self) -> str:
        """What a row of the figure is called."""
        return {
            MISCLASSIFIED: "misclassified",
            BROKEN: f"broken by {self.attack}",
            UNDECIDED: "not decided yet",
            ROBUST: "robust",
        }[self.kind]


@dataclass(frozen=True)
class ClassFates:
    """How many images of a class are robust, undecided, broken and misclassified."""

    name: str
    robust: int
    undecided: int
    broken: int
    misclassified: int

    @property
    def images(self) -> int:
        """How many there are."""
        return self.robust + self.undecided + self.broken + self.misclassified

    def share(self, kind: str) -> float:
        """Return the share of a kind, in [0, 1]."""
        return getattr(self, kind) / self.images


def count_fates(merged: Merged, labels: Sequence[str]) -> list[Fate]:
    """Return what became of all images: a partition, in the order of the suite.

    Parameters
    ----------
    merged : Merged
        The verdicts; images without a row are undecided.
    labels : sequence of str
        Of the suite's attacks.
    """
    kinds, broken_by = _kinds(merged), merged.columns.get("broken_by", np.zeros(0, object))
    count = Counter(kinds.tolist())
    undecided = merged.total - len(kinds) + count[UNDECIDED]
    return [
        Fate(MISCLASSIFIED, "", count[MISCLASSIFIED]),
        *(
            Fate(BROKEN, label, int(((kinds == BROKEN) & (broken_by == label)).sum()))
            for label in labels
        ),
        *([Fate(UNDECIDED, "", undecided)] if undecided else []),
        Fate(ROBUST, "", count[ROBUST]),
    ]


def count_classes(merged: Merged, names: Sequence[str]) -> list[ClassFates]:
    """Return the verdicts of each class that has an image, the most robust one first."""
    kinds, label = _kinds(merged), merged.columns["label"]
    found = []
    for number in np.unique(label).tolist():
        own = kinds[label == number]
        counts = {kind: int((own == kind).sum()) for kind in _COLOURS}
        found.append(ClassFates(str(names[number]), **counts))
    return sorted(found, key=lambda one: (-one.share(ROBUST), one.share(MISCLASSIFIED), one.name))


def waterfall_figure(
    fates: Sequence[Fate], *, title: str = "", caption: str = "", partial: bool = False
) -> Figure | None:
    """Draw how misclassification and each attack take their share of the images.

    Parameters
    ----------
    fates : sequence of Fate
        In order; what one takes is missing below it. The robust ones are last.
    title, caption, partial
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None without images.
    """
    total = sum(fate.images for fate in fates)
    if not total:
        return None
    with style():
        height = 1.0 + 0.46 * (len(fates) + 1)
        figure = make_canvas(height, title=title, caption=caption, partial=partial)
        axes = figure.add_subplot()
        axes.barh(0, 100, facecolor="none", edgecolor=GREY, height=0.68, gid="all")
        axes.text(50, 0, f"{total:,} images", ha="center", va="center", fontsize=13.5)
        end = total
        for place, fate in enumerate(fates, start=1):
            _draw_step(axes, place, fate, end, total)
            end -= fate.images
        words = [plain(shorten(fate.words, 15, 3.2)) for fate in fates]
        axes.set_yticks(range(len(fates) + 1), ["all", *words])
        axes.set_ylim(len(fates) + 0.6, -0.6)
        _percent_axis(axes, "of the images")
    return figure


def waterfall_title(fates: Sequence[Fate]) -> str:
    """Return what `waterfall_figure` shows, as a sentence without its full stop."""
    total = sum(fate.images for fate in fates)
    *lost, robust = fates
    start = f"{robust.images:,} of {total:,} images ({100 * robust.images / total:.1f} %) "
    start += "withstand every attack"
    most = max(lost, key=lambda fate: fate.images, default=robust)
    share = f"{100 * most.images / total:.1f} %"
    if most.kind == ROBUST or not most.images:
        return start
    if most.kind == BROKEN:
        return f"{start}, {most.attack} breaks {share}"
    if most.kind == MISCLASSIFIED:
        return f"{start}, {share} are misclassified without any"
    return f"{start}, {share} are {most.words}"


def class_figure(
    classes: Sequence[ClassFates], *, title: str = "", caption: str = "", partial: bool = False
) -> Figure | None:
    """Draw the shares of robust, broken and misclassified images of each class.

    Parameters
    ----------
    classes : sequence of ClassFates
        The most robust one first. Of more than 30 the first 12 and the last 12 are drawn.
    title, caption, partial
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None for fewer than two classes.
    """
    if len(classes) < 2:
        return None
    whole = len(classes) <= _MOST
    shown = list(classes) if whole else [*classes[:_ENDS], *classes[-_ENDS:]]
    places = np.arange(len(shown)) + np.where(np.arange(len(shown)) < _ENDS, 0, 0 if whole else 1)
    with style():
        height = 1.3 + (0.4 if len(shown) <= 12 else 0.31) * (places[-1] + 1)
        figure = make_canvas(height, title=title, caption=caption, partial=partial)
        axes = figure.add_subplot()
        left = np.zeros(len(shown))
        for kind, colour in _COLOURS.items():
            share = np.array([100 * one.share(kind) for one in shown])
            if not share.any():
                continue
            bars = axes.barh(
                places, share, left=left, height=0.78, color=colour, edgecolor="white",
                linewidth=0.8, label=kind,
            )  # fmt: skip
            for bar, one in zip(bars, shown, strict=True):
                bar.set_url(f"tip:{one.name}: {getattr(one, kind)} of {one.images} images {kind}")
            left += share
        _write_robust(axes, places, shown)
        axes.set_yticks(places, [plain(shorten(one.name, 14, 2.6)) for one in shown], fontsize=14)
        if not whole:
            axes.text(50, _ENDS, f"... {len(classes) - len(shown)} more classes ...", ha="center",
                      va="center", fontsize=13)  # fmt: skip
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=14,
            handlelength=1.0, handletextpad=0.4, columnspacing=1.4, borderaxespad=0.1,
        )  # fmt: skip
        _percent_axis(axes, "of the images of each class")
    return figure


def class_title(classes: Sequence[ClassFates]) -> str:
    """Return what `class_figure` shows, as a sentence without its full stop."""
    if not classes:
        return "No class has an image yet"
    most, least = classes[0], min(classes, key=lambda one: (one.share(ROBUST), one.name))
    high, low = (f"{100 * one.share(ROBUST):.0f} %" for one in (most, least))
    if most.share(ROBUST) == least.share(ROBUST):
        return f"Every class is {high} robust"
    first, last = (shorten(one.name, 16, 2.6) for one in (most, least))
    return f"The most robust class is {first} with {high}, the least {last} with {low}"


def _kinds(merged: Merged) -> np.ndarray:
    """Return the kind of each row; the final verdict stands before the clean prediction."""
    robust = merged.columns.get("robust", np.zeros(0, object))
    kinds = np.full(len(robust), BROKEN, object)
    kinds[[value is None for value in robust]] = UNDECIDED
    kinds[~merged.clean_correct] = MISCLASSIFIED
    kinds[[value is not None and bool(value) for value in robust]] = ROBUST
    return kinds


def _draw_step(axes: Axes, place: int, fate: Fate, end: int, total: int) -> None:
    right, left = 100 * end / total, 100 * (end - fate.images) / total
    words = f"{fate.images:,} ({100 * fate.images / total:.1f} %)"
    (bar,) = axes.barh(
        place, right - left, left=left, color=_COLOURS[fate.kind], height=0.68, gid=fate.words
    )
    bar.set_url(f"tip:{fate.words}: {words}")
    axes.plot([right, right], [place - 0.66, place + 0.34], color=GREY, linewidth=0.8, zorder=0)
    if fate.kind == ROBUST:
        low, high = (100 * one for one in wilson(fate.images, total))
        axes.errorbar(
            right, place, xerr=[[right - low], [high - right]], color="black", capsize=4, fmt="none"
        )
        words, right = f"{fate.images:,} ({right:.1f} % [{low:.1f}, {high:.1f}])", high
    if right > 60 and left < 40:
        start = left == 0  # an interval stands at the other end
        axes.text(
            1.5 if start else (left + min(right, 97)) / 2, place, words, va="center", fontsize=13.5,
            ha="left" if start else "center", color=_INK if fate.kind == UNDECIDED else "white",
        )  # fmt: skip
    elif right <= 60:
        axes.text(right + 1.5, place, words, ha="left", va="center", fontsize=13.5)
    else:
        axes.text(left - 1.5, place, words, ha="right", va="center", fontsize=13.5)


def _write_robust(axes: Axes, places: np.ndarray, shown: Sequence[ClassFates]) -> None:
    for place, one in zip(places, shown, strict=True):
        share = 100 * one.share(ROBUST)
        if share >= 8:
            axes.text(1.2, place, f"{share:.0f} %", color="white", va="center", fontsize=12.5)


def _percent_axis(axes: Axes, words: str) -> None:
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel(words)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
