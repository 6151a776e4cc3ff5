"""What the commands share: exit codes, the manifest that is named, the store, the run itself."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from robustray.errors import UserError
from robustray.kinds import find_kind
from robustray.manifest import Manifest, dump_manifest, load_manifest, pin_code
from robustray.runtime.commands import Request
from robustray.runtime.outcome import perform
from robustray.store import open_store

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130


def read_manifest(options: argparse.Namespace) -> Manifest:
    """Return the manifest that the command line names."""
    path = options.manifest or options.default_manifest
    if path is None:
        raise UserError("name a manifest: --manifest FILE (robustray manifests lists some)")
    return pin_code(load_manifest(path, options.set))


def make_request(*, patient: bool = False) -> Request:
    """Return what a command works with; only what runs has the patience to wait for its store."""
    store = open_store()
    return Request(store if patient else store.impatient(), Path("runs/reports").resolve(), say)


def run_manifest(manifest: Manifest, options: argparse.Namespace) -> int:
    """Run a manifest of any kind; with ``--dry-run`` print it and its plan."""
    large = getattr(options, "large", False)
    if options.dry_run:
        lines = [dump_manifest(manifest)]
        request = replace(make_request(), say=lines.append, in_full=True, large=large)
        find_kind(manifest.kind).commands.plan(manifest, request)
        say("\n".join(lines))  # all of it or, before an error, nothing
        return EXIT_OK
    request = replace(make_request(patient=True), assume_yes=options.yes, large=large)
    ended = perform(manifest, request)
    if ended.interrupted:
        say("stopped; run the same command again to continue")
        return EXIT_INTERRUPTED
    return EXIT_OK if ended.whole else EXIT_FAILED


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
