"""Reading single images: PNG and JPEG through Pillow, DICOM where pydicom is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

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
    with _opened(path) as image:
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


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise DataError(f"image {path} is missing") from None
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
