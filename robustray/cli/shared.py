"""What the commands share: exit codes, the manifest that is named, the store, the run itself."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from robustray.cli.output import Output, describe_ended
from robustray.errors import UserError
from robustray.kinds import find_kind
from robustray.manifest import Manifest, dump_manifest, load_manifest, pin_code
from robustray.runtime.commands import Request
from robustray.runtime.outcome import perform
from robustray.store import open_store

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130


def add_yes(command: argparse.ArgumentParser) -> None:
    """Add ``--yes`` to a command."""
    command.add_argument(
        "--yes",
        action="store_true",
        help="where GPUs are asked for and there is none, use CPUs, however long it takes; "
        "without it such a run is refused, but for evaluations that don't set resources.gpus",
    )


def read_manifest(options: argparse.Namespace) -> Manifest:
    """Return the manifest that the command line names."""
    path = options.manifest or options.default_manifest
    if path is None:
        raise UserError(
            "name a manifest, as in `robustray plan FILE` (robustray manifests lists some)"
        )
    return pin_code(load_manifest(path, options.set))


def make_request(output: Output, *, patient: bool = False) -> Request:
    """Return what a command works with; only what runs has the patience to wait for its store."""
    store = open_store()
    where = store if patient else store.impatient()
    return Request(where, Path("runs/reports").resolve(), output.say, output.tell)


def run_manifest(manifest: Manifest, options: argparse.Namespace) -> int:
    """Run a manifest of any kind; with ``--dry-run`` print it and its plan."""
    large, output = getattr(options, "large", False), options.told
    if options.dry_run:
        lines = [dump_manifest(manifest)]
        request = replace(make_request(output), say=lines.append, large=large)
        plan_manifest(manifest, request, output)
        if not output.as_json:
            say("\n".join(lines))  # all of it or, before an error, nothing
        return EXIT_OK
    request = make_request(output, patient=True)
    if sys.stderr.isatty():  # who waits there wants to know for what
        print("loading PyTorch and Ray, usually a few seconds", file=sys.stderr, flush=True)
    ended = perform(manifest, replace(request, assume_yes=options.yes, large=large))
    output.tell(describe_ended(manifest, ended))
    output.end(manifest.kind)
    if ended.interrupted:
        output.say("stopped; run the same command again to continue")
        return EXIT_INTERRUPTED
    return EXIT_OK if ended.whole else EXIT_FAILED


def plan_manifest(manifest: Manifest, request: Request, output: Output) -> None:
    """Say what a manifest's job will cost; a script gets the whole manifest, too."""
    told = replace(
        request,
        tell=lambda found: output.tell(
            {"manifest": manifest.model_dump(mode="json", exclude_none=True), **found}
        ),
    )
    find_kind(manifest.kind).commands.plan(manifest, told)
    output.end(manifest.kind)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def read_assignment(text: str) -> tuple[str, Any]:
    """Read OPTION=VALUE; the value is YAML.

    Raises
    ------
    UserError
        If it is not of that form.
    """
    name, separator, value = text.partition("=")
    try:
        if separator and name.strip():
            return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set: {value!r} is not valid YAML") from error
    raise UserError(f"--set: {text!r} is not of the form option=value")
