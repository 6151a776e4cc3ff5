"""Opening a run and closing it: the same for sweeps, evaluations and other jobs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robustray.cluster import Capacity, connect, find_room, read_capacity
from robustray.errors import StoreUnavailableError, UserError
from robustray.files import from_here
from robustray.manifest import Manifest, Resources, Tracking
from robustray.runtime.lease import Lease, LeaseLostError, lease
from robustray.store import LocalStore, ObjectStore
from robustray.store.opening import GuardedStore
from robustray.tracking import Uploaders, check_sinks, make_sinks, ui_lines


def check_services(store: ObjectStore, tracking_uri: str, tracking: Tracking) -> None:
    """Refuse what is no tracking URI, sinks that can't be had, and a store that can't be written.

    MLflow may be away; it gets everything when it answers.
    """
    check_sinks(tracking_uri, tracking)
    check_store(store)


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
            f"each node would have its own store {store.uri}. Set ROBUSTRAY_STORE to "
            "s3://bucket/prefix, or to a folder that all nodes share"
        )
    if os.environ.get("RAY_ADDRESS"):
        say(
            f"warning: ROBUSTRAY_STORE is not set, so everything goes to {store.uri}; the folder "
            "of a submitted job is deleted after the job. Set ROBUSTRAY_STORE and "
            "MLFLOW_TRACKING_URI to keep it"
        )


def say_places(folder: Path, uri: str, say: Callable[[str], None]) -> None:
    """Say at once where the page and MLflow will be.

    Parameters
    ----------
    folder : Path
        Of the job's files for people.
    uri : str
        Of MLflow.
    say : callable
        Takes lines for a person.
    """
    say(f"page         in {from_here(folder)}, when it is done")
    for line in ui_lines(uri):
        say(line)


@contextmanager
def find_workers(
    store: ObjectStore,
    resources: Resources,
    say: Callable[[str], None],
    *,
    cpus_do: bool,
    work: str,
) -> Generator[Resources]:
    """Be connected to a Ray that has room for the work; yield what each worker gets.

    Parameters
    ----------
    store : ObjectStore
        The nodes must share it.
    resources, say, cpus_do, work
        As in `robustray.cluster.find_room`.

    Raises
    ------
    UserError
        If no node is large enough, GPUs were asked for where there are none, or the store is
        a folder that the nodes don't share.
    MachineError
        If no node has come in time.
    """
    with connect(say=say):
        check_shared(store, read_capacity(), say)
        yield find_room(resources, say, cpus_do=cpus_do, work=work)


@dataclass(frozen=True)
class Session:
    """An open run: what its driver works with.

    Attributes
    ----------
    lease : Lease
        Makes this the only driver.
    resources : Resources
        Of each worker, as settled for the cluster that there is.
    uploader : Uploaders
        Brings records to MLflow and other sinks as long as the lease holds.
    tracking_uri : str
        Where MLflow is.
    """

    lease: Lease
    resources: Resources
    uploader: Uploaders
    tracking_uri: str

    @property
    def store(self) -> GuardedStore:
        """The store, which refuses changes when the lease is lost."""
        return self.lease.store

    def drain(self, limit_s: float = math.inf) -> dict[str, list[str]]:
        """Wait for MLflow and other sinks; see `robustray.tracking.Uploaders.drain`."""
        return self.uploader.drain(limit_s)

    @contextmanager
    def closing(self, close: Callable[[BaseException], object]) -> Generator[None]:
        """Call ``close`` with the error that ends a block, unless it is that the lease is lost."""
        try:
            yield
        except LeaseLostError:
            raise
        except BaseException as error:
            close(error)
            raise


@contextmanager
def open_session(
    store: ObjectStore,
    tracking_uri: str,
    manifest: Manifest,
    say: Callable[[str], None],
    *,
    prefix: str | Callable[[Resources], str],
    cpus_do: bool,
    work: str,
) -> Generator[Session]:
    """Open a run: connect to Ray, find room, become the only driver, begin to tell MLflow.

    Everything ends with the block, in the opposite order.

    Parameters
    ----------
    store, tracking_uri
        As checked by `check_services`.
    manifest : Manifest
        Says which resources are wanted, and where the run is shown.
    say, cpus_do, work
        As in `robustray.cluster.find_room`.
    prefix : str or callable
        The work's place in the store; may depend on the resources that there are.

    Raises
    ------
    UserError
        As `find_workers`, and if another driver is at work.
    MachineError
        As `find_workers`.
    """
    with find_workers(store, manifest.resources, say, cpus_do=cpus_do, work=work) as settled:
        place = prefix if isinstance(prefix, str) else prefix(settled)
        with lease(store, place, say) as held:
            uploader = start_tracking(tracking_uri, say, held, manifest.tracking)
            try:
                yield Session(held, settled, uploader, tracking_uri)
            finally:
                uploader.close()


def start_tracking(
    uri: str,
    say: Callable[[str], None],
    held: Lease | None = None,
    tracking: Tracking | None = None,
) -> Uploaders:
    """Start the uploaders, and say which sinks do not answer.

    A driver names its lease: nothing goes to MLflow after that is lost.
    """
    sinks = make_sinks(uri, tracking or Tracking())
    uploaders = Uploaders(sinks, log=say, allowed=held.holds if held else lambda: True)
    for name, problem in uploaders.check().items():
        say(
            f"warning: {name} does not answer ({problem}); the work continues, and {name} gets "
            "the results from the store when it answers"
        )
    return uploaders
