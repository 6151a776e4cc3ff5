"""``robustray status`` and ``robustray report``: how far jobs are, and what came of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.cli.output import Output, add_json
from robustray.cli.shared import EXIT_OK, make_request, read_manifest
from robustray.errors import UserError
from robustray.kinds import find_kind
from robustray.manifest import study_id
from robustray.registry import KINDS
from robustray.runtime.commands import Request, Trouble

_STUDY = "a study's id, its name, or how it begins"
_STATUS = Page(
    "say how far jobs are: one, or all that the store has",
    "Reads the store, so it works beside a run, after one, and on another machine. For a study: "
    "trials by what became of them, epochs, the best so far, and what runs with its last numbers.",
    (
        ("all jobs", "robustray status"),
        ("one study, again and again", "robustray status --study my_study --watch"),
        ("for a script", "robustray status --study my_study --json"),
    ),
)
_REPORT = Page(
    "write a job's page, tables and figures again, from the store",
    "They go to ./runs/reports. Without a name, the store's only study is meant.",
    (
        ("one study", "robustray report --study my_study"),
        ("does a cheap study rank alike?", "robustray report --study full --against cheap"),
        ("for a script", "robustray report --study my_study --json"),
    ),
)


def add_looking(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``status`` and ``report``; ``common`` takes a manifest."""
    status = add_page(commands, "status", _STATUS, parents=[common])
    status.add_argument("--study", metavar="ID", help=_STUDY)
    status.add_argument(
        "--watch",
        nargs="?",
        const=5.0,
        type=float,
        metavar="SECONDS",
        help="look again every 5 seconds, or as often as you say, until it is finished or Ctrl-C",
    )
    add_json(status)
    status.set_defaults(command=_status)

    report = add_page(commands, "report", _REPORT, parents=[common])
    report.add_argument("--study", metavar="ID", help=_STUDY)
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
    add_json(report)
    report.set_defaults(command=_report)


def _status(options: argparse.Namespace) -> int:
    if options.watch is None:
        output: Output = options.told
        code, document = _look(options, output)
        if output.as_json:
            output.write(document)
        return code
    from robustray.cli.watching import watch

    if options.json:
        raise UserError("--watch is for people; a script calls status --json as often as it likes")
    if not options.watch > 0:
        raise UserError(f"--watch: {options.watch:g} is no number of seconds above 0")
    return watch(lambda output: _look(options, output), options.watch)


def _look(options: argparse.Namespace, output: Output) -> tuple[int, dict[str, Any]]:
    """Say how far the job is that is meant, or all are; return what a script reads of it."""
    request, problems = make_request(output), list[Trouble]()
    if options.manifest:
        manifest = read_manifest(options)
        find_kind(manifest.kind).commands.status(manifest, request)
    elif options.study:
        from robustray.sweeps.commands import show_study

        show_study(options.study, request)
    else:
        problems = _show_all(request, output)
    code = problems[-1].exit_code if problems else EXIT_OK
    document = {"store": request.store.uri, "jobs": output.told}
    return code, {**document, "problems": list(map(str, problems))}


def _show_all(request: Request, output: Output) -> list[Trouble]:
    """Say how far every job is; return what is wrong with any, which stops nothing."""
    problems, nothing = list[Trouble](), True
    for found in _overview(request):
        nothing = False
        if isinstance(found, str):
            output.say(found)
        else:  # the others are told all the same
            print(f"error: {found}", file=sys.stderr)
            problems.append(found)
    if nothing:
        output.say(f"no study and no other job in {request.store.uri} yet")
    return problems


def _overview(request: Request) -> Iterator[str | Trouble]:
    """Yield a text on each job of every kind, or what is wrong with it."""
    for name in KINDS.names():
        try:
            kind = find_kind(name)
        except UserError as error:  # an installed package that can't be imported
            yield error
        else:
            yield from kind.commands.overview(_named(request, name))


def _named(request: Request, kind: str) -> Request:
    """Return a request whose documents say of which kind their jobs are."""

    def tell(found: Mapping[str, Any]) -> None:
        request.tell({"kind": kind, **found})

    return replace(request, tell=tell)


def _report(options: argparse.Namespace) -> int:
    output: Output = options.told
    request = make_request(output)
    together = options.paper is not None or options.evaluations or options.against
    if together and output.as_json:
        raise UserError(
            "--json gives one job's report; leave out --paper, --against, --evaluations"
        )
    if options.paper is not None or options.evaluations:
        return _report_together(options, request)
    if options.manifest and not options.study and not options.against:
        manifest = read_manifest(options)
        find_kind(manifest.kind).commands.report(manifest, request)
        output.end(manifest.kind)
        return EXIT_OK
    from robustray.sweeps.commands import chosen_study, compare, report

    wanted = options.study or (study_id(read_manifest(options)) if options.manifest else None)
    study = chosen_study(request.store, wanted)
    if options.against:
        compare(study, options.against, request)
    else:
        report(study, request)
        output.end("Sweep")
    return EXIT_OK


def _report_together(options: argparse.Namespace, request: Request) -> int:
    """Write what several jobs come to: the published study's tables, evaluations side by side."""
    from robustray.tracking import default_tracking_uri

    uri, place = default_tracking_uri(), (request.store, request.report_root)
    if options.paper is not None:
        if options.study or options.manifest or options.against:
            raise UserError(
                "--paper takes the ids of studies (--paper ID ...); without ids it uses all studies"
            )
        from robustray.scaling.job import paper

        paper(options.paper, *place, uri, request.say)
    else:
        from robustray.evaluation.comparing import publish_judgements

        publish_judgements(options.evaluations, *place, uri, request.say)
    return EXIT_OK
