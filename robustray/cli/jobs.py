"""``robustray plan``, ``run``, ``status`` and ``report``: jobs of any kind, and what there is.

``robustray evaluate`` and ``robustray audit`` take a network from the command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from robustray.cli.scaling import add_target, plan_target
from robustray.cli.shared import EXIT_OK, make_request, read_manifest, run_manifest, say
from robustray.errors import UserError
from robustray.kinds import find_kind
from robustray.manifest import load_manifest, pin_code, study_id
from robustray.manifest.packaged import QUICKSTART, find_packaged
from robustray.registry import KINDS
from robustray.runtime.commands import Request, Trouble


def add_jobs(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``plan`` and ``run``; ``common`` takes a manifest."""
    plan = commands.add_parser("plan", parents=[common], help="say what a study will cost")
    _add_large(plan)
    plan.add_argument("--measure", action="store_true", help="measure this device's speed first")
    plan.add_argument("--all", action="store_true", help="list every trial")
    add_target(plan)
    plan.set_defaults(command=_plan)

    run = commands.add_parser("run", parents=[common], help="run a study, or continue it")
    run_help = "print manifest and plan, and stop"
    run.add_argument("--dry-run", action="store_true", help=run_help)
    _add_large(run)
    run.add_argument("--yes", action="store_true", help="use CPUs where no GPU is")
    run.set_defaults(command=_run)

    quickstart = commands.add_parser(
        "quickstart", help="train and attack eight small networks, on any machine: about 2 minutes"
    )
    quickstart.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    quickstart.add_argument("--dry-run", action="store_true", help=run_help)
    quickstart.set_defaults(command=_quickstart, yes=False)


def add_reports(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``status`` and ``report``; ``common`` takes a manifest."""
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


def _add_large(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--large", action="store_true", help="allow a study of more than 10,000 trials"
    )


def _plan(options: argparse.Namespace) -> int:
    planned = plan_target(options)
    if planned is not None:
        return planned
    manifest = read_manifest(options)
    request = replace(
        make_request(), measure=options.measure, in_full=options.all, large=options.large
    )
    find_kind(manifest.kind).commands.plan(manifest, request)
    return EXIT_OK


def _run(options: argparse.Namespace) -> int:
    return run_manifest(read_manifest(options), options)


def _quickstart(options: argparse.Namespace) -> int:
    manifest = load_manifest(find_packaged(QUICKSTART), options.set)
    return run_manifest(pin_code(manifest), options)


def _status(options: argparse.Namespace) -> int:
    request = make_request()
    if options.manifest:
        manifest = read_manifest(options)
        find_kind(manifest.kind).commands.status(manifest, request)
        return EXIT_OK
    if options.study:
        from robustray.sweeps.commands import show_study

        show_study(options.study, request)
        return EXIT_OK
    code, nothing = EXIT_OK, True
    for found in _overview(request):
        nothing = False
        if isinstance(found, str):
            print(found)
        else:  # the others are told all the same
            print(f"error: {found}", file=sys.stderr)
            code = found.exit_code
    if nothing:
        print(f"no study in {request.store.uri} yet")
    return code


def _overview(request: Request) -> Iterator[str | Trouble]:
    """Yield a text on each job of every kind, or what is wrong with it."""
    for name in KINDS.names():
        try:
            kind = find_kind(name)
        except UserError as error:  # an installed package that can't be imported
            yield error
        else:
            yield from kind.commands.overview(request)


def _report(options: argparse.Namespace) -> int:
    request = make_request()
    if options.paper is not None or options.evaluations:
        return _report_together(options)
    if options.manifest and not options.study and not options.against:
        manifest = read_manifest(options)
        find_kind(manifest.kind).commands.report(manifest, request)
        return EXIT_OK
    from robustray.sweeps.commands import chosen_study, compare, report

    wanted = options.study or (study_id(read_manifest(options)) if options.manifest else None)
    study = chosen_study(request.store, wanted)
    if options.against:
        compare(study, options.against, request)
    else:
        report(study, request)
    return EXIT_OK


def _report_together(options: argparse.Namespace) -> int:
    """Write what several jobs come to: the published study's tables, evaluations side by side."""
    from robustray.tracking import default_tracking_uri

    request, uri = make_request(), default_tracking_uri()
    if options.paper is not None:
        if options.study or options.manifest or options.against:
            raise UserError(
                "--paper takes the ids of studies (--paper ID ...); without ids it uses all studies"
            )
        from robustray.scaling.job import paper

        paper(options.paper, request.store, request.report_root, uri, say)
    else:
        from robustray.evaluation.comparing import publish_judgements

        publish_judgements(options.evaluations, request.store, request.report_root, uri, say)
    return EXIT_OK


def add_evaluations(commands: Any, common: argparse.ArgumentParser) -> None:
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


def _evaluate(options: argparse.Namespace) -> int:
    from robustray.evaluation.commands import manifest_of

    return run_manifest(manifest_of(options), options)


def _audit(options: argparse.Namespace) -> int:
    from robustray.evaluation.commands import audit, manifest_of

    request = make_request(patient=True)
    audit(
        manifest_of(options),
        request.store,
        yes=options.yes,
        as_json=options.json,
        say=request.say,
    )
    return EXIT_OK
