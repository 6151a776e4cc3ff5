"""What a study will cost, said before it is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustray.attacks import ThreatModel, attack_suite
from robustray.data import describe
from robustray.errors import ManifestError
from robustray.manifest import Resources, Sweep, manifest_hash
from robustray.models import Profile
from robustray.runtime.progress import describe_duration
from robustray.store import ObjectStore
from robustray.sweeps.grid import Study, profile_trials
from robustray.sweeps.search.forecast import describe_search
from robustray.sweeps.throughput import Throughput, load_throughputs, precision_name
from robustray.training import (
    checkpoint_bytes,
    epoch_images,
    evaluation_passes,
    guard_passes,
    recipe_passes,
)
from robustray.training.objectives import loss_of
from robustray.training.optimizer import check_optimizer
from robustray.words import lay_out


@dataclass(frozen=True)
class TrialCost:
    """Cost of one trial: MACs are multiply-accumulates, over all epochs and images."""

    profile: Profile
    train_macs: int
    evaluation_macs: int
    checkpoint_bytes: int

    @property
    def total_macs(self) -> int:
        """Training, validation and evaluation together."""
        return self.train_macs + self.evaluation_macs

    @property
    def training_flops(self) -> int:
        """Floating-point operations of training: two for each multiply-accumulate."""
        return 2 * self.train_macs


@dataclass(frozen=True)
class Plan:
    """A study's cost, trial by trial."""

    study: Study
    costs: dict[str, TrialCost]
    throughputs: tuple[Throughput, ...]

    def seconds(self, name: str, throughput: Throughput) -> float:
        """Return one trial's expected time on measured devices, were their work shared evenly."""
        return self._device_seconds(name, throughput) / self.study.manifest.resources.workers

    def _device_seconds(self, name: str, throughput: Throughput) -> float:
        cost = self.costs[name]
        return throughput.seconds(cost.profile.macs, cost.total_macs)

    def device_hours(self, throughput: Throughput) -> float:
        """Return the whole study's expected time on a measured device, in hours.

        Trials that share a GPU take their share of its time each.
        """
        share = min(1.0, self.study.manifest.resources.gpus or 1.0)
        return share * sum(self._device_seconds(name, throughput) for name in self.costs) / 3600

    @property
    def stored_bytes(self) -> int:
        """Bytes of checkpoints that stay in the store."""
        return sum(cost.checkpoint_bytes * self._kept for cost in self.costs.values())

    @property
    def model_bytes(self) -> int:
        """Bytes of weights, in 32 bits each, that MLflow gets as models at most."""
        sizes = [4 * cost.profile.parameters for cost in self.costs.values()]
        wanted = self.study.manifest.tracking.models
        if wanted == "none":
            return 0
        return max(sizes) + (self._kept * sum(sizes) if wanted == "all" else 0)

    @property
    def _kept(self) -> int:
        """How many checkpoints of a trial keep their bytes."""
        retention, recipe = self.study.manifest.retention, self.study.manifest.recipe
        kept = {"last": 1, "best-last": 2, "all": recipe.epochs}[retention.keep]
        if retention.every:
            kept = min(recipe.epochs, kept + recipe.epochs // retention.every)
        return kept


def make_plan(study: Study, store: ObjectStore | None = None) -> Plan:
    """Count everything that a study will compute; trains nothing.

    Parameters
    ----------
    study : Study
        The study.
    store : ObjectStore, optional
        Where measured throughputs are looked up.

    Raises
    ------
    ManifestError
        If a setting of the grid is no possible network, a user's objective or optimiser does not
        take its arguments, or an attack is not for the threat model.
    """
    profiles = profile_trials(study)
    _check_recipe(study.manifest)
    costs = {name: _cost(study, profile) for name, profile in profiles.items()}
    measured = tuple(load_throughputs(store, study)) if store else ()
    return Plan(study, costs, measured)


def _check_recipe(manifest: Sweep) -> None:
    """Refuse here what would fail in each worker."""
    recipe, tested = manifest.recipe, manifest.evaluation.threat or manifest.recipe.threat
    loss_of(recipe)
    check_optimizer(recipe.optimizer, recipe.schedule)
    suites = [("recipe.selection.attack", recipe.selection.suite, recipe.threat)]
    suites += [("evaluation.attacks", suite, tested) for suite in manifest.evaluation.attacks]
    for path, suite, wanted in suites:
        threat = ThreatModel(norm=wanted.norm, eps=wanted.eps)
        try:
            for attack in attack_suite(suite, threat.norm).attacks:
                attack.check(threat)
        except ValueError as error:
            raise ManifestError(str(error), path=path, value=suite) from error


def describe_plan(plan: Plan, limit: int | None = 12) -> str:
    """Return the plan as text: totals, then the longest and shortest trials.

    ``limit`` is the number of trials listed, half from each end; None lists all, 0 none.
    """
    study, manifest = plan.study, plan.study.manifest
    total = sum(cost.training_flops for cost in plan.costs.values())
    evaluation = 2 * sum(cost.evaluation_macs for cost in plan.costs.values())
    return lay_out(
        [
            ("study", study.id),
            ("manifest", f"sha256 {manifest_hash(manifest)}"),
            ("data", _data_words(manifest)),
            ("trials", f"{len(study.trials)}, longest first"),
            ("devices", f"{_devices(manifest.resources)} for each trial"),
            (
                "training",
                f"{total:.3e} FLOPs ({manifest.recipe.objective}, {manifest.recipe.epochs} "
                f"epochs, {recipe_passes(manifest.recipe):g} passes per image)",
            ),
            ("evaluation", f"{evaluation:.3e} FLOPs (validation included)"),
            ("checkpoints", f"{_bytes(plan.stored_bytes)} kept ({manifest.retention.keep})"),
            ("models", f"{_bytes(plan.model_bytes)} to MLflow ({manifest.tracking.models})"),
            *_time_lines(plan),
            *([("search", describe_search(plan))] if manifest.search else []),
        ]
    ) + _trial_table(plan, limit)


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return the plan as scripts read it (``--json``)."""
    study, manifest = plan.study, plan.study.manifest
    return {
        "kind": manifest.kind,
        "id": study.id,
        "name": manifest.name,
        "manifest_sha256": manifest_hash(manifest),
        "training_flops": sum(cost.training_flops for cost in plan.costs.values()),
        "evaluation_flops": 2 * sum(cost.evaluation_macs for cost in plan.costs.values()),
        "stored_bytes": plan.stored_bytes,
        "model_bytes": plan.model_bytes,
        "device_hours": {each.device: plan.device_hours(each) for each in plan.throughputs},
        "rates_from": {each.device: each.source for each in plan.throughputs},
        "trials": [
            {
                "name": name,
                "parameters": plan.costs[name].profile.parameters,
                "macs": plan.costs[name].profile.macs,
                "training_flops": plan.costs[name].training_flops,
                "evaluation_flops": 2 * plan.costs[name].evaluation_macs,
                "seconds": {each.device: plan.seconds(name, each) for each in plan.throughputs},
            }
            for name in _longest_first(plan)
        ],
    }


def _longest_first(plan: Plan) -> list[str]:
    return sorted(plan.costs, key=lambda name: (-plan.costs[name].total_macs, name))


def _cost(study: Study, profile: Profile) -> TrialCost:
    manifest = study.manifest
    recipe, facts = manifest.recipe, describe(manifest.data)
    classes = facts.num_classes
    images_per_epoch = epoch_images(recipe, facts.train)
    validated = recipe.epochs - int(recipe.selection.start * recipe.epochs)
    validation = 1 + evaluation_passes(recipe.selection.suite, classes)
    test = sum(1 + evaluation_passes(suite, classes) for suite in manifest.evaluation.attacks)
    images = validated * validation * facts.validation + test * facts.test
    images += guard_passes(recipe, facts.train, classes)
    return TrialCost(
        profile,
        round(recipe_passes(recipe) * profile.macs * images_per_epoch * recipe.epochs),
        round(images * profile.macs),
        checkpoint_bytes(profile.parameters, recipe),
    )


def _data_words(manifest: Sweep) -> str:
    """Return what is trained and tested on, in words."""
    facts = describe(manifest.data)
    shape = " x ".join(map(str, facts.image_shape))
    return (
        f"{facts.label}: {facts.train:,} images to train on, {facts.validation:,} held out, "
        f"{facts.test:,} to test on; {shape}, {facts.num_classes:,} classes"
    )


def _devices(resources: Resources) -> str:
    """Return what a trial computes on, in words."""
    kind, each = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
    total = resources.workers * each
    words = f"{total:g} {kind}{'s' if total > 1 else ''}"
    return words + (f" ({resources.workers} workers)" if resources.workers > 1 else "")


def _time_lines(plan: Plan) -> list[tuple[str, str]]:
    if not plan.throughputs:
        wanted = precision_name(plan.study.manifest.recipe)
        return [("device-hours", f"not measured yet for {wanted}; plan it with --measure")]
    lines = []
    for record in plan.throughputs:
        longest = max(plan.seconds(name, record) for name in plan.costs)
        words = (
            f"{plan.device_hours(record):.4g} h on {record.device} ({record.precision}, "
            f"{record.source}); longest trial {describe_duration(longest)}"
        )
        lines.append(("device-hours", words))
    return lines


def _trial_table(plan: Plan, limit: int | None) -> str:
    """Return the longest and the shortest trials; as narrow as they are."""
    order = _longest_first(plan)
    hidden = 0 if limit is None else max(0, len(order) - limit)
    if limit == 0:
        return ""
    shown = order if limit is None or not hidden else order[: limit // 2]
    rest = order[len(order) - (limit - limit // 2) :] if limit and hidden else []
    head = ("trial", "parameters", "MACs", "train FLOPs")
    expected = ("expected",) if plan.throughputs else ()
    rows = [(*head, *expected), *(_trial_row(plan, name) for name in (*shown, *rest))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if column in (0, 4) else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if hidden:
        lines.insert(1 + len(shown), f"... {hidden} more (--all lists them) ...")
    return "\n".join(["", "", *lines])


def _trial_row(plan: Plan, name: str) -> tuple[str, ...]:
    cost = plan.costs[name]
    times = [describe_duration(plan.seconds(name, record)) for record in plan.throughputs]
    sizes = (f"{cost.profile.parameters:,}", f"{cost.profile.macs:,}", f"{cost.training_flops:.3e}")
    return (name, *sizes, *([", ".join(times)] if times else []))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
