"""The command line as a whole: its parser, what an error prints, and the exit codes."""

from __future__ import annotations

import argparse
import os
import select
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from robustray import __version__
from robustray.cli.cluster import add_cluster
from robustray.cli.configs import add_configs
from robustray.cli.jobs import add_evaluations, add_jobs, add_reports
from robustray.cli.manifests import add_manifests, settle_manifest
from robustray.cli.models import add_models
from robustray.cli.shared import EXIT_INTERRUPTED, EXIT_OK
from robustray.cli.zoo import add_zoo
from robustray.errors import MachineError, UserError, find_fault
from robustray.words import redact

_EXIT_PROGRAM = 1


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
    options = make_parser(default_manifest).parse_args(arguments)
    try:
        settle_manifest(options)
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
    asked = select.poll()
    asked.register(sys.stdout, 0)  # that nobody reads a pipe is told unasked
    if not any(event & select.POLLERR for _, event in asked.poll(0)):
        return False  # it was the pipe to another process
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _tell(error: Exception) -> int:
    """Print an error, in one message unless it is the program's; return its exit code."""
    fault = None if isinstance(error, MachineError) else find_fault(error)
    code = MachineError.exit_code if fault else getattr(error, "exit_code", None)
    if code is None:
        traceback.print_exc()
        return _EXIT_PROGRAM
    said = str(error) if isinstance(error, UserError | MachineError) else _named(error)
    print(f"error: {said}{f'; {fault.remedy}' if fault else ''}", file=sys.stderr)
    return code


def _named(error: Exception) -> str:
    """Return a library's error as one line that tells its class."""
    return redact(f"{type(error).__name__}: {' '.join(str(error).split())}")[:500]


def make_parser(default_manifest: str | Path | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line; see `main`."""
    parser = argparse.ArgumentParser(
        prog="robustray",
        description="Plans, runs, evaluations, audits, reports, and the catalogue of networks.",
    )
    parser.add_argument("--version", action="version", version=f"robustray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--manifest", metavar="FILE", help="a YAML manifest (see robustray manifests)"
    )
    common.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a field of the manifest, such as recipe.epochs=2; may be repeated",
    )
    common.set_defaults(default_manifest=default_manifest)
    named = argparse.ArgumentParser(add_help=False, parents=[common])
    named.add_argument("named", nargs="?", metavar="MANIFEST", help="the same as --manifest FILE")
    add_jobs(commands, named)
    add_evaluations(commands, named)
    add_manifests(commands)
    add_models(commands)
    add_zoo(commands)
    add_configs(commands)
    add_cluster(commands, common)
    add_reports(commands, named)
    return parser
