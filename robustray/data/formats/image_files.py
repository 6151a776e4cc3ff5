"""Images that stay in their files: a list of them, and the digests of their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from robustray.data.formats.file_facts import Facts, stamp_of
from robustray.data.formats.pictures import parse_colour
from robustray.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 1024  # rows that wait for a thread
# What a file of a folder of images is called; torchvision takes the same ones.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_KEPT_FROM = 1000  # digests of fewer files are not worth a file of their own


def list_files(folder: Path) -> list[str]:
    """Return the images at any depth below a folder, as paths relative to it, sorted.

    Hidden files and folders are left out, and files that are not called as images are; links to
    folders are followed.
    """
    found: list[str] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(place, folder)
        names = [name for name in files if _is_image(name)]
        found += names if below == "." else [f"{below}/{name}" for name in names]
    return sorted(found, key=lambda name: name.split("/"))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(_SUFFIXES)


class ImageFiles:
    """A list of image files, which are read in colour when they are wanted.

    The content of a file is known by its SHA-256. That is taken from its bytes once; where there
    are many files it is kept beside their folder (`robustray.data.formats.file_facts`). Whatever is
    decoded later is compared with it.

    Parameters
    ----------
    folder : Path
        Where the files are.
    names : sequence of str
        Their paths below the folder, in the order of the images.
    size : int, optional
        Height and width to which every image is stretched (bilinear).
    """

    def __init__(self, folder: Path, names: Sequence[str], size: int | None = None) -> None:
        self.folder, self.names, self.size = folder, names, size
        self._sha256_N32 = np.zeros((len(names), 32), np.uint8)
        self._known_N = np.zeros(len(names), bool)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice) -> ImageFiles:
        """Return a stretch of the list."""
        return ImageFiles(self.folder, self.names[rows], self.size)

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height and width; those of the first image, as nobody has read more.

        Raises
        ------
        DataError
            If that can't be read.
        """
        if self.size is not None:
            return len(self), 3, self.size, self.size
        if not len(self):
            return 0, 3, 0, 0
        width, height = parse_colour(BytesIO(self._bytes(0)), self.path(0)).size
        return len(self), 3, height, width

    def path(self, row: int) -> Path:
        """Return where an image is."""
        return self.folder / self.names[row]

    def open(self, row: int) -> Image.Image:
        """Read an image in colour.

        Raises
        ------
        DataError
            If it can't be read, or its content has changed since it was looked at.
        """
        blob = self._bytes(row)
        if self._known_N[row] and hashlib.sha256(blob).digest() != self._sha256_N32[row].tobytes():
            raise DataError(f"image {self.path(row)} has changed since the data set was opened")
        image = parse_colour(BytesIO(blob), self.path(row))
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return image

    def contents(self, rows: np.ndarray) -> np.ndarray:
        """Return the SHA-256 of some files: uint8 (N, 32).

        Raises
        ------
        DataError
            If a file can't be read.
        """
        unknown = rows[~self._known_N[rows]]
        if len(unknown):
            self._sha256_N32[unknown] = self._look_up(unknown)
            self._known_N[unknown] = True
        return self._sha256_N32[rows]

    def _look_up(self, rows: np.ndarray) -> np.ndarray:
        """Return digests from where they were kept, or from the bytes; keep them."""
        if len(rows) < _KEPT_FROM:
            return self._hash(rows)
        names = hashlib.sha256(b"\n".join(os.fsencode(self.names[int(row)]) for row in rows))
        facts = Facts(
            self.folder, f"{self.folder.name}-{names.hexdigest()[:12]}", lambda: self._stamp(rows)
        )
        kept = facts.know("contents", lambda: self._hash(rows).tobytes().hex())
        return np.frombuffer(bytes.fromhex(kept), np.uint8).reshape(-1, 32)

    def _hash(self, rows: np.ndarray) -> np.ndarray:
        digests = each(lambda row: hashlib.sha256(self._bytes(row)).digest(), rows)
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)

    def _stamp(self, rows: np.ndarray) -> str:
        """Return what changes with any of the files: a digest of their stamps."""
        stamps = hashlib.sha256()
        for stamp in each(self._stamp_of, rows):
            stamps.update(json.dumps(stamp).encode())
        return stamps.hexdigest()

    def _stamp_of(self, row: int) -> list[int]:
        try:
            return stamp_of(self.path(row))
        except OSError as error:
            raise DataError(f"image {self.path(row)} is missing: {error.strerror}") from error

    def _bytes(self, row: int) -> bytes:
        try:
            return self.path(row).read_bytes()
        except FileNotFoundError:
            raise DataError(f"image {self.path(row)} is missing") from None
        except OSError as error:
            raise DataError(f"image {self.path(row)} can't be read: {error.strerror}") from error


def each(work: Callable[[int], R], rows: Iterable[int]) -> Iterable[R]:
    """Do something for each row, in as many threads as torch computes with; in order.

    Decoding, resizing and hashing images let other threads run meanwhile.
    """
    left = map(int, rows)
    while block := list(islice(left, _AT_ONCE)):
        yield from _threads().map(work, block)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="images")
