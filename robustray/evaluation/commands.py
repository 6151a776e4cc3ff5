"""What the command line does with manifests of kind Evaluation."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from robustray.evaluation.auditing import describe_findings, run_audit
from robustray.evaluation.evaluation import plan_evaluation, run_evaluation
from robustray.evaluation.plan import describe_plan
from robustray.evaluation.status import describe_status
from robustray.evaluation.study import describe_study, evaluate_study
from robustray.manifest import Evaluation
from robustray.reports import text_table
from robustray.store import ObjectStore
from robustray.tracking import default_tracking_uri, ui_command
from robustray.user_code import is_reference

Say = Callable[[str], None]


def overrides(options: Namespace) -> list[str]:
    """Return what the options for network, suite and study mean as ``field=value``; then --set."""
    found: list[str] = []
    if options.study:
        found += ["model=null", "factory=null", "weights=null", _assign("study", options.study)]
    if options.model:
        names = ("factory", "model") if is_reference(options.model) else ("model", "factory")
        inner = "function" if names[0] == "factory" else "name"
        found += [_assign(names[0], {inner: options.model}), f"{names[1]}=null"]
    if options.weights:
        found.append(_assign("weights", {"uri": options.weights}))
    if options.suite:
        found.append(_assign("suite", options.suite.split(",")))
    if options.suite_mode:
        found.append(_assign("suite_mode", options.suite_mode))
    return [*found, *options.set]


def show_plan(manifest: Evaluation, store: ObjectStore, say: Say) -> None:
    """Print what an evaluation would compute."""
    if manifest.study is not None:
        say(describe_study(manifest, store, _data_root()))
    else:
        say(describe_plan(plan_evaluation(manifest, store, _data_root())))


def show_status(manifest: Evaluation, store: ObjectStore, say: Say) -> None:
    """Print how far an evaluation is."""
    if manifest.study is not None:
        say(describe_study(manifest, store, _data_root()))
    else:
        say(describe_status(plan_evaluation(manifest, store, _data_root()), store))


def run(
    manifest: Evaluation, store: ObjectStore, report_root: Path, *, yes: bool, say: Say
) -> tuple[bool, bool]:
    """Run an evaluation and print what it found.

    Returns
    -------
    bool, bool
        Whether everything could be evaluated; whether it was stopped by hand.
    """
    uri = default_tracking_uri()
    if manifest.study is not None:
        return _run_study(manifest, store, uri, report_root, yes=yes, say=say)
    done = run_evaluation(
        manifest, store, uri, report_root, data_root=_data_root(), assume_yes=yes, say=say
    )
    say(f"\n{done.text}")
    if done.folder is not None:
        say(f"\ncomputed     {done.computed} units in this run" if done.computed else
            "\ncomputed     nothing: everything was there")  # fmt: skip
        say(f"record       {done.folder}")
    _say_tracking(done.untracked, uri, say)
    for reason in done.failed:
        say(f"failed: {reason}")
    if done.failed:
        say("the result is PARTIAL; the same command tries again what failed")
    return not done.failed, done.interrupted


def audit(manifest: Evaluation, store: ObjectStore, *, yes: bool, as_json: bool, say: Say) -> None:
    """Audit a network and print the findings."""
    quiet: Say = (lambda _: None) if as_json else say
    findings = run_audit(manifest, store, data_root=_data_root(), assume_yes=yes, say=quiet)
    say(json.dumps(findings, indent=2) if as_json else describe_findings(findings))


def _run_study(
    manifest: Evaluation, store: ObjectStore, uri: str, report_root: Path, *, yes: bool, say: Say
) -> tuple[bool, bool]:
    done = evaluate_study(
        manifest, store, uri, report_root, data_root=_data_root(), assume_yes=yes, say=say
    )
    say("")
    say(text_table(done.published.report.rows, limit=20))
    say(f"\nreport       {done.published.folder / 'report.html'}")
    _say_tracking(done.untracked, uri, say)
    for name, reason in sorted(done.failed.items()):
        say(f"failed: {name}: {reason}")
    return not done.failed, done.interrupted


def _say_tracking(untracked: list[str], uri: str, say: Say) -> None:
    if untracked:
        say(
            f"MLflow       {len(untracked)} runs are not there yet; nothing is lost: run the same "
            "command again when it answers"
        )
    say(f"MLflow UI    {ui_command(uri)}")


def _assign(field: str, value: object) -> str:
    """Write an override; JSON is YAML too, so paths with any letters survive."""
    return f"{field}={json.dumps(value)}"


def _data_root() -> str | None:
    return os.environ.get("ROBUSTRAY_DATA")
