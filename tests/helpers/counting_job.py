"""A long job in small: adds numbers up, step by step, and fails on request."""

import os
import signal
from pathlib import Path

import torch

from robustray.errors import UserError
from robustray.runtime.file_jobs import Product
from robustray.runtime.job import Context
from robustray.store import canonical_json


def count(context: Context) -> Product:
    """Sum 1 .. epochs, a step each."""
    epochs = context.job.manifest.recipe.epochs
    resumed = context.resume()
    total = resumed.files["state"]["total"] if resumed else torch.zeros(1)
    start = resumed.info["step"] if resumed else 0
    for step in range(start + 1, epochs + 1):
        total = total + step
        _disturb(context, step)
        context.commit(
            step, {"state": {"total": total}}, {"step": step}, metrics={"total": total.item()}
        )
    content = f"total,{total.item()}\n".encode()
    return Product({"metrics": {"sum": total.item()}}, {"table.csv": content, "sum.bin": b"\0"})


def _disturb(context: Context, step: int) -> None:
    """Die, or fail, in the step that the job's description names, once."""
    word, _, at = context.job.manifest.description.partition(" ")
    mark = Path(context.job.data_root) / "disturbed"
    if at != str(step) or mark.exists():
        return
    mark.touch()
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "refuse":
        raise UserError("the sum is not wanted")
    if word == "supersede":
        claim = canonical_json({"host": "elsewhere", "process": 1})
        assert context.store.create(f"{context.job.prefix}/drivers/00000002/claim.json", claim)
