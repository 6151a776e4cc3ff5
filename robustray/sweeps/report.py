"""From the store to a study's report: table, figures and page, kept in all three places."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from robustray.attacks.checks.plausibility import CHECKS, check_accuracy
from robustray.data import describe
from robustray.manifest import Grid, Recipe, Sweep, manifest_hash
from robustray.reports import GridKind, StudyReport, TrialRow, write_report
from robustray.store import ObjectStore
from robustray.sweeps.plan import Plan, describe_search
from robustray.sweeps.records import TrialState, read_trials
from robustray.sweeps.runs import trial_row
from robustray.sweeps.throughput import precision_name
from robustray.training import find_objective
from robustray.training.optimizer import describe_optimizer


@dataclass(frozen=True)
class Published:
    """A written report: its folder, and its files as MLflow artifacts."""

    folder: Path
    artifacts: dict[str, bytes]
    report: StudyReport


def publish(
    plan: Plan, store: ObjectStore, report_root: Path, failures: Mapping[str, str] | None = None
) -> Published:
    """Write the report of what the store holds now, locally and into the store.

    Parameters
    ----------
    plan : Plan
        Of the study.
    store : ObjectStore
        Where its trials are.
    report_root : Path
        The report goes to ``report_root/<study id>``.
    failures : mapping, optional
        Why trials were given up; by default what their last attempts say.
    """
    study = plan.study
    states = read_trials(store, study)
    report = _assemble(plan, states, failures)
    folder = report_root / study.id
    paths = write_report(report, folder)
    artifacts = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        artifacts[f"report/{name}"] = path.read_bytes()
        store.put(f"{study.prefix}/report/{name}", artifacts[f"report/{name}"])
    return Published(folder, artifacts, report)


def _assemble(
    plan: Plan, states: list[TrialState], failures: Mapping[str, str] | None
) -> StudyReport:
    study, manifest = plan.study, plan.study.manifest
    threat = manifest.evaluation.threat or manifest.recipe.threat
    environments = [entry.environment for state in states for entry in state.attempts]
    if failures is None:
        failures = {
            state.trial.name: f"{state.attempts[-1].outcome}: {state.attempts[-1].message}"
            for state in states
            if state.status == "failed"
        }
    return StudyReport(
        study=manifest.name,
        study_id=study.id,
        grid=grid_kind(manifest.grid),
        data_label=describe(manifest.data).label,
        rows=read_rows(plan, states, failures),
        manifest_hash=manifest_hash(manifest),
        threat=f"{threat.norm}, eps = {pixels(threat.eps)}",
        attacks=_attacks(manifest, states),
        planned_trials=len(study.trials),
        images=_images(manifest, states),
        recipe=_recipe(manifest.recipe),
        cost=_cost(plan, states),
        failures=failures,
        provenance=_provenance(states),
        versions=environments[-1]["versions"] if environments else {},
        devices=sorted({environment["device"] for environment in environments}),
        curves={state.trial.name: _curve(state) for state in states},
        curve_metrics=(f"validation_{manifest.recipe.selection.attack}", "train_loss"),
        notes=[
            *_notes(plan),
            *_guessing_notes(manifest, states),
            *_further_notes(states),
            *_doubts(states),
        ],
    )


def read_rows(
    plan: Plan, states: list[TrialState], failures: Collection[str] = ()
) -> list[TrialRow]:
    """Return the rows of a study's table."""
    return [
        trial_row(state, plan.costs[state.trial.name].profile, state.trial.name in failures)
        for state in states
    ]


def grid_kind(grid: Grid | None) -> GridKind:
    """Return what a grid varies, in a report's words."""
    if grid is None:
        return "none"
    if grid.settings is not None or grid.arguments is not None:
        return "list"
    return "both" if grid.widths and grid.depths else "width" if grid.widths else "depth"


def _attacks(manifest: Sweep, states: list[TrialState]) -> tuple[str, ...]:
    """Return the attacks, the one that the study is judged by last.

    That is a suite of AutoAttack once every finished trial has met it.
    """
    own, finished = manifest.evaluation.attacks, [s for s in states if s.status == "finished"]
    labels = sorted({label for state in finished for label in state.evaluations})
    whole = [label for label in labels if all(label in state.evaluations for state in finished)]
    strongest = [label for label in whole if label.startswith("autoattack-")]
    return (*(label for label in labels if label not in strongest), *own, *strongest)


def _images(manifest: Sweep, states: list[TrialState]) -> int:
    """Return how many images the attack that the study is judged by has met."""
    label = _attacks(manifest, states)[-1]
    found = [s.evaluations[label]["result"] for s in states if label in s.evaluations]
    return found[0]["data"]["count"] if found else describe(manifest.data).test


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


def pixels(length: float) -> str:
    """Write a length in pixel space as people do: 8/255 where it is one, else a decimal."""
    levels = length * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 else f"{length:g}"


def _recipe(recipe: Recipe) -> dict[str, str]:
    """Sum a recipe up in a few lines; the manifest has all of it."""
    inner, schedule = recipe.inner, recipe.schedule
    objective = f"{recipe.objective}, beta {recipe.beta:g}"
    steps = f" at {', '.join(f'{m:g}' for m in schedule.milestones)} of the epochs"
    return {
        "objective": objective if find_objective(recipe.objective).weighted else recipe.objective,
        "inner attack": f"{inner.steps} steps of {pixels(inner.step_size)}, "
        f"eps = {pixels(recipe.threat.eps)}",
        "training": f"{recipe.epochs} epochs, batches of {recipe.batch_size}",
        "optimiser": describe_optimizer(recipe.optimizer),
        "schedule": f"{schedule.name} x {schedule.gamma:g}{steps}"
        if schedule.name == "step"
        else schedule.name,
        "averaging": f"EMA, decay {recipe.ema.decay:g}" if recipe.ema else "none",
        "weight perturbation": f"gamma {recipe.awp.gamma:g}" if recipe.awp else "none",
        "extra images": f"{recipe.mixture.extra:.0%} of each batch" if recipe.mixture else "none",
        "precision": precision_name(recipe),
    }


def _cost(plan: Plan, states: list[TrialState]) -> dict[str, tuple[float | None, float | None]]:
    """Planned against actual: device-hours of the trials on the device that ran most of them."""
    spent = {
        state.trial.name: sum(
            (attempt.ended_ms or attempt.started_ms) - attempt.started_ms
            for attempt in state.attempts
        )
        / 3.6e6
        for state in states
    }
    devices = [state.attempts[-1].environment["device"] for state in states if state.attempts]
    used = max(set(devices), key=devices.count) if devices else None
    measured = [record for record in plan.throughputs if record.device == used]
    planned = plan.device_hours(measured[0]) if measured else None
    longest = max(spent, key=lambda name: spent[name])
    expected = plan.seconds(longest, measured[0]) / 3600 if measured else None
    return {
        "device-hours": (planned, sum(spent.values())),
        f"hours of the longest trial ({longest})": (expected, spent[longest]),
    }


def _provenance(states: list[TrialState]) -> list[dict[str, object]]:
    return [
        {
            "trial": state.trial.name,
            "attempt": attempt.number,
            "outcome": attempt.outcome,
            "started_ms": attempt.started_ms,
            "ended_ms": attempt.ended_ms,
            "message": attempt.message,
            **{key: value for key, value in attempt.environment.items() if key != "versions"},
            **attempt.environment["versions"],
        }
        for state in states
        for attempt in state.attempts
    ]


def _curve(state: TrialState) -> list[tuple[int, dict[str, float]]]:
    return [
        (event["epoch"], event["metrics"]) for event in state.events() if event["event"] == "epoch"
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
