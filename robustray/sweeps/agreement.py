"""What a cheaper study, or its first epochs, would have told of a study run in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from robustray.data import describe
from robustray.errors import CorruptObjectError, UserError
from robustray.files import write_atomically
from robustray.reports import render
from robustray.reports.words import metric_label
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study
from robustray.sweeps.pairings import (
    Pairing,
    agreement_figure,
    agreement_title,
    pairs_csv,
    summary_csv,
)
from robustray.sweeps.plan import Plan, make_plan
from robustray.sweeps.records import TrialState, read_trials


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
    """Write ``agreement.csv``, ``pairs.csv`` and ``agreement.png``, here and into the store.

    Returns
    -------
    list of Pairing, Path
        What was found, and the folder.
    """
    ours = read_side(store, full)
    pairings = [p for study in cheap for p in compare(ours, read_side(store, study))]
    data = describe(full.manifest.data).label
    files = {"agreement.csv": summary_csv(pairings), "pairs.csv": pairs_csv(pairings)}
    figure = agreement_figure(
        pairings, title=f"{agreement_title(pairings)}.",
        caption=f"{data}; trials that have both scores",
    )  # fmt: skip
    if figure is not None:
        files["agreement.png"] = render(figure)
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
