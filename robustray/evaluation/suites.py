"""From a manifest's ``suite`` to the attacks that are run."""

from __future__ import annotations

from collections.abc import Sequence

from robustray.attacks import AttackSpec, Suite, ThreatModel, attack_suite, list_suites
from robustray.errors import ManifestError
from robustray.evaluation.engines import Engine
from robustray.manifest import JudgedThreat, SuiteItem


def resolve_threat(config: JudgedThreat) -> ThreatModel:
    """Return a manifest's threat model.

    Raises
    ------
    ManifestError
        If attacks can't use it.
    """
    try:
        return ThreatModel(config.norm, config.eps)
    except ValueError as error:
        raise ManifestError(str(error), path="threat") from error


def resolve_suite(
    items: Sequence[SuiteItem],
    threat: ThreatModel,
    engine: Engine,
    search_dtype: str,
    field: str = "suite",
) -> Suite:
    """Return the attacks of a manifest's suite, as an engine can run them.

    ``field`` is the suite's place in the manifest, for messages.

    Raises
    ------
    ManifestError
        For an unknown suite, attack or option.
    UserError
        For what the engine can't run.
    """
    try:
        suite = _suite(items, threat.norm)
    except ValueError as error:
        raise ManifestError(str(error), path=field) from error
    try:
        engine.check(suite, threat, search_dtype)
    except ManifestError as error:
        raise ManifestError(error.message, path=field) from error
    return suite


def _suite(items: Sequence[SuiteItem], norm: str) -> Suite:
    if len(items) == 1 and items[0].name in list_suites() and _is_name(items[0]):
        return attack_suite(items[0].name, norm)
    return attack_suite(
        [
            item.name
            if _is_name(item)
            else AttackSpec(item.name, item.attack or item.name, item.options)
            for item in items
        ],
        norm,
    )


def _is_name(item: SuiteItem) -> bool:
    return item.attack is None and not item.options
