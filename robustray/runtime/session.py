"""What every run does first: look at its store, and begin to tell MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable

from robustray.cluster import Capacity
from robustray.errors import StoreUnavailableError, UserError
from robustray.runtime.lease import Lease
from robustray.store import LocalStore, ObjectStore
from robustray.tracking import Uploader


def check_store(store: ObjectStore) -> None:
    """Refuse to start with a store that can't be written; later outages are waited out."""
    try:
        store.probe()
    except StoreUnavailableError as error:
        raise StoreUnavailableError(
            f"{error}. Check ROBUSTRAY_STORE and AWS_ENDPOINT_URL"
        ) from error


def check_shared(store: ObjectStore, capacity: Capacity, say: Callable[[str], None]) -> None:
    """Refuse the default folder on a cluster of several machines, which don't share it."""
    if not isinstance(store, LocalStore) or os.environ.get("ROBUSTRAY_STORE"):
        return
    if len(capacity.live) > 1 or capacity.grows:
        raise UserError(
            f"the store would be {store.uri} on each node by itself. Set ROBUSTRAY_STORE to "
            "s3://bucket/prefix, or to a folder that all nodes share"
        )
    if os.environ.get("RAY_ADDRESS"):
        say(
            f"warning: ROBUSTRAY_STORE is not set, so everything goes to {store.uri}; a submitted "
            "job's folder does not last. Set ROBUSTRAY_STORE and MLFLOW_TRACKING_URI to keep it"
        )


def start_tracking(
    uri: str, say: Callable[[str], None], held: Lease | None = None
) -> tuple[Uploader, float]:
    """Start the uploader; return it, and how long to wait for it at the end, in seconds.

    A driver names its lease: nothing goes to MLflow after that is lost.
    """
    uploader = Uploader(uri, log=say, allowed=held.holds if held else lambda: True)
    answer = uploader.check()
    if answer is not True:
        say(
            f"warning: MLflow does not answer ({answer}); the work goes on, its record is in the "
            "store, and MLflow gets it when it answers"
        )
    return uploader, 120 if answer is True else 15
