"""What a cheaper study, or its first epochs, would have told of a study run in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from robustray.data import describe
from robustray.errors import CorruptObjectError, UserError
from robustray.files import csv_bytes, write_atomically
from robustray.reports import render
from robustray.reports.frontier import Correlation, kendall
from robustray.reports.style import correlation_words, draw_caption, metric_label, plain, style
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study
from robustray.sweeps.plan import Plan, make_plan
from robustray.sweeps.records import TrialState, read_trials

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


@dataclass(frozen=True)
class Side:
    """A study as its comparison needs it."""

    plan: Plan
    states: dict[str, TrialState]

    @property
    def attack(self) -> str:
        """The attack that the study is judged by."""
        return self.plan.study.manifest.evaluation.attacks[-1]

    @property
    def validation(self) -> str:
        """The name of the score on held-out data."""
        return f"validation_{self.plan.study.manifest.recipe.selection.attack}"

    @property
    def epochs(self) -> int:
        """Epochs of a whole trial."""
        return self.plan.study.manifest.recipe.epochs

    def macs(self, epochs: int | None = None) -> float:
        """Training MACs of all trials, each cut after ``epochs``; as planned where it is None."""
        if epochs is None:
            return sum(cost.train_macs for cost in self.plan.costs.values())
        return sum(
            cost.train_macs * min(epochs, self.states[name].epochs) / self.epochs
            for name, cost in self.plan.costs.items()
        )

    def final(self) -> dict[str, float]:
        """Return test accuracy under the last attack, of each trial that has it."""
        found = ((name, state.result) for name, state in self.states.items())
        return {name: result["metrics"][self.attack] for name, result in found if result}

    def at(self, epoch: int) -> dict[str, float]:
        """Return the score on held-out data after an epoch, of each trial that has it."""
        return {
            name: event["metrics"][self.validation]
            for name, state in self.states.items()
            for event in state.events()
            if event["event"] == "epoch"
            and event["epoch"] == epoch
            and self.validation in event["metrics"]
        }


def read_side(store: ObjectStore, study: Study) -> Side:
    """Read a study for a comparison."""
    states = read_trials(store, study)
    lost = [f"{s.trial.name} at epoch {s.damaged[0]}" for s in states if s.damaged]
    if lost:
        raise CorruptObjectError(
            f"{study.id} can't be compared: records of epochs are damaged, and their scores lost "
            f"({', '.join(lost[:3])})"
        )
    return Side(make_plan(study), {state.trial.name: state for state in states})


def compare(full: Side, cheap: Side) -> list[Pairing]:
    """Pair every cheap score with the full one, over the trials that have both.

    Cheap scores are the held-out accuracies after the epochs at which ``cheap`` stops trials
    early (after each epoch where it doesn't, and is compared with itself), and its final test
    accuracy where it is another study.

    Raises
    ------
    UserError
        If the two have no trial, or no test data, in common.
    """
    ours, theirs = full.plan.study, cheap.plan.study
    if not full.states.keys() & cheap.states.keys():
        raise UserError(f"{ours.id} and {theirs.id} have no trial in common: names don't match")
    if describe(ours.manifest.data).label != describe(theirs.manifest.data).label:
        raise UserError(f"{ours.id} and {theirs.id} are not on the same data")
    scores, label = full.final(), f"{metric_label(full.attack)} accuracy, {ours.manifest.name}"
    return [
        Pairing(
            cheap_label,
            label,
            {name: (found[name], scores[name]) for name in sorted(found.keys() & scores.keys())},
            macs / full.macs(),
            len(full.states),
        )
        for cheap_label, found, macs in _cheap_scores(cheap, cheap.plan.study.id == ours.id)
    ]


def publish_comparison(
    full: Study, cheap: Iterable[Study], store: ObjectStore, report_root: Path
) -> tuple[list[Pairing], Path]:
    """Write ``agreement.csv``, ``pairs.csv`` and ``agreement.png``, locally and into the store.

    Returns
    -------
    list of Pairing, Path
        What was found, and the folder.
    """
    ours = read_side(store, full)
    pairings = [p for study in cheap for p in compare(ours, read_side(store, study))]
    data = describe(full.manifest.data).label
    figure = agreement_figure(pairings, f"{data}; trials that have both scores")
    files = {
        "agreement.csv": summary_csv(pairings),
        "pairs.csv": pairs_csv(pairings),
        "agreement.png": render(figure),
    }
    folder = report_root / full.id / "agreement"
    for name, data_bytes in files.items():
        write_atomically(folder / name, data_bytes)
        store.put(f"{full.prefix}/report/agreement/{name}", data_bytes)
    return pairings, folder


def _cheap_scores(cheap: Side, itself: bool) -> Iterator[tuple[str, dict[str, float], float]]:
    """Yield label, scores by trial, and training MACs of each cheap score."""
    manifest = cheap.plan.study.manifest
    if manifest.search is not None:
        epochs: Iterable[int] = manifest.search.rungs(cheap.epochs)
    else:
        epochs = range(1, cheap.epochs) if itself else ()
    name = manifest.name if itself else cheap.plan.study.id
    for epoch in epochs:
        if found := cheap.at(epoch):
            yield f"held-out accuracy at epoch {epoch}, {name}", found, cheap.macs(epoch)
    if not itself:
        spent = cheap.macs(cheap.epochs)
        yield f"{metric_label(cheap.attack)} accuracy, {name}", cheap.final(), spent
