"""The engines that run attacks: ours, and the reference implementation, behind one interface."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor

from robustray.attacks import AttackResult, AttackSpec, Suite, ThreatModel
from robustray.attacks.engine import Examples, Network, Schedule, run_attack
from robustray.attacks.engine.network import Model
from robustray.errors import ManifestError, UserError
from robustray.evaluation.task import Conditions

_MODULES = {"robustray": __name__, "reference": "robustray.evaluation.units.reference"}

# What engines may note of an example: its point was outside the threat model and was moved there;
# and only outside of it did the point fool the model.
NOTES = ("repaired", "lost")

# Engines whose verdict on an image does not depend on the images that it is attacked with.
_INDEPENDENT = {"robustray"}


class Engine(Protocol):
    """What the runner asks of an engine. A module that is one calls its instance ``ENGINE``."""

    def identity(self) -> dict[str, Any]:
        """Return name and versions: whatever may change a verdict; part of every unit's key."""
        ...

    def check(self, suite: Suite, threat: ThreatModel, search_dtype: str) -> None:
        """Raise `UserError` for what this engine can't run."""
        ...

    def attack(
        self,
        model: Model,
        examples: Examples,
        threat: ThreatModel,
        spec: AttackSpec,
        conditions: Conditions,
        batch_size: int,
    ) -> AttackResult:
        """Run one attack on images that are all still to be broken.

        Parameters
        ----------
        model : callable
            On its device, in evaluation mode, true float32
            (`robustray.attacks.engine.context.judging`).
        examples : Examples
            At least one, on the CPU, from one or more ranges of one task.
        threat, spec : ThreatModel, AttackSpec
            What is allowed, and the attack with its budget.
        conditions : Conditions
            Seed, compute shape, search precision.
        batch_size : int
            Images on the device at a time; must not change a verdict.

        Returns
        -------
        AttackResult
            In the order of the examples, on the CPU, every ``x_adv`` inside the threat model.
        """
        ...

    def notes(self, result: AttackResult) -> Mapping[str, Tensor]:
        """Return what records count beside verdicts: names to bool (B,); see ``NOTES``."""
        ...


def load_engine(name: str) -> Engine:
    """Return an engine by its name in manifests.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        return cast(Engine, importlib.import_module(_MODULES[name]).ENGINE)
    except ImportError as error:
        raise UserError(f"engine {name!r} can't be loaded: {error}") from error


def is_independent(name: str) -> bool:
    """Tell whether an engine may be given images of several ranges at once."""
    return name in _INDEPENDENT


class NativeEngine:
    """Our own attacks."""

    def identity(self) -> dict[str, Any]:
        """Return the name; what our attacks do is covered by the engine version of the key."""
        return {"name": "robustray"}

    def check(self, suite: Suite, threat: ThreatModel, search_dtype: str) -> None:
        """Refuse budgets that are out of range, now and not on the first worker."""
        del search_dtype
        for spec in suite.attacks:
            try:
                spec.check(threat)
            except ValueError as error:
                raise ManifestError(str(error), path="suite") from error

    def attack(
        self,
        model: Model,
        examples: Examples,
        threat: ThreatModel,
        spec: AttackSpec,
        conditions: Conditions,
        batch_size: int,
    ) -> AttackResult:
        """Run one attack; see `Engine`."""
        network = Network(
            model,
            examples.x.device,
            conditions.search_dtype,
            conditions.channels_last,
            conditions.fused_blocks,
        )
        schedule = Schedule(conditions.compute_shape, batch_size)
        return run_attack(network, examples, threat, spec, schedule, seed=conditions.seed)

    def notes(self, result: AttackResult) -> Mapping[str, Tensor]:
        """Return nothing: all points are inside."""
        del result
        return {}


ENGINE = NativeEngine()
