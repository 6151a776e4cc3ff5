"""How well a cheap score ranks trials that were also judged in full."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from robustray.reports.frontier import Correlation, kendall
from robustray.reports.style import draw_caption, plain, style
from robustray.reports.text import correlation_words

_SIDE, _PITCH = 3.6, 4.9  # inches


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
    return _csv(lines)


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
    return _csv(lines)


def agreement_figure(pairings: Sequence[Pairing], caption: str = "") -> Figure:
    """Draw full against cheap accuracy, in percent, a panel for each pairing."""
    with style():
        columns = min(len(pairings), 4) or 1
        rows = -(-len(pairings) // columns) or 1
        height = 5.0 * rows + 0.4
        figure = Figure(figsize=(_PITCH * columns + 0.4, height))
        for place, pairing in enumerate(pairings):
            row, column = divmod(place, columns)
            left, bottom = 1.0 + _PITCH * column, height - 5.0 * (row + 1) + 1.05
            size = figure.get_size_inches()
            box = (left / size[0], bottom / size[1], _SIDE / size[0], 3.3 / size[1])
            _panel(figure, box, pairing)
        draw_caption(figure, caption, partial=False)
    return figure


def _panel(figure: Figure, box: tuple[float, float, float, float], pairing: Pairing) -> None:
    axes = figure.add_axes(box)
    points = 100 * np.array(list(pairing.scores.values()), dtype=float).reshape(-1, 2)
    axes.scatter(*points.T, s=52, facecolors="#0072b280", edgecolors="#0072b2", clip_on=False)
    axes.set_xlabel(plain(f"% {pairing.cheap_label}"), fontsize=11)
    axes.set_ylabel(plain(f"% {pairing.full_label}"), fontsize=12)
    axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
    tau = f"{pairing.tau.tau:.3f}" if pairing.tau else "n/a"
    axes.set_title(
        rf"$\tau$ = {tau} ($n$ = {len(points)}), {pairing.cost:.0%} of cost", fontsize=13
    )
    if not len(points):
        axes.text(0.5, 0.5, "no trial has both", transform=axes.transAxes, ha="center")


def _csv(lines: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode()
