"""The kinds of jobs: which there are, what their manifests say, and what is done with them.

This is the one list of those that come with robustray. It names modules, so that nothing is loaded
before it is needed: reading a manifest takes no torch, and the core imports no wing.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any

from robustray.errors import ManifestError
from robustray.registry import KINDS


@dataclass(frozen=True)
class JobKind:
    """A kind of job.

    Manifest and tasks may be named as "package.module:name", and are then loaded when they are
    asked for.

    Attributes
    ----------
    manifest : type or str
        What its manifests say: a subclass of `robustray.manifest.Manifest`.
    tasks : object or str
        What is done with them: a `robustray.runtime.commands.Commands`, with ``plan``, ``run``,
        ``status`` and ``report``.
    """

    manifest: type[Any] | str
    tasks: Any

    @property
    def model(self) -> type[Any]:
        """The model of the kind's manifests."""
        return _load(self.manifest)

    @property
    def commands(self) -> Any:
        """What the command line does with such manifests."""
        return _load(self.tasks)


def register_kind(name: str, kind: JobKind) -> JobKind:
    """Make a kind known by a name, as ``kind: NAME`` in manifests.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    KINDS.add(name, kind, kind.model)
    return kind


def find_kind(name: str) -> JobKind:
    """Return the kind of a name, or of ``package.module:name``.

    Raises
    ------
    ManifestError
        If there is none, or a user's code can't be imported.
    """
    kind = KINDS.find(name)
    if not isinstance(kind, JobKind):
        raise ManifestError(f"{name} is no JobKind but {type(kind).__name__}", value=name)
    return kind


def _load(source: Any) -> Any:
    return pkgutil.resolve_name(source) if isinstance(source, str) else source


for _name, _manifest, _tasks in (
    ("Sweep", "robustray.manifest:Sweep", "robustray.sweeps.commands:SWEEP"),
    ("Evaluation", "robustray.manifest:Evaluation", "robustray.evaluation.commands:EVALUATION"),
    (
        "Corruptions",
        "robustray.manifest.corruptions:Corruptions",
        "robustray.evaluation.corruptions.commands:CORRUPTIONS",
    ),
    ("Mixing", "robustray.smoothing.manifest:Mixing", "robustray.smoothing.job.commands:MIXING"),
    (
        "Alignment",
        "robustray.alignment.manifest:Alignment",
        "robustray.alignment.job.commands:ALIGNMENT",
    ),
):
    KINDS.add(_name, JobKind(_manifest, _tasks), JobKind)
