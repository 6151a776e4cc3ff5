"""Worker processes on gloo, for the tests of training by several of them."""

from __future__ import annotations

import io
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from robustray.training import World


def on_workers(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call ``work(world, *arguments)`` in ``size`` processes; return what each returned."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["robustray.training", "torch.distributed"])  # once for all
    answers, port = context.Queue(), _free_port()
    processes = [
        context.Process(target=_worker, args=(rank, size, port, answers, work, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(_read(answers.get(timeout=100)) for _ in processes)
    finally:
        for process in processes:
            process.join(20)
            process.kill()
    errors = [error for kind, error in found.values() if kind == "error"]
    assert not errors, errors[0]
    return [found[rank][1] for rank in range(size)]


def _worker(
    rank: int, size: int, port: int, answers: Any, work: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    try:
        answers.put(_bytes((rank, ("found", work(World.of_process_group(), *arguments)))))
    except Exception:
        answers.put(_bytes((rank, ("error", traceback.format_exc()))))
    finally:
        dist.destroy_process_group()


def _bytes(answer: Any) -> bytes:
    """Write tensors out: those in shared memory would go with the process that made them."""
    buffer = io.BytesIO()
    torch.save(answer, buffer)
    return buffer.getvalue()


def _read(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=False)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
