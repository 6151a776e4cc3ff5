"""``robustray evaluate`` and ``robustray audit``: what takes a network from the command line."""

from __future__ import annotations

import argparse
from typing import Any

from robustray.cli.shared import EXIT_OK, make_request, run_manifest


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
