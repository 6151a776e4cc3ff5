"""A trial's epochs in the store: continued from, committed, pruned, and the selected one read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustray.errors import CorruptObjectError
from robustray.manifest import Sweep
from robustray.runtime.job import Context
from robustray.store import CheckpointRecord, CheckpointStore, NotFoundError
from robustray.training import EpochReport, TrainingState


def resume_state(context: Context) -> TrainingState | None:
    """Return the newest intact checkpoint's state; the first worker says which that is."""
    checkpoints, world = context.checkpoints, context.world
    found = checkpoints.newest() if context.commits else None
    if context.commits:
        # What lies beyond the newest intact checkpoint can't be continued: it is computed again.
        checkpoints.truncate(found[0].step if found else 0)
    step = world.of_first(found[0].step if found else 0)
    if world.size == 1 and (partial := partial_state(context, step)) is not None:
        return partial
    if step == 0:
        return None
    if found is None:
        record = checkpoints.record(step)
        found = record, {name: checkpoints.load(record, name) for name in record.files}
    context.journal.append("resumed", epoch=step)
    return TrainingState(files=found[1], info=found[0].info["training"])


def keep_partial(context: Context, state: TrainingState) -> None:
    """Keep a state from the middle of an epoch, for the attempt that goes on."""
    partials = partial_checkpoints(context)
    step = max(partials.steps(), default=0) + 1
    partials.commit(step, state.files, {"training": state.info})


def partial_state(context: Context, epoch: int) -> TrainingState | None:
    """Return the newest state from the middle of the epoch after ``epoch``, if there is any."""
    found = partial_checkpoints(context).newest()
    if found is None or found[0].info["training"]["epoch"] != epoch:
        return None
    context.journal.append("resumed in mid-epoch", **found[0].info["training"]["partial"])
    return TrainingState(files=found[1], info=found[0].info["training"])


def drop_partials(context: Context) -> None:
    """Delete what was kept in the middle of epochs: they are over."""
    partial_checkpoints(context).truncate(0)


def partial_checkpoints(context: Context) -> CheckpointStore:
    """Return where states from the middle of epochs are, apart from the epochs' checkpoints."""
    return CheckpointStore(
        context.store, f"{context.job.prefix}/partial", context.checkpoints.scratch
    )


def commit_epoch(context: Context, report: EpochReport, state: Callable[[], TrainingState]) -> None:
    """Commit an epoch with its journal segment, prune what needn't be kept, tell the driver."""
    if context.commits:
        _commit(context, report, state)
    warning = {"warning": report.warning} if report.warning else {}
    numbers = {**report.metrics, **report.timing, **_memory(context.device)}
    context.report({"epoch": report.epoch, **numbers, **warning})


def _memory(device: torch.device) -> dict[str, int]:
    """Return the most memory that this process has held on a GPU so far, in bytes."""
    if device.type != "cuda":
        return {}
    return {"gpu_bytes": torch.cuda.max_memory_reserved(device)}


def _commit(context: Context, report: EpochReport, state: Callable[[], TrainingState]) -> None:
    journal = context.journal
    journal.append(
        "epoch",
        epoch=report.epoch,
        metrics=report.metrics,
        timing=report.timing,
        load=context.load.take(),
        is_best=report.is_best,
        **({"warning": report.warning} if report.warning else {}),
    )
    snapshot = state()
    info = {"training": snapshot.info, "journal": journal.segment()}
    context.checkpoints.commit(report.epoch, snapshot.files, info)
    drop_partials(context)
    journal.mark_committed()
    manifest = context.job.manifest
    if manifest.retention.keep != "all":
        context.checkpoints.prune(kept_epochs(manifest, report.best_epoch))


def kept_epochs(manifest: Sweep, best: int | None) -> set[int]:
    """Epochs whose bytes are kept, the newest aside, which is always kept."""
    every = manifest.retention.every
    kept = set(range(every, manifest.recipe.epochs + 1, every)) if every else set()
    return kept | ({best} if best else set())


def load_selected(context: Context, epoch: int) -> dict[str, Tensor]:
    """Read the weights that an earlier attempt selected; without them, training starts again."""
    with _beginning_again(context):
        selected = context.checkpoints.record(epoch)
        return context.checkpoints.load(selected, selected_name(selected))


def read_digest(context: Context, epoch: int) -> str:
    """Return the SHA-256 of the selected weights; without it, training starts again."""
    with _beginning_again(context):
        selected = context.checkpoints.record(epoch)
        return selected.files[selected_name(selected)]["sha256"]


@contextlib.contextmanager
def _beginning_again(context: Context) -> Iterator[None]:
    """Drop all checkpoints where one that is needed is damaged: no later attempt could do more."""
    try:
        yield
    except (CorruptObjectError, NotFoundError):
        if context.commits:
            context.checkpoints.truncate(0)
        raise


def selected_name(record: CheckpointRecord) -> str:
    """Return which payload of a checkpoint is validated and used."""
    return "ema" if "ema" in record.files else "weights"
