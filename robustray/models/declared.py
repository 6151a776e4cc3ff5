"""What a network declares of the images that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from robustray.registry import MODELS


@dataclass(frozen=True)
class InputFacts:
    """How a library prepares images for one of its networks.

    Images are first resized, then their centre is cut out; what the network gets are pixels in
    [0, 1]. It subtracts the mean and divides by the deviation itself.

    Attributes
    ----------
    size : tuple of int
        Height and width of what is cut out.
    resize : int, tuple of int, or None
        Length of the shorter edge before that; or height and width, whatever shape the image
        had; None: the image keeps its size.
    crop_pct : float
        Share of the resized edge that is kept, ``size / resize`` before rounding.
    interpolation : str
        "bilinear", "bicubic", "nearest" or "lanczos"; antialiased.
    mean, std : tuple of float
        One value for each channel; empty where the network standardises nothing, or in a way of
        its own.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def document(self) -> dict[str, Any]:
        """Return it as plain data, as it stands in the description of an evaluated network."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


def declared_input(name: str, options: Mapping[str, Any] | None = None) -> InputFacts | None:
    """Return how a library prepares images for a network.

    Parameters
    ----------
    name : str
        As in ``create_model``: "timm:resnet50.a1_in1k".
    options : mapping, optional
        The ``arguments`` that it is built with: some set the size, such as timm's ``img_size``.
        ``num_classes`` may be among them: some names of RobustBench's stand for networks of
        several data sets.

    Returns
    -------
    InputFacts or None
        None for networks of robustray's catalogue and of users: they take images as they are.

    Raises
    ------
    ManifestError
        If there is no such network, or its library is not installed (a ``ValueError``).
    """
    library = MODELS.library(name)
    return library.input(MODELS.within(name), options or {}) if library else None
