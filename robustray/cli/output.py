"""Where a command's words and data go: with ``--json``, data alone to standard output."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustray.errors import UserError
from robustray.manifest import Manifest, study_id
from robustray.runtime.commands import Ended

_WORDS = "print JSON for a script, and everything else to standard error"


def add_json(command: argparse.ArgumentParser) -> None:
    """Add ``--json`` to a command."""
    command.add_argument("--json", action="store_true", help=_WORDS)


class Output:
    """What a command says and tells.

    Parameters
    ----------
    as_json : bool
        Whether a script reads standard output.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json, self._documents = as_json, sys.stdout
        self.told: list[Mapping[str, Any]] = []

    def say(self, text: str) -> None:
        """Print a line for a person, at once."""
        print(text, flush=True)  # with --json, that is standard error

    def tell(self, found: Mapping[str, Any]) -> None:
        """Keep what a script reads."""
        self.told.append(found)

    def end(self, kind: str) -> None:
        """Print the one document that a command has told, if a script reads it.

        Raises
        ------
        UserError
            If there is none: a kind of somebody else's need not tell anything.
        """
        if not self.as_json:
            return
        if not self.told:
            raise UserError(f"--json: the commands of kind {kind} tell nothing to scripts")
        self.write(self.told[-1])

    def write(self, document: object) -> None:
        """Write a document for a script."""
        text = json.dumps(_plain(document), indent=2, allow_nan=False)
        print(text, file=self._documents, flush=True)


def describe_ended(manifest: Manifest, ended: Ended) -> dict[str, Any]:
    """Return how a run ended as scripts read it (``--json``)."""
    return {
        "kind": manifest.kind,
        "id": ended.id or study_id(manifest),
        "name": manifest.name,
        "status": ended.status,
        "answer": ended.answer,
        "failed": dict(ended.failed),
        "judged_by": ended.judged_by,
        "best": ended.best,
        "rows": ended.rows,
        "folder": ended.folder,
        "page": ended.page,
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: no NaN, no tuples, no paths, no scalars of NumPy's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
