"""How loaded the machine of a worker is: processors, memory, GPU; sampled now and then."""

# What torch says of a GPU has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import psutil
import torch

_PERIOD_S = 10.0
_MIB = 1 << 20


class LoadMonitor:
    """Samples in a thread, every ten seconds; a sample takes less than a millisecond.

    Means are handed out with each commit, so that a long job does not fill its journal. The names
    are those of MLflow's page of system metrics.

    Parameters
    ----------
    device : torch.device
        Where the worker computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._process = psutil.Process()
        self._gpu: Callable[[], dict[str, float]] | None = None
        if device.type == "cuda":
            total = int(torch.cuda.get_device_properties(device).total_memory)
            self._gpu = lambda: _look_at_gpu(device, total)
        self._sums: dict[str, float] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robustray-load", daemon=True)

    def __enter__(self) -> Self:
        psutil.cpu_percent()  # the first answer of each says nothing
        self._process.cpu_percent()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def take(self) -> dict[str, float]:
        """Return the means since the last call, or what is seen now if nothing was sampled."""
        with self._lock:
            if self._count == 0:
                self._sample()
            means = {name: total / self._count for name, total in self._sums.items()}
            self._sums, self._count = {}, 0
            return means

    def _run(self) -> None:
        while not self._end.wait(_PERIOD_S):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        memory = psutil.virtual_memory()
        found = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_percentage": memory.percent,
            "system/worker_cpu_utilization_percentage": self._process.cpu_percent(),
            "system/worker_memory_usage_megabytes": self._process.memory_info().rss / _MIB,
            **self._look_at_gpu(),
        }
        for name, value in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def _look_at_gpu(self) -> dict[str, float]:
        """Return what the driver says of the GPU; nothing more is asked of one that fails."""
        if self._gpu is None:
            return {}
        try:
            return self._gpu()
        except Exception:  # work goes on without a driver library, and with a broken one
            self._gpu = None
            return {}


def _look_at_gpu(device: torch.device, total: int) -> dict[str, float]:
    """Ask the driver's library, and not CUDA: the work may be recording a graph."""
    used = torch.cuda.device_memory_used(device)
    return {
        "system/gpu_utilization_percentage": float(torch.cuda.utilization(device)),
        "system/gpu_memory_usage_megabytes": used / _MIB,
        "system/gpu_memory_usage_percentage": 100 * used / total,
    }
