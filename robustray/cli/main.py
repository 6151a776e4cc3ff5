"""The command line: plans, runs, evaluations, audits, reports, and the catalogue of networks."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustray import __version__
from robustray.cli_cluster import add_cluster, preflight
from robustray.cli_models import add_models
from robustray.cli_zoo import add_zoo
from robustray.errors import (
    CorruptObjectError,
    MachineError,
    ManifestError,
    StoreUnavailableError,
    UserError,
)
from robustray.faults import find_fault
from robustray.manifest import (
    Evaluation,
    Manifest,
    Sweep,
    build_manifest,
    dump_manifest,
    load_manifest,
    pin_code,
    study_id,
)
from robustray.redaction import redact

EXIT_OK, EXIT_FAILED_TRIALS, EXIT_PROGRAM, EXIT_INTERRUPTED = 0, 1, 1, 130

# Trials of a study that is started without --large.
LARGE = 10_000

# The kinds of manifest that plan, run and status hand on; a Sweep has commands of its own.
COMMANDS = {
    "Evaluation": "robustray.evaluation.commands",
    "Mixing": "robustray.smoothing.job.commands",
    "Alignment": "robustray.alignment.job.commands",
}

# Where jobs of their own kind live in the store.
JOBS = ("mixing", "alignment")


def main(
    arguments: Sequence[str] | None = None, *, default_manifest: str | Path | None = None
) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.
    default_manifest : str or Path, optional
        Taken where the command line names none.

    Returns
    -------
    int
        0 done; 1 some trials failed, or an error of the program; 2 wrong input; 3 a machine or
        service failed, worth trying again; 130 stopped by hand.
    """
    options = _parser(default_manifest).parse_args(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        return EXIT_OK if _has_no_reader(error) else _tell(error)


def _has_no_reader(error: Exception) -> bool:
    """Tell whether whoever read our output has left, as ``head`` does; then print to nobody."""
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _tell(error: Exception) -> int:
    """Print an error, in one message unless it is the program's; return its exit code."""
    fault = None if isinstance(error, MachineError) else find_fault(error)
    code = MachineError.exit_code if fault else getattr(error, "exit_code", None)
    if code is None:
        traceback.print_exc()
        return EXIT_PROGRAM
    said = str(error) if isinstance(error, UserError | MachineError) else _named(error)
    print(f"error: {said}{f'; {fault.remedy}' if fault else ''}", file=sys.stderr)
    return code


def _named(error: Exception) -> str:
    """Return a library's error as one line that tells its class."""
    return redact(f"{type(error).__name__}: {' '.join(str(error).split())}")[:500]


def _plan(options: argparse.Namespace) -> int:
    if options.target_gmacs is not None:
        from robustray.scaling.targets import describe_target

        if options.manifest or options.set or options.measure:
            raise UserError("--target-gmacs stands alone: it plans a network, not a manifest")
        print(describe_target(options.target_gmacs))
        return EXIT_OK
    manifest = _manifest(options)
    if not isinstance(manifest, Sweep):
        _commands(manifest).show_plan(manifest, _store().impatient(), _say)
        return EXIT_OK
    _say(_sweep_plan(manifest, options))
    return EXIT_OK


def _sweep_plan(manifest: Sweep, options: argparse.Namespace) -> str:
    """Return the plan of a study as text; with --measure this device is measured first."""
    from robustray.sweeps import Study, describe_plan, make_plan

    _check_large(manifest, options)
    study = Study.from_manifest(manifest)
    store = _store().impatient()
    if options.measure:
        from robustray.sweeps import measure_here

        measure_here(study, store, _say)
    try:
        plan = make_plan(study, store)
    except StoreUnavailableError as error:
        _say(f"warning: {error}; measured speeds are unknown")
        plan = make_plan(study)
    return describe_plan(plan, None if options.all else 12)


def _check_large(manifest: Sweep, options: argparse.Namespace) -> None:
    """Refuse what nobody wants by mistake: a number of trials that is no study's."""
    count = manifest.grid.count() if manifest.grid else 1
    if count > LARGE and not options.large:
        raise ManifestError(
            f"{count:,} trials are more than {LARGE:,}; if that is meant, say --large",
            options.manifest or str(options.default_manifest),
            "grid",
        )


def _run(options: argparse.Namespace) -> int:
    manifest = _manifest(options)
    if not isinstance(manifest, Sweep):
        return _run_units(manifest, options)
    if options.dry_run:
        options.measure, options.all = False, True
        plan = _sweep_plan(manifest, options)
        _say(f"{dump_manifest(manifest)}\n{plan}")
        return EXIT_OK
    _check_large(manifest, options)
    from robustray.reports import text_table
    from robustray.sweeps import run_study
    from robustray.tracking import default_tracking_uri, ui_command

    preflight(manifest, _say)
    tracking_uri = default_tracking_uri()
    outcome = run_study(
        manifest,
        _store(),
        tracking_uri,
        _report_root(),
        assume_yes=options.yes,
        say=_say,
    )
    if outcome.published is not None:
        _say("")
        _say(text_table(outcome.published.report.rows, limit=20))
        _say(f"\nreport       {outcome.published.folder / 'report.html'}")
    if outcome.untracked:
        _say(
            f"MLflow       {len(outcome.untracked)} runs are not there yet; nothing is lost: run "
            "the same command again when it answers"
        )
    _say(f"MLflow UI    {ui_command(tracking_uri)}")
    if outcome.interrupted:
        _say("stopped; run the same command again to continue")
        return EXIT_INTERRUPTED
    for name, reason in sorted(outcome.failed.items()):
        _say(f"failed: {name}: {reason}")
    return EXIT_FAILED_TRIALS if outcome.failed else EXIT_OK


def _evaluate(options: argparse.Namespace) -> int:
    return _run_units(_evaluation(options), options)


def _commands(manifest: Manifest) -> Any:
    """Return the module with the commands of a manifest's kind: show_plan, run, show_status."""
    return importlib.import_module(COMMANDS[manifest.kind])


def _run_units(manifest: Manifest, options: argparse.Namespace) -> int:
    commands = _commands(manifest)
    if options.dry_run:
        lines = [dump_manifest(manifest)]
        commands.show_plan(manifest, _store().impatient(), lines.append)
        _say("\n".join(lines))  # all of it or, before an error, nothing
        return EXIT_OK
    preflight(manifest, _say)
    whole, interrupted = commands.run(manifest, _store(), _report_root(), yes=options.yes, say=_say)
    if interrupted:
        _say("stopped; run the same command again to continue")
        return EXIT_INTERRUPTED
    return EXIT_OK if whole else EXIT_FAILED_TRIALS


def _audit(options: argparse.Namespace) -> int:
    from robustray.evaluation import commands

    manifest = _evaluation(options)
    if manifest.study is not None:
        raise UserError("an audit is of one network: name it with --model and --weights")
    commands.audit(manifest, _store(), yes=options.yes, as_json=options.json, say=_say)
    return EXIT_OK


def _evaluation(options: argparse.Namespace) -> Evaluation:
    """Return the evaluation that a manifest, or the command line alone, describes."""
    from robustray.evaluation import commands

    changes = commands.overrides(options)
    path = options.manifest or options.default_manifest
    if path is None:
        manifest = build_manifest({"kind": "Evaluation"}, changes, "the command line")
    else:
        manifest = load_manifest(path, changes)
    if not isinstance(manifest, Evaluation):
        raise UserError(f"{path} is a manifest of kind {manifest.kind}, not Evaluation")
    return manifest


def _status(options: argparse.Namespace) -> int:
    if options.manifest and not isinstance(manifest := _manifest(options), Sweep):
        _commands(manifest).show_status(manifest, _store().impatient(), _say)
        return EXIT_OK
    from robustray.pipelines.run import describe_jobs
    from robustray.sweeps import describe_status, list_studies, load_study

    store = _store().impatient()
    wanted = [options.study] if options.study else list_studies(store)
    one = options.study or options.manifest
    jobs, damage = ([], []) if one else describe_jobs(store, JOBS)
    if options.manifest:
        wanted = [study_id(_sweep(options))]
    if not wanted and not jobs and not damage:
        print(f"no study in {store.uri} yet")
    code = EXIT_OK
    for name in wanted:
        try:
            print(describe_status(store, load_study(store, name), details=len(wanted) == 1))
        except CorruptObjectError as error:  # the others are told all the same
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
    for line in jobs:
        print(line)
    for line in damage:
        print(f"error: {line}", file=sys.stderr)
        code = CorruptObjectError.exit_code
    return code


def _report(options: argparse.Namespace) -> int:
    from robustray.sweeps import commands
    from robustray.tracking import default_tracking_uri

    store, root = _store().impatient(), _report_root()
    if options.paper is not None:
        if options.study or options.manifest or options.against:
            raise UserError("--paper names its studies itself: --paper ID ..., or all without one")
        from robustray.scaling.job.commands import paper

        paper(options.paper, store, root, default_tracking_uri(), _say)
        return EXIT_OK
    if options.evaluations:
        from robustray.evaluation.comparing import publish_judgements

        publish_judgements(options.evaluations, store, root, default_tracking_uri(), _say)
        return EXIT_OK
    name = options.study or (study_id(_sweep(options)) if options.manifest else None)
    study = commands.chosen_study(store, name)
    if options.against:
        commands.compare(study, options.against, store, root, _say)
    else:
        commands.report(study, store, root, _say)
    return EXIT_OK


def _manifest(options: argparse.Namespace) -> Manifest:
    path = options.manifest or options.default_manifest
    if path is None:
        raise UserError("name a manifest: --manifest FILE (see manifests/)")
    return pin_code(load_manifest(path, options.set))


def _sweep(options: argparse.Namespace) -> Sweep:
    manifest = _manifest(options)
    if not isinstance(manifest, Sweep):
        raise UserError(f"{options.manifest} is a manifest of kind {manifest.kind}, not Sweep")
    return manifest


def _store():  # noqa: ANN202
    from robustray.store import open_store

    return open_store()


def _report_root() -> Path:
    return Path("runs/reports").resolve()


def _say(text: str) -> None:
    print(text, flush=True)


def _parser(default_manifest: str | Path | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="robustray", description=__doc__)
    parser.add_argument("--version", action="version", version=f"robustray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--manifest", metavar="FILE", help="a YAML manifest (see manifests/)")
    common.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a field of the manifest, such as recipe.epochs=2; may be repeated",
    )
    common.set_defaults(default_manifest=default_manifest)

    plan = commands.add_parser("plan", parents=[common], help="say what a study will cost")
    _add_large(plan)
    plan.add_argument("--measure", action="store_true", help="measure this device's speed first")
    plan.add_argument("--all", action="store_true", help="list every trial")
    plan.add_argument(
        "--target-gmacs",
        type=float,
        metavar="G",
        help="instead of a manifest: which network has G GMACs (RobustScaling)",
    )
    plan.set_defaults(command=_plan)

    run = commands.add_parser("run", parents=[common], help="run a study, or continue it")
    run.add_argument("--dry-run", action="store_true", help="print manifest and plan, and stop")
    _add_large(run)
    run.add_argument("--yes", action="store_true", help="use CPUs where no GPU is")
    run.set_defaults(command=_run)

    _add_evaluations(commands, common)
    add_models(commands)
    add_zoo(commands)
    add_cluster(commands, common)

    status = commands.add_parser("status", parents=[common], help="say how far studies are")
    status.add_argument("--study", metavar="ID", help="a study's id, its name, or how it begins")
    status.set_defaults(command=_status)

    report = commands.add_parser("report", parents=[common], help="write a study's report again")
    report.add_argument("--study", metavar="ID", help="a study's id, its name, or how it begins")
    report.add_argument(
        "--against",
        nargs="+",
        metavar="ID",
        help="compare with cheaper studies of the same trials (or itself, at its early epochs)",
    )
    report.add_argument(
        "--paper",
        nargs="*",
        metavar="ID",
        help="the published study's tables and figures, filled from these studies (default: all)",
    )
    report.add_argument(
        "--evaluations",
        nargs="+",
        metavar="ID",
        help="put evaluations of one network side by side: without and with surrogates, black-box",
    )
    report.set_defaults(command=_report)
    return parser


def _add_large(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--large", action="store_true", help=f"allow a study of more than {LARGE:,} trials"
    )


def _add_evaluations(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add what takes a network from the command line."""
    network = argparse.ArgumentParser(add_help=False)
    network.add_argument(
        "--model", metavar="NAME", help="of the catalogue, or package.module:function"
    )
    network.add_argument("--weights", metavar="FILE_OR_URI", help="a file, or s3://bucket/key")
    network.add_argument("--yes", action="store_true", help="use CPUs where no GPU is")
    evaluate = commands.add_parser(
        "evaluate", parents=[common, network], help="attack a network, or a study's networks"
    )
    evaluate.add_argument(
        "--suite",
        metavar="NAME[,NAME]",
        help="default: autoattack-standard; published-table: clean, FGSM, PGD-20, CW-40, AA",
    )
    evaluate.add_argument(
        "--suite-mode",
        choices=("cascade", "independent"),
        help="each attack on what those before have left (a list, by default), or each on all "
        "correctly classified images, as in published tables",
    )
    evaluate.add_argument("--study", metavar="ID", help="attack every selected checkpoint of it")
    evaluate.add_argument(
        "--dry-run", action="store_true", help="print manifest and plan, and stop"
    )
    evaluate.set_defaults(command=_evaluate)
    audit = commands.add_parser(
        "audit", parents=[common, network], help="look for what makes a robust accuracy doubtful"
    )
    audit.add_argument("--json", action="store_true", help="print the findings as JSON")
    audit.set_defaults(command=_audit, suite=None, suite_mode=None, study=None)


if __name__ == "__main__":
    sys.exit(main())
