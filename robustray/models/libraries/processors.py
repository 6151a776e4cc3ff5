"""What a file ``preprocessor_config.json`` of transformers says of images.

Every key of it is understood, or refused by its name: one that is passed over would prepare
images in another way than those that the network was made for.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

from robustray.errors import ManifestError
from robustray.models.declared import InputFacts

_FILE = "preprocessor_config.json"
# PIL's numbers of its filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_SUFFIX = re.compile(r"(?:ImageProcessor|FeatureExtractor)(?:Fast|Pil)?$")
_SQUASHED = 384  # from this edge on, ConvNeXt's squashes images and cuts nothing off


@dataclass(frozen=True)
class _Kind:
    """A class of processors: what one number as ``size`` means, and how an edge is enlarged.

    ``enlarged`` is "" (as it is), "share" (by ``crop_pct``), "levit" or "convnext".
    """

    square: bool
    enlarged: str = ""


_KINDS = {
    "ViT": _Kind(True),
    "DeiT": _Kind(True),
    "Beit": _Kind(True),
    "Siglip": _Kind(True),
    "EfficientNet": _Kind(True),
    "Bit": _Kind(False),
    "CLIP": _Kind(False),
    "MobileNetV1": _Kind(False),
    "MobileNetV2": _Kind(False),
    "MobileViT": _Kind(False),
    "ConvNext": _Kind(False, "convnext"),
    "PoolFormer": _Kind(False, "share"),
    "Levit": _Kind(False, "levit"),
}
_READ = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale",
    "rescale_factor", "rescale_offset", "do_normalize", "image_mean", "image_std", "include_top",
    "do_flip_channel_order", "do_pad",
)  # fmt: skip
# Of labels, of classes, of how arrays are passed on, and of images that are not RGB.
_IDLE = {
    "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb",
    "do_reduce_labels", "reduce_labels", "default_to_square", "data_format", "input_data_format",
    "return_tensors", "device", "disable_grouping", "_valid_processor_keys",
}  # fmt: skip


class _Settings:
    """The values of a file; where it has none, those of the class. A null is none of both."""

    def __init__(self, name: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._name = name
        self._values, self._defaults = values, defaults
        for key, value in values.items():
            if value is not None and key not in _READ and key not in _IDLE:
                self.refuse(key, "robustray does not know what it does to images")

    def get(self, key: str) -> Any:
        return self._values.get(key, self._defaults.get(key))

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        if value is None:
            return default and key not in self._values
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        if value is None and key not in self._values:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            self.refuse(key, "must be a number above 0")
        return float(value)

    def colours(self, key: str) -> tuple[float, ...]:
        value = self.get(key)
        given: Any = value if isinstance(value, list | tuple) else [value] * 3
        if len(given) != 3 or not all(_is_number(one) for one in given):
            self.refuse(key, "must be three numbers")
        return tuple(map(float, given))

    def edges(self, key: str, square: bool) -> int | tuple[int, int]:
        """Return the shorter edge, or height and width."""
        value: Any = self.get(key)
        if isinstance(value, Mapping):
            value = {name: edge for name, edge in value.items() if edge is not None}
            if set(value) == {"shortest_edge"}:
                found, square = [value["shortest_edge"]], False
            elif set(value) == {"height", "width"}:
                found = [value["height"], value["width"]]
            else:
                self.refuse(key, "must be shortest_edge, or height and width")
        else:
            found = list(value) if isinstance(value, list | tuple) else [value]
        if len(found) not in (1, 2) or not all(_is_edge(edge) for edge in found):
            self.refuse(key, "must be whole numbers above 0")
        if len(found) == 2:
            return found[0], found[1]
        return (found[0], found[0]) if square else found[0]

    def refuse(self, key: str, why: str) -> NoReturn:
        value = self.get(key)
        found = "is missing, and" if value is None else f"is {value!r}:"
        raise ManifestError(f"hf:{self._name}: {key} in {_FILE} {found} {why}")


def read_processor(
    name: str, values: Mapping[str, Any], model_type: object, library: ModuleType
) -> InputFacts:
    """Return how a processor prepares images.

    Parameters
    ----------
    name : str
        Of the repository, for messages.
    values : mapping
        Content of the file.
    model_type : object
        That of ``config.json``: it tells the class where the file does not.
    library : module
        transformers, whose class has what the file leaves out.

    Raises
    ------
    ManifestError
        Names the key that is not understood.
    """
    given = values.get("image_processor_type") or values.get("feature_extractor_type")
    title = _SUFFIX.sub("", str(given or _class_of(model_type)))
    if (kind := _KINDS.get(title)) is None:
        raise ManifestError(
            f"hf:{name}: robustray does not know the image processor {given or title!r} "
            f"({_FILE}); it knows those of {', '.join(_KINDS)}"
        )
    settings = _Settings(name, values, _defaults(library, title))
    if settings.flag("do_flip_channel_order", False):
        settings.refuse("do_flip_channel_order", "networks that take BGR are not read")
    if settings.flag("do_pad", False):
        settings.refuse("do_pad", "robustray pads no images")
    resize, size = _geometry(settings, kind)
    resample = settings.get("resample")
    if isinstance(resample, bool) or resample not in _FILTERS:
        settings.refuse("resample", f"must be of {', '.join(map(str, _FILTERS))}")
    mean, std = _standardisation(settings, title)
    kept = size[0] / resize if isinstance(resize, int) else 1.0
    return InputFacts(size, resize, kept, _FILTERS[resample], mean, std)


def _geometry(
    settings: _Settings, kind: _Kind
) -> tuple[int | tuple[int, int] | None, tuple[int, int]]:
    """Return what images are resized to, and what is cut out."""
    resize = settings.edges("size", kind.square) if settings.flag("do_resize", True) else None
    crops = settings.flag("do_center_crop", False)
    if settings.get("crop_pct") is not None and kind.enlarged not in ("share", "convnext"):
        settings.refuse("crop_pct", "processors of this class have none")
    if kind.enlarged == "convnext" and resize is not None:
        if not isinstance(resize, int):
            settings.refuse("size", "must be shortest_edge")
        if crops:
            settings.refuse("do_center_crop", "robustray cuts images once")
        cut = (resize, resize)
        if resize >= _SQUASHED:
            return cut, cut
        return int(resize / settings.number("crop_pct", 224 / 256)), cut
    if resize is not None and kind.enlarged == "share" and settings.get("crop_pct") is not None:
        edge = resize if isinstance(resize, int) else resize[0]
        if isinstance(resize, tuple) and resize[0] != resize[1]:
            settings.refuse("size", "must be a square")
        resize = int(edge / settings.number("crop_pct"))
    if isinstance(resize, int) and kind.enlarged == "levit":
        resize = int(256 / 224 * resize)
    if not crops:
        if not isinstance(resize, tuple):
            settings.refuse("do_center_crop", "images would keep sizes of their own")
        return resize, resize
    cut = settings.edges("crop_size", square=True)
    if isinstance(cut, int):
        cut = (cut, cut)
    edges = (resize, resize) if isinstance(resize, int) else resize
    if edges is not None and (edges[0] < cut[0] or edges[1] < cut[1]):
        settings.refuse("crop_size", f"is more than the resized image, {edges[0]} x {edges[1]}")
    return resize, cut


def _standardisation(settings: _Settings, title: str) -> tuple[tuple[float, ...], ...]:
    """Return mean and deviation for pixels in [0, 1]; both are empty where nothing is done."""
    scale = 255.0  # pixels in [0, 1] become scale * x + shift
    if settings.flag("do_rescale", True):
        scale *= settings.number("rescale_factor", 1 / 255)
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    shift = -1.0 if settings.flag("rescale_offset", False) else 0.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if settings.flag("do_normalize", True):
        mean, std = settings.colours("image_mean"), settings.colours("image_std")
    if settings.flag("include_top", title == "EfficientNet"):  # divided by it once more
        std = tuple(a * b for a, b in zip(std, settings.colours("image_std"), strict=True))
    if not all(std):
        settings.refuse("image_std", "must be numbers above 0")
    if (scale, shift) != (1.0, 0.0):
        mean = tuple((value - shift) / scale for value in mean)
        std = tuple(value / scale for value in std)
    return ((), ()) if not any(mean) and set(std) == {1.0} else (mean, std)


def _class_of(model_type: object) -> str:
    """Return the class that transformers takes for a type of network; "" if it has none."""
    try:
        module = importlib.import_module("transformers.models.auto.image_processing_auto")
    except ImportError:
        return ""
    found: Any = module.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
    parts = found.values() if isinstance(found, Mapping) else found
    names = [parts] if isinstance(parts, str) else [part for part in parts or () if part]
    return str(names[0]) if names else ""


def _defaults(library: ModuleType, title: str) -> dict[str, Any]:
    """Return what a class has as attributes; classes of older versions have none."""
    for suffix in ("ImageProcessorPil", "ImageProcessorFast", "ImageProcessor"):
        try:
            found = getattr(library, title + suffix)
            if hasattr(found, "do_resize"):
                return {key: getattr(found, key, None) for key in _READ}
        except (AttributeError, ImportError, RuntimeError):  # what the class needs is not here
            continue
    return {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_edge(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
