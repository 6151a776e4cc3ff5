"""From a manifest's ``suite`` to the attacks that are run."""

from __future__ import annotations

from collections.abc import Sequence

from robustray.attacks import (
    AttackSpec,
    Column,
    Suite,
    ThreatModel,
    attack_suite,
    list_suites,
)
from robustray.errors import ManifestError
from robustray.evaluation.units.engines import Engine
from robustray.manifest import Evaluation, JudgedThreat, SuiteItem


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


# How attacks follow each other, in words.
MODES = {
    "cascade": "a cascade: each attack runs on what those before have left",
    "independent": "independent: each column begins with all correctly classified images",
    "all": "on all images, misclassified ones too; the final point decides",
}


def suite_of(manifest: Evaluation, threat: ThreatModel, engine: Engine) -> Suite:
    """Return the suite of an evaluation; see `resolve_suite`."""
    items, mode = manifest.suite, manifest.suite_mode
    return resolve_suite(items, threat, engine, manifest.search_dtype, mode=mode)


def curve_suite_of(manifest: Evaluation, threat: ThreatModel, engine: Engine) -> Suite:
    """Return the suite of a curve, which shows what no attack breaks.

    An independent suite is run as a cascade there: it says the same of that, and costs less.
    """
    assert manifest.curve is not None
    if manifest.curve.suite is not None:
        items, dtype = manifest.curve.suite, manifest.search_dtype
        suite = resolve_suite(items, threat, engine, dtype, field="curve.suite")
    else:
        suite = suite_of(manifest, threat, engine)
    return attack_suite(suite, threat.norm, "cascade") if suite.columns else suite


def suite_text(suite: Suite) -> str:
    """Return a suite's name, its columns or attacks, and how they follow each other."""
    parts = [_column_text(suite, column) for column in suite.columns] or suite.labels
    return f"{suite.name}: {', '.join(parts)} ({MODES[suite.mode]})"


def _column_text(suite: Suite, column: Column) -> str:
    names = [spec.name for spec in suite.attacks[column.start : column.stop]]
    return column.name if len(names) == 1 else f"{column.name} [{', '.join(names)}]"


def resolve_suite(
    items: Sequence[SuiteItem],
    threat: ThreatModel,
    engine: Engine,
    search_dtype: str,
    *,
    mode: str | None = None,
    field: str = "suite",
) -> Suite:
    """Return the attacks of a manifest's suite, as an engine can run them.

    ``mode`` is "cascade" or "independent"; without it a list is a cascade, and a named suite what
    it is. ``field`` is the suite's place in the manifest, for messages.

    Raises
    ------
    ManifestError
        For an unknown suite, attack or option.
    UserError
        For what the engine can't run.
    """
    try:
        suite = _suite(items, threat.norm, mode)
    except ValueError as error:
        raise ManifestError(str(error), path=field) from error
    try:
        engine.check(suite, threat, search_dtype)
    except ManifestError as error:
        raise ManifestError(error.message, path=field) from error
    return suite


def _suite(items: Sequence[SuiteItem], norm: str, mode: str | None) -> Suite:
    if len(items) == 1 and items[0].name in list_suites() and _is_name(items[0]):
        return attack_suite(items[0].name, norm, mode)
    return attack_suite(
        [
            item.name
            if _is_name(item)
            else AttackSpec(item.name, item.attack or item.name, item.options)
            for item in items
        ],
        norm,
        mode,
    )


def _is_name(item: SuiteItem) -> bool:
    return item.attack is None and not item.options
