"""What the work on a trial has at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustray.manifest import Sweep
from robustray.store import CheckpointStore, ObjectStore
from robustray.sweeps.grid import Trial
from robustray.tracking import Journal
from robustray.training import ALONE, World

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrialJob:
    """Everything that a worker needs; plain data, cheap to ship."""

    trial: Trial
    manifest: Sweep
    prefix: str
    store_uri: str
    data_root: str | None = None
    import_paths: tuple[str, ...] = ()


@dataclass
class TrialContext:
    """What the work on a trial has at hand."""

    job: TrialJob
    store: ObjectStore
    checkpoints: CheckpointStore
    journal: Journal
    device: torch.device
    report: Report
    world: World = ALONE

    @property
    def commits(self) -> bool:
        """Whether this worker is the one that writes to the store."""
        return self.world.rank == 0


@contextmanager
def opened(
    job: TrialJob, store: ObjectStore, device: torch.device, report: Report, world: World
) -> Iterator[TrialContext]:
    """Open a context, with a local folder that goes away with the block."""
    with tempfile.TemporaryDirectory(prefix="robustray-") as scratch:
        checkpoints = CheckpointStore(store, job.prefix, Path(scratch))
        journal = Journal(Path(scratch) / "journal.jsonl")
        yield TrialContext(job, store, checkpoints, journal, device, report, world)
