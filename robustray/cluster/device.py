"""Which device a worker should use, and how many CPU threads."""

from __future__ import annotations

import os

import torch

from robustray.errors import UserError


def pick_device(cpus: float, gpus: float) -> torch.device:
    """Return the device that this process should use, and set its number of CPU threads.

    ``ROBUSTRAY_DEVICE`` forces one.

    Parameters
    ----------
    cpus, gpus : float
        What Ray gave to this process.

    Raises
    ------
    UserError
        If Ray gave this process a GPU that torch can't use.
    """
    torch.set_num_threads(max(1, int(cpus)))
    if forced := os.environ.get("ROBUSTRAY_DEVICE"):
        return torch.device(forced)
    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "a GPU was assigned to this worker and torch can't use CUDA here: install the CUDA "
            "build of torch on the workers, or set ROBUSTRAY_DEVICE=cpu to work on CPUs"
        )
    return torch.device("cuda")
