"""From the store to a study's report: table, figures and page, kept in all three places."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from robustray.data import describe
from robustray.manifest import Grid, Recipe, Sweep, manifest_hash
from robustray.reports import GridKind, StudyReport, TrialRow, write_report
from robustray.reports.frontier import find_best
from robustray.reports.pages.runs import find_runs
from robustray.reports.rows import Link
from robustray.store import ObjectStore
from robustray.sweeps.judging import accuracies_of, attacks_of
from robustray.sweeps.notes import study_notes
from robustray.sweeps.plan import Plan
from robustray.sweeps.records import TrialState, read_trials
from robustray.sweeps.runs import trial_row
from robustray.sweeps.throughput import learn, precision_name
from robustray.training import find_objective
from robustray.training.optimizer import describe_optimizer


@dataclass(frozen=True)
class Published:
    """A written report: its folder, its files as MLflow artifacts, and what it was made from."""

    folder: Path
    artifacts: dict[str, bytes]
    report: StudyReport
    states: list[TrialState]


def publish(
    plan: Plan,
    store: ObjectStore,
    report_root: Path,
    failures: Mapping[str, str] | None = None,
    *,
    tracking_uri: str | None = None,
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
    tracking_uri : str, optional
        Where MLflow shows the runs; the page links to it.
    """
    study = plan.study
    states = read_trials(store, study)
    costs = {name: (cost.profile.macs, cost.total_macs) for name, cost in plan.costs.items()}
    learn(store, study, costs, states)
    report = assemble(plan, states, failures)
    start, runs = find_runs(tracking_uri, study.manifest.name)
    links = [*_weights(report, states, store.uri), *runs]
    report = replace(report, commands=[*_next_commands(report), *start], links=links)
    folder = report_root / study.id
    paths = write_report(report, folder)
    artifacts = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        artifacts[f"report/{name}"] = path.read_bytes()
        store.put(f"{study.prefix}/report/{name}", artifacts[f"report/{name}"])
    return Published(folder, artifacts, report, states)


def assemble(
    plan: Plan, states: list[TrialState], failures: Mapping[str, str] | None = None
) -> StudyReport:
    """Return what a report shows of a study; see `publish`."""
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
        attacks=attacks_of(
            manifest, {s.trial.name: s.evaluations for s in states if s.status == "finished"}
        ),
        planned_trials=len(study.trials),
        recipe=_recipe(manifest.recipe),
        cost=_cost(plan, states),
        failures=failures,
        provenance=_provenance(states),
        versions=environments[-1]["versions"] if environments else {},
        devices=sorted({environment["device"] for environment in environments}),
        curves={state.trial.name: _curve(state) for state in states},
        curve_metrics=(f"validation_{manifest.recipe.selection.attack}", "train_loss"),
        tested=_tested(manifest, states),
        notes=study_notes(plan, states),
    )


def _tested(manifest: Sweep, states: list[TrialState]) -> dict[str, int]:
    """Return on how many images each accuracy was measured."""
    test = describe(manifest.data).test
    images: dict[str, int] = dict.fromkeys(("clean", *manifest.evaluation.attacks), test)
    for state in states:
        for label, entry in state.evaluations.items():
            total: int = entry["result"]["robust"]["total"]
            names = accuracies_of(label, entry["result"])
            images.update(dict.fromkeys(names, total))
    return images


def _next_commands(report: StudyReport) -> list[tuple[str, str]]:
    """Return what one may do with a study next."""
    commands = []
    if report.is_partial:
        commands.append(
            (
                "Go on, with the manifest of this study; what is done is not computed again:",
                "robustray run MANIFEST",
            )
        )
    if report.counts.not_started:
        commands.append(
            (
                "Search on with a larger budget; what is done is not computed again:",
                "robustray run MANIFEST --set search.budget_hours=HOURS",
            )
        )
    if report.counts.finished:
        lone = report.counts.expected == 1
        commands += [
            (
                f"Attack {'it' if lone else 'every network'} with AutoAttack, as another column of "
                "the table:",
                f"robustray evaluate --study {report.study_id}",
            ),
            (
                f"Write {'its weights' if lone else 'the weights of the best network'} as a file:",
                f"robustray weights export {report.study_id} --best best.safetensors",
            ),
        ]
    return [
        *commands,
        ("See how far the study is:", f"robustray status --study {report.study_id}"),
        ("Write this page again:", f"robustray report --study {report.study_id}"),
    ]


def _weights(report: StudyReport, states: list[TrialState], uri: str) -> list[Link]:
    """Return where the weights of the best network are."""
    best = find_best(report.rows, report.headline)
    return [
        Link(f"Weights of {best.name}", f"{uri.rstrip('/')}/{entry['key']}", "(safetensors)")
        for state in states
        if best is not None and state.trial.name == best.name
        for record in state.checkpoints
        if record.step == best.selected_epoch
        for entry in record.files.values()
        if entry["sha256"] == best.weights_sha256
    ]


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
    spent = {state.trial.name: state.spent_hours for state in states}
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
