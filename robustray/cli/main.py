"""The command line as a whole: its parser, what an error prints, and the exit codes."""

from __future__ import annotations

import argparse
import os
import select
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from robustray import __version__
from robustray.cli.cluster import add_cluster
from robustray.cli.completion import add_completion, complete
from robustray.cli.configs import add_configs
from robustray.cli.help import HelpPage
from robustray.cli.init import add_init
from robustray.cli.jobs import add_evaluations, add_jobs, add_quickstart
from robustray.cli.looking import add_looking
from robustray.cli.manifests import add_manifests, settle_manifest
from robustray.cli.models import add_models
from robustray.cli.output import Output
from robustray.cli.shared import EXIT_INTERRUPTED, EXIT_OK
from robustray.cli.weights import add_weights
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
    parser = make_parser(default_manifest)
    complete(parser)
    options = parser.parse_args(arguments)
    options.told = Output(getattr(options, "json", False))
    elsewhere = redirect_stdout(sys.stderr) if options.told.as_json else nullcontext()
    try:
        with elsewhere:  # whatever a library prints
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


_ABOUT = """\
Train, sweep and attack image classifiers; every checkpoint, metric and verdict is on record."""
_FIRST = """\
first steps:
  robustray quickstart             # eight small networks: about 2 minutes
  robustray init my_study          # writes my_study.yaml, with comments
  robustray plan my_study.yaml     # what will it cost?
  robustray run my_study.yaml      # run it; after a stop, the same continues
  robustray status --watch         # how far is it? (in another terminal)

robustray COMMAND --help explains each command, with examples.

places:
  ROBUSTRAY_STORE      results: a folder or s3://bucket/prefix (./runs/store)
  ROBUSTRAY_DATA       data sets (./data)
  MLFLOW_TRACKING_URI  MLflow (sqlite:///./runs/mlflow.db)
  RAY_ADDRESS          a Ray cluster (a local Ray while the command runs)

exit codes:
  0    done
  1    some trials failed, or an error of the program
  2    wrong input, nothing was started
  3    a machine or service failed, try again
  130  stopped by hand, run it again to continue"""


def make_parser(default_manifest: str | Path | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line; see `main`."""
    parser = argparse.ArgumentParser(
        prog="robustray", description=_ABOUT, epilog=_FIRST, formatter_class=HelpPage
    )
    parser.add_argument("--version", action="version", version=f"robustray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--manifest", metavar="FILE", help="a YAML manifest (see robustray manifests)"
    )
    common.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the manifest, such as recipe.epochs=2; may be repeated",
    )
    common.set_defaults(default_manifest=default_manifest)
    named = argparse.ArgumentParser(add_help=False, parents=[common])
    named.add_argument("named", nargs="?", metavar="MANIFEST", help="the same as --manifest FILE")
    add_quickstart(commands)
    add_init(commands)
    add_jobs(commands, named)
    add_looking(commands, named)
    add_evaluations(commands, named)
    add_weights(commands)
    add_models(commands)
    add_zoo(commands)
    add_manifests(commands)
    add_configs(commands)
    add_cluster(commands, common)
    add_completion(commands)
    return parser
