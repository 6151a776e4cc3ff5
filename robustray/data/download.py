"""Opt-in downloads through torchvision, which nothing else here needs."""

from __future__ import annotations

import importlib
import socket
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from robustray.errors import MachineError

_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}
_FAILURES = (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zlib.error)
_TIMEOUT_SECONDS = 60.0
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []


def download(name: str, root: Path) -> None:
    """Download a data set's official files into ``root``.

    They are unpacked in a folder beside and moved in when complete, so no reader sees half a file.

    Raises
    ------
    MachineError
        If the download failed.
    """
    dataset = getattr(torchvision_datasets(), _CLASSES[name])
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder, _timeout():
            dataset(folder, download=True)
            for path in sorted(Path(folder).glob("*/**/*")):
                target = root / path.relative_to(folder)
                if path.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
    except _FAILURES as error:
        raise MachineError(f"downloading {name} to {root} failed: {error}") from error


def torchvision_datasets() -> Any:
    """Import ``torchvision.datasets``, also beside a torch that its binaries were not built for.

    torchvision's CUDA wheel can't load its operators into a CPU torch, and then stops at the first
    one it describes. Its data sets need none of them: declaring them is enough.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)  # the operators live as long as this object
    return importlib.import_module("torchvision.datasets")


@contextmanager
def _timeout() -> Iterator[None]:
    """Keep a silent server from holding a job for ever (torchvision sets no time-out)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
