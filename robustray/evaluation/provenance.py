"""Where a unit was computed. Kept light: every worker imports it."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("robustray", "torch", "ray", "numpy", "pyarrow", "safetensors")


def environment(device: torch.device) -> dict[str, Any]:
    """Return what may explain a difference between two verdicts: host, device, threads, versions.

    ``tf32`` tells how attacks compute (`robustray.attacks.context.judging`), not how the process
    is set up.
    """
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "tf32": False,
        "versions": {name: text for name in _PACKAGES if (text := _version(name))},
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.machine()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
