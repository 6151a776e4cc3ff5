"""Images that are read, resized and cut when a batch needs them, instead of lying in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustray.data.image_files import ImageFiles, each
from robustray.errors import DataError
from robustray.manifest.job import Transform

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 256  # rows of a mapped array that are read together


class Pixels:
    """Images of one shape that lie in files, or in an array that may be mapped from one.

    What is read depends on the rows alone, never on threads or on what was read before.

    Parameters
    ----------
    source : ImageFiles or ndarray
        Files, or images uint8 (N, C, H, W).
    transform : Transform, optional
        How they are resized and cut; without one all of them must have one size.
    rows : ndarray, optional
        Which of them, int64; default: all.

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
        self.source, self.transform = source, transform
        self.rows = np.arange(len(source)) if rows is None else rows
        if transform and isinstance(source, ImageFiles) and source.size is not None:
            raise DataError("data.arguments.size and data.transform: give one of them")
        if transform and source.shape[1] not in (1, 3):
            raise DataError(
                f"data.transform: images have {source.shape[1]} channels, and only those of 1 or "
                "3 are resized"
            )
        self._image_shape = image_shape_of(source.shape[1:], transform)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height and width."""
        return len(self.rows), *self._image_shape

    def select(self, rows: Tensor | slice) -> Pixels:
        """Return the images at the given rows of these; nothing is read."""
        chosen = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return Pixels(self.source, self.transform, self.rows[chosen])

    def read(self) -> Tensor:
        """Read the images: uint8 (N, C, H, W), on the CPU.

        Raises
        ------
        DataError
            If a file can't be read, has changed, or is of another size than the others.
        """
        if not isinstance(self.source, ImageFiles) and self.transform is None:
            return torch.from_numpy(np.ascontiguousarray(self.source[self.rows]))
        whole = np.empty(self.shape, np.uint8)

        def put(number: int) -> None:
            whole[number] = self._prepare(int(self.rows[number]))

        for _ in each(put, range(len(self.rows))):
            pass
        return torch.from_numpy(whole)

    def begin_digest(self) -> Any:
        """Return a SHA-256 object that has taken in shape and content.

        Of arrays that are not transformed it is that of the pixels; else that of the files' or
        images' own bytes, and of the transform.
        """
        if self.transform is None and not isinstance(self.source, ImageFiles):
            digest = hashlib.sha256(json.dumps(list(self.shape)).encode())
            self._take_in(digest, self.source)
            return digest
        changed = self.transform and self.transform.model_dump(mode="json", exclude_defaults=True)
        size = getattr(self.source, "size", None)
        facts = {"shape": list(self.shape), "transform": changed, "size": size}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        if isinstance(self.source, ImageFiles):
            digest.update(np.ascontiguousarray(self.source.contents(self.rows)))
        else:
            digest.update(json.dumps(list(self.source.shape[1:])).encode())
            self._take_in(digest, self.source)
        return digest

    def _take_in(self, digest: Any, array: np.ndarray) -> None:
        for start in range(0, len(self.rows), _AT_ONCE):
            digest.update(np.ascontiguousarray(array[self.rows[start : start + _AT_ONCE]]))

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
