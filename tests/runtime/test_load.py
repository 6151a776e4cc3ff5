"""What a worker's journal says of the load of its machine."""

import mmap
import threading

import torch

from robustray.runtime.load import LoadMonitor
from tests.helpers.study_runs import wait_for

CPU = torch.device("cpu")
NAMES = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_percentage",
    "system/worker_cpu_utilization_percentage",
    "system/worker_memory_usage_megabytes",
}


def test_a_commit_gets_what_is_seen_now_where_nothing_was_sampled():
    with LoadMonitor(CPU) as monitor:
        found = monitor.take()
    assert found.keys() == NAMES
    assert 50 < found["system/worker_memory_usage_megabytes"] < 100_000
    assert 0 < found["system/system_memory_usage_percentage"] <= 100


def test_samples_between_commits_are_averaged_and_handed_out_once(monkeypatch):
    monkeypatch.setattr("robustray.runtime.load._PERIOD_S", 0.001)
    with LoadMonitor(CPU) as monitor:
        memory = [monitor.take()["system/worker_memory_usage_megabytes"]]
        # Pages of its own: an allocator may hand out memory that the process has held all along.
        ballast = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        ballast.write(b"\x01" * len(ballast))
        monitor.take()  # samples from before there was all of it
        wait_for(lambda: monitor._count >= 3, 30, "for samples")
        memory.append(monitor.take()["system/worker_memory_usage_megabytes"])
    ballast.close()
    assert memory[1] > memory[0] + 30
    assert "robustray-load" not in {thread.name for thread in threading.enumerate()}
