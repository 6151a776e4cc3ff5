"""What MLflow, TensorBoard and wandb have in common: they show runs."""

from __future__ import annotations

from typing import Protocol

from robustray.tracking.records import RunRecord


class Sink(Protocol):
    """Something that shows runs; used by one thread at a time.

    Its methods raise `TrackingUnavailableError` where a later try may succeed, and
    `RecordRejectedError` where none will.
    """

    name: str

    @property
    def title(self) -> str:
        """Its name, and where it is."""
        ...

    def prepare(self) -> None:
        """Import what it needs, which may take seconds."""

    def probe(self) -> None:
        """Return if it answers."""

    def apply(self, record: RunRecord) -> bool:
        """Bring it to a record's state; False if the parent's run is not there to be named."""
        ...
