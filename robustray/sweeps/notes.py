"""What a reader of a study's report must know: how it was judged, and what makes it doubtful."""

from __future__ import annotations

from collections.abc import Mapping

from robustray.attacks.checks.plausibility import CHECKS, check_accuracy
from robustray.data import describe
from robustray.manifest import Sweep
from robustray.sweeps.plan import Plan
from robustray.sweeps.records import TrialState
from robustray.sweeps.search.forecast import describe_search
from robustray.sweeps.throughput import precision_name


def study_notes(plan: Plan, states: list[TrialState]) -> list[str]:
    """Return the notes of a report, each a sentence or two; doubts begin with "Warning"."""
    return [
        *_notes(plan),
        *_search_notes(plan, states),
        *_guessing_notes(plan.study.manifest, states),
        *_further_notes(states),
        *_doubts(states),
    ]


def _notes(plan: Plan) -> list[str]:
    manifest = plan.study.manifest
    facts = describe(manifest.data)
    notes = []
    if manifest.narrow is not None:
        notes.append(f"A proxy: every width is {manifest.narrow:g} times what the name says.")
    if manifest.search is not None:
        notes.append(describe_search(plan))
    return [
        *notes,
        f"Each model was selected by {manifest.recipe.selection.attack} accuracy on "
        f"{facts.validation} images held out from the training set, and attacked once on the "
        f"{facts.test} test images.",
        f"Trained in {precision_name(manifest.recipe)}; every verdict is float32.",
    ]


def _search_notes(plan: Plan, states: list[TrialState]) -> list[str]:
    """Say how much of the grid a searcher has begun, and for what."""
    search = plan.study.manifest.search
    if search is None or search.searcher is None:
        return []
    left = sum(state.status == "not started" for state in states)
    begun = sum(bool(state.attempts) for state in states)
    share = min(1.0, plan.study.manifest.resources.gpus or 1.0)
    hours = share * sum(state.spent_hours for state in states)
    budget = f" of {search.budget_hours:g}" if search.budget_hours is not None else ""
    rest = f"; {left} were not started, as the budget is spent" if left else ""
    return [
        f"{search.searcher} chose which trials to begin: {begun} of {len(states)}, for "
        f"{hours:.3g}{budget} device-hours{rest}."
    ]


def _guessing_notes(manifest: Sweep, states: list[TrialState]) -> list[str]:
    """Name the networks whose clean accuracy can't be told from guessing."""
    facts, notes = describe(manifest.data), []
    for state in states:
        clean = (state.result or {}).get("metrics", {}).get("clean")
        if clean is None:
            continue
        correct = round(clean * facts.test)
        found = check_accuracy(correct, facts.test, facts.num_classes, 1 / facts.num_classes)
        if found.severity != "ok":
            notes.append(f"Warning, {state.trial.name}: {found.message}.")
    return notes


def _further_notes(states: list[TrialState]) -> list[str]:
    """Say how many trials a further suite has met, and what audits found."""
    notes, finished = [], [state for state in states if state.status == "finished"]
    for label in sorted({label for state in finished for label in state.evaluations}):
        found = [s.evaluations[label]["result"] for s in finished if label in s.evaluations]
        doubtful = sum(any(f["severity"] == "error" for f in r["audit"]) for r in found)
        some = "PARTIAL: " if len(found) < len(finished) else ""
        doubt = f"; the audit doubts {doubtful} of them" if doubtful else ""
        notes.append(f"{some}{label} attacked {len(found)} of {len(finished)} trials{doubt}.")
        notes += _implausible(label, {s.trial.name: s for s in finished if label in s.evaluations})
    return notes


def _implausible(label: str, states: Mapping[str, TrialState]) -> list[str]:
    """Name the networks that seem not to work on the images: their numbers say nothing."""
    notes = []
    for name, state in sorted(states.items()):
        for finding in state.evaluations[label]["result"]["audit"]:
            if finding["severity"] == "warning" and finding["check"] in CHECKS:
                notes.append(f"Warning, {label} of {name}: {finding['message']}.")
    return notes


def _doubts(states: list[TrialState]) -> list[str]:
    """Say what could not be verified, and what is lost of the curves."""
    notes = []
    bare = sum(state.result is not None and not state.verified for state in states)
    if bare:
        notes.append(
            f"{bare} results carry no digest, as those of earlier versions; they are believed as "
            "they are."
        )
    notes += [
        f"Warning, {state.trial.name}: {event['warning']}."
        for state in states
        for event in state.events()
        if "warning" in event
    ]
    lost = [f"{state.trial.name} {step}" for state in states for step in state.damaged]
    if lost:
        notes.append(f"Curves lack epochs whose records are damaged: {', '.join(lost)}.")
    return notes
