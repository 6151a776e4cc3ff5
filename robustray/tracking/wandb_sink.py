"""The same runs for Weights & Biases: folders for ``wandb sync``; nothing is sent from here."""

# wandb's types are incomplete.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustray.tracking.faults import plain_errors
from robustray.tracking.records import RunRecord, bytes_digest

_STAMP = "robustray.json"
_NOTE = "mlflow.note.content"


class WandbSink:
    """A folder of offline runs, each written once it has ended.

    wandb can't go on with a run offline. So the folder of a run is written whole, and replaced by
    another one if more is known of it later. Its id follows from the run's key: what is synced
    again replaces what was there.

    Parameters
    ----------
    folder : str
        Gets a folder ``offline-run-...`` for each run.
    """

    name = "wandb"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).resolve()

    @property
    def title(self) -> str:
        """Its name, and where it is."""
        return f"wandb ({self.folder})"

    def prepare(self) -> None:
        """Import wandb."""
        import wandb  # noqa: F401 # pyright: ignore[reportUnusedImport]

    def probe(self) -> None:
        """Return if the folder is there, or can be made."""
        with plain_errors():
            self.folder.mkdir(parents=True, exist_ok=True)

    def apply(self, record: RunRecord) -> bool:
        """Write the folder of a run that has ended, unless it is there."""
        if not record.terminal:
            return True
        with plain_errors():
            id_ = bytes_digest(record.key.encode())[:16]
            digest = f"{_shown(record).digest()} {record.status}"
            older = list(self.folder.glob(f"offline-run-*-{id_}"))
            if any(_stamp_of(folder) == digest for folder in older):
                return True
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".making-") as scratch:
                made = _write(record, id_, Path(scratch))
                (made / _STAMP).write_text(json.dumps({"digest": digest, "key": record.key}))
                for folder in older:
                    shutil.rmtree(folder)
                made.rename(self.folder / made.name)
        return True


def _shown(record: RunRecord) -> RunRecord:
    """Return the record without what an offline run does not hold."""
    tags = {**_plain_tags(record), _NOTE: record.tags.get(_NOTE, "")}
    return replace(record, tags=tags, artifacts={}, data=(), models=(), columns=None, start_ms=0)


def _stamp_of(folder: Path) -> str | None:
    """Return which state of a run a folder holds; None if it is not whole."""
    try:
        return json.loads((folder / _STAMP).read_text())["digest"]
    except (OSError, ValueError, KeyError):
        return None


def _write(record: RunRecord, id_: str, scratch: Path) -> Path:
    """Have wandb write an offline run; return its folder."""
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    run = wandb.init(
        project=record.experiment,
        id=id_,
        name=record.name,
        group=record.parent_key and record.parent_key.rpartition("/")[2],
        notes=record.tags.get(_NOTE) or None,
        config={**record.params, "tags": _plain_tags(record)},
        mode="offline",
        dir=str(scratch),
        reinit="create_new",
        settings=quiet,
    )
    run.define_metric("*", step_metric="step")
    for row in _rows(record):
        run.log(row)
    run.finish(exit_code=0 if record.status == "FINISHED" else 1)
    (made,) = (scratch / "wandb").glob("offline-run-*")
    return made


def _plain_tags(record: RunRecord) -> dict[str, str]:
    return {n: v for n, v in record.tags.items() if v and not n.startswith("mlflow.")}


def _rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield a row for each step, with the time of its last point."""
    rows: dict[int, dict[str, Any]] = {}
    for point in record.metrics:
        row = rows.setdefault(point.step, {"step": point.step, "_timestamp": 0.0})
        row[point.name] = point.value
        row["_timestamp"] = max(row["_timestamp"], point.timestamp_ms / 1000)
    yield from (rows[step] for step in sorted(rows))
