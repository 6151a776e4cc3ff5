"""Jobs that leave files behind: weights, figures, tables.

Beside what every job has (`robustray.runtime.job`), the prefix of such a job holds

    manifest.yaml            what was asked for
    files/<sha256>/<name>    what an attempt leaves behind
    result.json              commits the files, by their digests
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from robustray.cluster import preemption
from robustray.errors import CorruptObjectError, UserError
from robustray.files import write_atomically
from robustray.manifest import Resources, dump_manifest, manifest_hash
from robustray.runtime.attempts import describe_attempts, list_attempts
from robustray.runtime.finished import Finished, Present, Presented, describe_making
from robustray.runtime.job import Context, Job, attempt_job, read_finished
from robustray.store import (
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    canonical_json,
    find_sealed,
    look_twice,
    sha256_bytes,
)
from robustray.tracking import MetricPoint, RunRecord
from robustray.tracking.records import Status, epoch_points, flatten
from robustray.user_code import import_from

logger = logging.getLogger("robustray.runtime")

# Weights stay in the store, where the run's result.json says which they are.
_SHOWN = (".png", ".html", ".csv", ".json", ".yaml", ".parquet", ".txt", ".pdf")


@dataclass(frozen=True)
class Product:
    """What a job comes to.

    Attributes
    ----------
    result : dict
        The canonical result: no time, host or attempt in it. ``metrics`` of it, numbers by name,
        go to the job's MLflow run.
    files : dict of str to bytes
        What the job leaves behind; their digests are added to the result, as ``files``.
    """

    result: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])


@dataclass(frozen=True)
class FileJob(Job):
    """A job whose result names files.

    Attributes
    ----------
    produce : callable
        Does the work: takes a `Context`, returns a `Product`. A function of a module.
    resources : Resources
        Of the worker.
    coordinates : bool
        The work is done by actors with these resources; the worker itself takes none of them.
    present : callable, optional
        What makes answer and page of the finished job; they are no part of its result.
    """

    produce: Callable[[Context], Product]
    resources: Resources
    coordinates: bool = False
    present: Present | None = field(default=None, kw_only=True)

    @property
    @override
    def share(self) -> tuple[float, float]:
        return (0.0, 0.0) if self.coordinates else (self.resources.cpus, self.resources.gpus)

    @override
    def is_done(self, store: ObjectStore) -> bool:
        return is_whole(store, self.prefix)

    @override
    def work(self, context: Context) -> dict[str, Any]:
        return keep_files(context.store, self.prefix, self.produce(context))


def attempt_as_task(pickled: bytes, import_paths: tuple[str, ...]) -> tuple[str, str]:
    """Make one attempt at a job in a task of Ray's, which hears SIGTERM; as `attempt_job`.

    The job is unpickled here, where the folders are known that a user's kind is imported from.
    """
    preemption.listen()
    import_from(import_paths)
    return attempt_job(pickle.loads(pickled))  # noqa: S301 (the driver wrote it)


def read_result(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """Return a job's committed result, or None while it has none.

    Raises
    ------
    CorruptObjectError
        If it is damaged.
    """
    result = find_sealed(store, f"{prefix}/result.json")
    if result is not None and not isinstance(result.get("files"), dict):
        raise CorruptObjectError(f"{prefix}/result.json is damaged: it is no job's result")
    return result


def is_whole(store: ObjectStore, prefix: str) -> bool:
    """Tell whether a job is done, and its result and all its files are what was committed.

    A result that is not, or whose files are not, is deleted: the job must make it again.
    """
    try:
        return look_twice(lambda: _has_all(store, prefix))
    except CorruptObjectError as error:
        logger.warning("%s; it is made again", error)
        store.delete(f"{prefix}/result.json")
        return False


def _has_all(store: ObjectStore, prefix: str) -> bool:
    """Tell whether a job is done; damage of its result or of a file is raised."""
    result = read_result(store, prefix)
    if result is None:
        return False
    for name in result["files"]:
        read_file(store, prefix, result, name)
    return True


def read_file(store: ObjectStore, prefix: str, result: Mapping[str, Any], name: str) -> bytes:
    """Return a file that a finished job left behind, checked against its result.

    Raises
    ------
    UserError
        If the job left no such file.
    CorruptObjectError
        If its bytes are not those that were committed, or gone.
    """
    digests = result["files"]
    if name not in digests:
        raise UserError(f"{prefix} has no file {name!r}; it has {', '.join(sorted(digests))}")
    for key in (_file_key(prefix, name, digests[name]), f"{prefix}/files/{name}"):
        with contextlib.suppress(NotFoundError):  # the second key is that of earlier versions
            content = store.get(key)
            if sha256_bytes(content) != digests[name]:
                raise CorruptObjectError(f"{key} differs from the digest in result.json")
            return content
    raise CorruptObjectError(f"{prefix} has lost its file {name}, which result.json names")


def keep_files(store: ObjectStore, prefix: str, product: Product) -> dict[str, Any]:
    """Write a job's files; return its result with their digests, which commits them."""
    digests = {name: sha256_bytes(content) for name, content in product.files.items()}
    for name, content in product.files.items():
        store.put(_file_key(prefix, name, digests[name]), content)
    return {**product.result, "files": digests}


def _file_key(prefix: str, name: str, sha256: str) -> str:
    """Return where a file lies: attempts that made different bytes do not overwrite each other."""
    return f"{prefix}/files/{sha256}/{name}"


def write_files(
    store: ObjectStore,
    prefix: str,
    result: Mapping[str, Any],
    report_root: Path,
    presented: Presented | None = None,
) -> Path:
    """Write a finished job's result, files and page below a folder; return its own folder."""
    folder = report_root / prefix.rpartition("/")[2]
    write_atomically(folder / "result.json", canonical_json(result))
    for name in result["files"]:
        write_atomically(folder / name, read_file(store, prefix, result, name))
    if presented is not None:
        for name, content in presented.files.items():
            write_atomically(folder / name, content)
    return folder


def present_job(
    store: ObjectStore, prefix: str, manifest: Any, result: dict[str, Any], present: Present | None
) -> Presented | None:
    """Make answer and page of a finished job; None for a kind that has none.

    Raises
    ------
    CorruptObjectError
        If a file is not what the result says.
    """
    if present is None:
        return None
    shown = [name for name in result["files"] if name.endswith(_SHOWN)]
    return present(
        Finished(
            prefix.rpartition("/")[2],
            manifest,
            result,
            {name: read_file(store, prefix, result, name) for name in shown},
            describe_making(store, prefix, manifest),
            f"{store.uri.rstrip('/')}/{prefix}",
        )
    )


def job_run(
    job: FileJob, store: ObjectStore, status: Status, params: Mapping[str, str]
) -> RunRecord:
    """Return the MLflow run that a job should have, as far as the store knows it."""
    manifest, prefix = job.manifest, job.prefix
    tries = list_attempts(store, prefix)
    settings = manifest.model_dump(
        mode="json", exclude={"description", "resources", "tracking", "kind"}
    )
    artifacts: dict[str, bytes] = {"manifest.yaml": dump_manifest(manifest).encode()}
    checkpoints = CheckpointStore(store, prefix, Path(tempfile.gettempdir()))
    points = epoch_points(
        event for record in checkpoints.records() for event in record.info["journal"]
    )
    end_ms = tries[-1].ended_ms if tries and status != "RUNNING" else None
    result, description = read_result(store, prefix), manifest.description
    if result is not None:
        finished = read_finished(store, prefix)
        end_ms = finished["finished_ms"] if finished else end_ms or 0
        last = max((point.step for point in points), default=0)
        points += [
            MetricPoint(name, value, last, end_ms)
            for name, value in result.get("metrics", {}).items()
            if isinstance(value, int | float)
        ]
        artifacts["result.json"] = canonical_json(result)
        shown = [name for name in result["files"] if name.endswith(_SHOWN)]
        artifacts |= {name: read_file(store, prefix, result, name) for name in shown}
        if (presented := present_job(store, prefix, manifest, result, job.present)) is not None:
            artifacts |= presented.files
            description = "\n\n".join(filter(None, (presented.description, description)))
    if status != "RUNNING":
        artifacts["attempts.json"] = canonical_json([vars(entry) for entry in tries])
    return RunRecord(
        key=prefix,
        name=prefix.rpartition("/")[2],
        experiment=manifest.name,
        params={**flatten(settings), **params},
        tags={
            "mlflow.note.content": description,
            "kind": manifest.kind,
            "manifest_sha256": manifest_hash(manifest),
            **describe_attempts(tries),
        },
        metrics=tuple(points),
        artifacts=artifacts,
        status=status,
        start_ms=min((entry.started_ms for entry in tries), default=0),
        end_ms=end_ms,
    )
