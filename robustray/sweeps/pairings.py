"""How well cheap scores rank the trials of a study: pairs of scores, as tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustray.files import csv_bytes
from robustray.reports.canvas import make_canvas, wrap_text
from robustray.reports.frontier import Correlation, kendall
from robustray.reports.style import BLUE, VERMILION, correlation_words, framed, style
from robustray.reports.words import plain

_MOST = 6  # pairings that get a panel each
_ROOM = 3.3  # inches for the words below a panel of two


@dataclass(frozen=True)
class Pairing:
    """Two scores in [0, 1] of the trials that have both.

    Parameters
    ----------
    cheap_label, full_label : str
        What the scores are.
    scores : mapping of str to (cheap, full)
        By trial.
    cost : float
        Training MACs behind the cheap scores over those behind the full ones; below 1 it is
        cheaper.
    trials : int
        Trials of the study, with both scores or not.
    """

    cheap_label: str
    full_label: str
    scores: Mapping[str, tuple[float, float]]
    cost: float
    trials: int

    @property
    def tau(self) -> Correlation | None:
        """Kendall's tau-b; None for fewer than 3 trials, or without differences."""
        return kendall(*self._columns())

    @property
    def regret(self) -> float | None:
        """Full accuracy lost by taking the trial that is best by the cheap score."""
        if not self.scores:
            return None
        best = max(full for _, full in self.scores.values())
        chosen = max(sorted(self.scores), key=lambda name: self.scores[name][0])
        return best - self.scores[chosen][1]

    def words(self) -> str:
        """Write the finding in one line."""
        regret = (
            "" if self.regret is None else f"; its best is {100 * self.regret:.2f} points worse"
        )
        return (
            f"{self.cheap_label}: Kendall's tau {correlation_words(self.tau)}, "
            f"{len(self.scores)} of {self.trials} trials have both, {self.cost:.1%} of the "
            f"training cost{regret}"
        )

    def _columns(self) -> tuple[list[float], list[float]]:
        pairs = [self.scores[name] for name in sorted(self.scores)]
        return [cheap for cheap, _ in pairs], [full for _, full in pairs]


def pairs_csv(pairings: Sequence[Pairing]) -> bytes:
    """Return every pair as CSV: cheap score's name, trial, cheap and full accuracy in [0, 1]."""
    lines: list[Sequence[object]] = [("cheap_score", "trial", "cheap", "full")]
    for pairing in pairings:
        lines += [
            (pairing.cheap_label, name, repr(cheap), repr(full))
            for name, (cheap, full) in sorted(pairing.scores.items())
        ]
    return csv_bytes(lines)


def summary_csv(pairings: Sequence[Pairing]) -> bytes:
    """Return a line for each pairing: tau, its p-value and sample size, cost and regret."""
    head = ("cheap_score", "full_score", "tau", "p_value", "n", "trials", "cost_share", "regret")
    lines: list[Sequence[object]] = [head]
    for p in pairings:
        tau, regret = p.tau, p.regret
        lines.append((
            p.cheap_label, p.full_label, repr(tau.tau) if tau else "",
            repr(tau.p_value) if tau else "", len(p.scores), p.trials, repr(p.cost),
            "" if regret is None else repr(regret),
        ))  # fmt: skip
    return csv_bytes(lines)


def agreement_figure(
    pairings: Sequence[Pairing], *, title: str = "", caption: str = ""
) -> Figure | None:
    """Draw full against cheap accuracy, a panel for each pairing; of many, tau against cost.

    Parameters
    ----------
    pairings : sequence of Pairing
        Those without a trial that has both scores are left out.
    title, caption
        See `make_canvas`.

    Returns
    -------
    Figure or None
        None where no trial has both scores.
    """
    shown = [pairing for pairing in pairings if pairing.scores]
    if not shown:
        return None
    with style():
        if len(shown) > _MOST:
            return _draw_costs(shown, title, caption)
        across = min(len(shown), 2)
        down = -(-len(shown) // across)
        height = (4.9 if across == 1 else 4.3) * down
        figure = make_canvas(height, title=title, caption=caption)
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, pairing in zip(panels, shown, strict=False):
            _draw_pairs(axes, pairing, _ROOM * (2 if across == 1 else 1))
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
    return figure


def agreement_title(pairings: Sequence[Pairing]) -> str:
    """Return what `agreement_figure` shows, as a sentence: the score that ranks best."""
    ranked = [(pairing.tau.tau, pairing) for pairing in pairings if pairing.tau]
    if not ranked:
        return "Too few trials have both scores to compare rankings"
    tau, best = max(ranked, key=lambda one: one[0])
    return (
        f"{best.cheap_label} ranks the trials with Kendall's tau = {tau:.2f} at {best.cost:.0%} of "
        "the training cost"
    )


def _draw_pairs(axes: Axes, pairing: Pairing, room: float) -> None:
    """Draw each trial; the one that the cheap score would choose, and the one that is best."""
    names = sorted(pairing.scores)
    points = 100 * np.array([pairing.scores[name] for name in names], dtype=float)
    drawn = axes.scatter(
        *points.T, s=52, facecolors=f"{BLUE}80", edgecolors=BLUE, clip_on=False, gid="trials"
    )
    drawn.set_urls([
        f"tip:{name}: {cheap:.1f} % cheap, {full:.1f} % full"
        for name, (cheap, full) in zip(names, points, strict=True)
    ])  # fmt: skip
    chosen, best = (points[int(np.argmax(points[:, column]))] for column in (0, 1))
    axes.scatter(
        *best, s=260, marker="*", color=VERMILION, edgecolors="white", zorder=4, label="best",
        gid="best",
    )  # fmt: skip
    axes.scatter(
        *chosen, s=190, marker="o", facecolors="none", edgecolors=VERMILION, linewidths=1.8,
        zorder=3, label="chosen by the cheap score", gid="chosen",
    )  # fmt: skip
    words, full = (
        plain("\n".join(wrap_text(f"% {label}", 13, room)))
        for label in (pairing.cheap_label, pairing.full_label)
    )
    framed(axes, words, full)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(13)
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
    tau = f"{pairing.tau.tau:.2f}" if pairing.tau else "n/a"
    axes.set_title(
        rf"$\tau$ = {tau} ($n$ = {len(points)}), {pairing.cost:.0%} of the cost", fontsize=14
    )
    axes.legend(loc="upper left", fontsize=11.5, frameon=False, handletextpad=0.3)


def _draw_costs(pairings: Sequence[Pairing], title: str, caption: str) -> Figure:
    """Draw tau of each cheap score against its cost."""
    ranked = [(100 * p.cost, p.tau.tau, p) for p in pairings if p.tau]
    figure = make_canvas(4.9, title=title, caption=caption)
    axes = figure.add_subplot()
    drawn = axes.scatter(
        [cost for cost, _, _ in ranked], [tau for _, tau, _ in ranked], s=60, color=BLUE, zorder=3,
        gid="scores",
    )  # fmt: skip
    drawn.set_urls([f"tip:{pairing.words()}" for _, _, pairing in ranked])
    axes.axhline(0, color="black", linewidth=1)
    axes.set_ylim(min([0.0, *(tau for _, tau, _ in ranked)]) - 0.05, 1.05)
    axes.set_xlim(left=0)
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
    framed(axes, "% of the training cost", r"Kendall's $\tau$ with the full study")
    return figure
