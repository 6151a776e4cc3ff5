"""Images that are read, resized and cut when a batch needs them, instead of lying in memory."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustray.data.formats.file_facts import Facts
from robustray.data.formats.image_files import ImageFiles, each
from robustray.data.formats.mapped import advise
from robustray.errors import DataError
from robustray.manifest.job import Transform

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 16 << 20  # bytes of an array that are hashed together


class Pixels:
    """Images of one shape that lie in files, in an array that is mapped from one, or in an array.

    What is read depends on the rows alone, never on threads or on what was read before.

    Parameters
    ----------
    source : ImageFiles or ndarray
        Files, or images uint8 (N, C, H, W).
    transform : Transform, optional
        How they are resized and cut; without one all of them must have one size.
    rows : ndarray, optional
        Which of them, int64; default: all (and then no memory is taken to say so).

    Raises
    ------
    DataError
        If images of these channels can't be resized, or are told to be resized twice.
    """

    def __init__(
        self,
        source: ImageFiles | np.ndarray,
        transform: Transform | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.source, self.transform, self._rows = source, transform, rows
        if transform and isinstance(source, ImageFiles) and source.size is not None:
            raise DataError("data.arguments.size and data.transform: give one of them")
        if transform and source.shape[1] not in (1, 3):
            raise DataError(
                f"data.transform: images have {source.shape[1]} channels, and only those of 1 or "
                "3 are resized"
            )
        self._image_shape = image_shape_of(source.shape[1:], transform)

    def __len__(self) -> int:
        return len(self.source if self._rows is None else self._rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height and width."""
        return len(self), *self._image_shape

    def select(self, rows: Tensor | slice) -> Pixels:
        """Return the images at the given rows of these; nothing is read."""
        if isinstance(rows, slice):
            chosen = np.arange(*rows.indices(len(self)))
        else:
            chosen = rows.cpu().numpy()
        if chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        chosen = chosen if self._rows is None else self._rows[chosen]
        return Pixels(self.source, self.transform, chosen)

    def read(self) -> Tensor:
        """Read the images: uint8 (N, C, H, W), on the CPU.

        Raises
        ------
        DataError
            If a file can't be read, has changed, or is of another size than the others.
        """
        if not isinstance(self.source, ImageFiles) and self.transform is None:
            return torch.from_numpy(self._copy(self.source, 0, len(self)))
        whole, rows = np.empty(self.shape, np.uint8), self._all_rows()

        def put(number: int) -> None:
            whole[number] = self._prepare(int(rows[number]))

        for _ in each(put, range(len(rows))):
            pass
        return torch.from_numpy(whole)

    def digest(self, columns: Sequence[np.ndarray]) -> str:
        """Return the SHA-256, hexadecimal, of shape, content, and what belongs to the images.

        The content of arrays that are not transformed is that of the pixels; else it is the files'
        or images' own, and the transform. That of a mapped file is kept beside the file.
        """
        if not isinstance(self.source, np.memmap):
            return self._digest(columns)
        mapped, filename = self.source, self.source.filename
        assert filename is not None
        key = hashlib.sha256(json.dumps([_place(mapped), self._facts()]).encode())
        for column in columns if self._rows is None else (self._rows, *columns):
            key.update(np.ascontiguousarray(column).data)

        def read_through() -> str:
            advise(mapped, in_order=True)
            return self._digest(columns)

        found = Facts(Path(filename)).know(f"digest {key.hexdigest()[:32]}", read_through)
        advise(mapped, in_order=False)
        return found

    def _digest(self, columns: Sequence[np.ndarray]) -> str:
        if self.transform is None and not isinstance(self.source, ImageFiles):
            digest = hashlib.sha256(json.dumps(list(self.shape)).encode())
        else:
            digest = hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode())
        if isinstance(self.source, ImageFiles):
            digest.update(np.ascontiguousarray(self.source.contents(self._all_rows())).data)
        else:
            step = max(1, _AT_ONCE // max(1, int(np.prod(self.source.shape[1:]))))
            for start in range(0, len(self), step):
                digest.update(self._copy(self.source, start, start + step).data)
        for column in columns:
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def _facts(self) -> dict[str, Any]:
        """Return what is done with the images."""
        changed = self.transform and self.transform.model_dump(mode="json", exclude_defaults=True)
        size = getattr(self.source, "size", None) if isinstance(self.source, ImageFiles) else None
        own = None if isinstance(self.source, ImageFiles) else list(self.source.shape[1:])
        return {"shape": list(self.shape), "transform": changed, "size": size, "own": own}

    def _all_rows(self) -> np.ndarray:
        return np.arange(len(self)) if self._rows is None else self._rows

    def _copy(self, array: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return the images of some of the rows, one after the other in memory."""
        rows = slice(start, stop) if self._rows is None else self._rows[start:stop]
        return np.array(array[rows], order="C", subok=False)

    def _prepare(self, row: int) -> np.ndarray:
        """Return one image, uint8 (C, H, W)."""
        if isinstance(self.source, ImageFiles):
            image = self.source.open(row)
        else:
            channels = self.source[row]
            whole = channels[0] if len(channels) == 1 else np.moveaxis(channels, 0, 2)
            image = Image.fromarray(np.ascontiguousarray(whole))
        if self.transform is not None:
            image = transform_image(image, self.transform)
        pixels = np.asarray(image)
        ready = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
        if ready.shape != self._image_shape and isinstance(self.source, ImageFiles):
            width, height = self._image_shape[2], self._image_shape[1]
            raise DataError(
                f"{self.source.path(row)} is of {image.size} pixels, and {self.source.path(0)} of "
                f"{(width, height)}: give data.transform, or data.arguments.size of a folder"
            )
        return ready


def _place(mapped: np.memmap) -> list[Any]:
    """Return where in its file an array is mapped from, and how it lies there."""
    whole: Any = mapped._mmap  # pyright: ignore[reportAttributeAccessIssue]  # NumPy tells no other way
    first = mapped.ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
    return [mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY + first, *mapped.strides]


def image_shape_of(
    image_shape: tuple[int, ...], transform: Transform | None
) -> tuple[int, int, int]:
    """Return channels, height and width of images after a transform."""
    channels, height, width = image_shape
    if transform is None:
        return channels, height, width
    return channels, *transform.size


def transform_image(image: Image.Image, transform: Transform) -> Image.Image:
    """Resize an image and cut out its centre.

    As networks of 224 pixels were published: the longer side is rounded down, the square's place
    to the nearest pixel; what lies outside a smaller image is black.
    """
    wanted = _resized(image.size, transform.resize)
    if wanted != image.size:
        image = image.resize(wanted, Image.Resampling[transform.interpolation.upper()])
    height, width = transform.size
    left, top = _first(image.width, width), _first(image.height, height)
    return image.crop((left, top, left + width, top + height))


def _resized(size: tuple[int, int], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return width and height of an image of a width and height after it was resized."""
    if resize is None:
        return size
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    longer = int(resize * max(size) / min(size))
    return (resize, longer) if width <= height else (longer, resize)


def _first(side: int, wanted: int) -> int:
    """Return where the central ``wanted`` pixels of a side begin."""
    return -((wanted - side) // 2) if wanted > side else round((side - wanted) / 2)


def read_ahead(read: Callable[[int], R], steps: Iterable[int], ahead: int = 2) -> Iterator[R]:
    """Yield ``read(step)`` for each step, in order; the next ones are read meanwhile in a thread.

    Parameters
    ----------
    read : callable
        Takes a step; what it raises is raised when the step's turn comes.
    steps : iterable of int
        In order.
    ahead : int
        How many results may wait.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        waiting = []
        try:
            for step in steps:
                waiting.append(thread.submit(read, step))
                if len(waiting) > ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
