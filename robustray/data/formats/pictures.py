"""Reading single images (PNG, JPEG, DICOM), and keeping the arrays that were made of many."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustray.errors import DataError


def read_grey(path: Path) -> np.ndarray:
    """Read one channel of an image: float32 (H, W) in [0, 255].

    Pixels of 16 bits are divided by 256; of a colour image the first channel counts. DICOM files
    (``.dcm``) are scaled from the least to the largest stored value, bright where they are dense.

    Raises
    ------
    DataError
        If the file is missing or no image, or is DICOM and pydicom is not installed.
    """
    if path.suffix.lower() in (".dcm", ".dicom"):
        return _read_dicom(path)
    with _opened(path) as image:
        pixels = np.asarray(image if image.mode != "P" else image.convert("RGB"))
    if pixels.ndim == 3:
        pixels = pixels[..., 0]
    if pixels.dtype == np.bool_:
        return pixels.astype(np.float32) * 255
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(f"{path}: pixels of {pixels.min()}..{pixels.max()} are not of 16 bits")
    return (pixels // 256).astype(np.float32)


def read_colour(path: Path) -> Image.Image:
    """Read an image as RGB of 8 bits.

    Raises
    ------
    DataError
        If the file is missing or no image.
    """
    return parse_colour(path, path)


def parse_colour(source: Path | IO[bytes], path: Path) -> Image.Image:
    """Read an image as RGB of 8 bits from bytes that come from a path.

    Raises
    ------
    DataError
        If they are no image; names the path.
    """
    with _opened(path, source) as image:
        return image.convert("RGB")


def largest_square(pixels_HW: np.ndarray) -> np.ndarray:
    """Return the largest centred square of an image (H, W)."""
    side = min(pixels_HW.shape)
    top, left = ((size - side) // 2 for size in pixels_HW.shape)
    return pixels_HW[top : top + side, left : left + side]


def resize(pixels_HW: np.ndarray, size: int) -> np.ndarray:
    """Resize an image to a square with antialiased bilinear weights: float32."""
    image = Image.fromarray(np.ascontiguousarray(pixels_HW, dtype=np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)


def equalise(pixels_HW: np.ndarray, bins: int = 256) -> np.ndarray:
    """Equalise a histogram: each pixel becomes the share of pixels up to its own brightness.

    The shares of ``bins`` equal bins between the least and largest pixel, interpolated linearly
    between the bins' centres: float64 in [0, 1]. A constant image becomes 1.
    """
    count, edges = np.histogram(pixels_HW, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    return np.interp(pixels_HW, centres, count.cumsum() / pixels_HW.size)


def _opened(path: Path, source: Path | IO[bytes] | None = None) -> Image.Image:
    try:
        image = Image.open(source or path)
        image.load()
    except FileNotFoundError:
        raise DataError(f"image {path} is missing") from None
    except UnidentifiedImageError:
        raise DataError(f"image {path} can't be read: it is no image") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} can't be read: {error}") from error
    return image


def _read_dicom(path: Path) -> np.ndarray:
    try:
        import pydicom  # pyright: ignore[reportMissingImports]  # not a dependency
    except ImportError:
        message = f"image {path} is DICOM, and reading it needs pydicom: pip install pydicom"
        raise DataError(message) from None
    try:
        record = pydicom.dcmread(path)
        pixels = record.pixel_array.astype(np.float32)
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"image {path} can't be read: {error}") from error
    if pixels.ndim != 2:
        raise DataError(f"image {path} has shape {pixels.shape}, not rows and columns")
    spread = max(float(pixels.max() - pixels.min()), 1e-12)
    pixels = (pixels - pixels.min()) * (255 / spread)
    return 255 - pixels if record.get("PhotometricInterpretation") == "MONOCHROME1" else pixels


_FORMAT = "1"


def cached(
    folder: Path | None,
    name: str,
    parameters: Mapping[str, Any],
    make: Callable[[], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Return what ``make`` returns, from a file where it was made before.

    The file is a safetensors file named by the digest of the parameters. It carries them and the
    digest of its tensors, and both are checked: a renamed or damaged file is refused.

    Parameters
    ----------
    folder : Path or None
        Where files are kept; None: nothing is read or written.
    name : str
        What the file's name begins with.
    parameters : mapping
        Everything that the tensors depend on, as JSON.
    make : callable
        Returns the tensors.

    Raises
    ------
    DataError
        If there is a file of that name that was made from other parameters, or is damaged; or
        the folder cannot be written.
    """
    if folder is None:
        return make()
    text = json.dumps(parameters, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    if path.exists():
        return _read(path, text)
    tensors = make()
    try:
        _write(path, tensors, text)
    except OSError as error:
        raise DataError(f"cache {path} can't be written: {error.strerror}") from error
    return tensors


def _read(path: Path, parameters: str) -> dict[str, Tensor]:
    advice = "remove it, and it is made again"
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"cache {path} can't be read ({error}); {advice}") from error
    if facts.get("format") != _FORMAT or facts.get("parameters") != parameters:
        made = facts.get("parameters", "unknown ones")
        raise DataError(f"cache {path} was made from {made}, not from {parameters}; {advice}")
    if facts.get("sha256") != _digest(tensors):
        raise DataError(f"cache {path} is damaged; {advice}")
    return tensors


def _write(path: Path, tensors: dict[str, Tensor], parameters: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format": _FORMAT, "parameters": parameters, "sha256": _digest(tensors)}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata=facts)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).numpy().data)
    return digest.hexdigest()
