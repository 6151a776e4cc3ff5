"""What all parts of a manifest are made of: strict sections, numbers, names, and lengths."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
)
from pydantic_core.core_schema import no_info_after_validator_function

from robustray.registry import DATASETS, KINDS, MODELS, OBJECTIVES, OPTIMIZERS, SUITES, Registry
from robustray.words import has_credentials

_LONGEST = 40  # characters of a number
_LARGEST = 1e12
_NO_NUMBER = "not a number or a fraction such as 8/255"


def read_number(value: object) -> object:
    """Read "8/255" as a float, and refuse what is not finite or absurdly large.

    Other kinds of values are left to pydantic.
    """
    if isinstance(value, bool):
        raise ValueError(_NO_NUMBER)  # noqa: TRY004 (pydantic knows ValueErrors)
    if isinstance(value, str):
        value = _read_fraction(value.replace(" ", ""))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, float | int) and abs(value) > _LARGEST:
        raise ValueError(f"must be between -{_LARGEST:g} and {_LARGEST:g}")
    return value


def check_address(address: str) -> str:
    """Refuse an address with a password: manifests are stored, shown and sent to MLflow."""
    if has_credentials(address):
        raise ValueError(
            "leave the user and the password out; the store's come from the environment "
            "(AWS_ACCESS_KEY_ID and so on)"
        )
    return address


Address = Annotated[str, Field(min_length=1), AfterValidator(check_address)]


def _read_fraction(text: str) -> float:
    # Python would write 1e999999999 out before it could say that it is too large.
    if re.search(r"[eE][+-]?[0-9_]{4}", text[:_LONGEST]):
        raise ValueError("its exponent is too large")
    try:
        if len(text) > _LONGEST:
            raise ValueError(_NO_NUMBER)
        return float(Fraction(text))
    except OverflowError as error:
        raise ValueError("its exponent is too large") from error
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(_NO_NUMBER) from error


Number = Annotated[float, BeforeValidator(read_number)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Natural = Annotated[int, Field(ge=1, le=10**12, strict=True)]
NaturalOrZero = Annotated[int, Field(ge=0, le=10**12, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]

# Whatever is built, listed or repeated has a limit that no study comes near.
Epochs = Annotated[Natural, Field(le=100_000)]
Steps = Annotated[Natural, Field(le=1_000_000)]
StepsOrZero = Annotated[NaturalOrZero, Field(le=1_000_000)]
BatchSize = Annotated[Natural, Field(le=1_000_000)]
Workers = Annotated[Natural, Field(le=100_000)]
MOST_BLOCKS = 600
Depth = Annotated[Natural, Field(le=1500)]
Channels = Annotated[Natural, Field(le=100_000)]
Width = Annotated[PositiveNumber, Field(le=10_000)]
Pixels = Annotated[Natural, Field(le=10_000)]
PixelsOrZero = Annotated[NaturalOrZero, Field(le=10_000)]
MOST_STAGES = 16


def _can_be_built(depths: tuple[int, ...]) -> tuple[int, ...]:
    if sum(depths) > MOST_BLOCKS:
        raise ValueError(f"{sum(depths):,} blocks; at most {MOST_BLOCKS:,}")
    return depths


Depths = Annotated[tuple[Depth, ...], Field(max_length=MOST_STAGES), AfterValidator(_can_be_built)]
Widths = Annotated[tuple[Width, ...], Field(max_length=MOST_STAGES)]
PerStage = Annotated[tuple[Channels, ...], Field(max_length=MOST_STAGES)]


def read_option(value: object) -> object:
    """Read an option "2/255" as a number; leave other strings."""
    number = isinstance(value, float | int) and not isinstance(value, bool)
    if number or (isinstance(value, str) and re.fullmatch(r"[\d. ]+/[\d. ]+", value)):
        return read_number(value)
    return value


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Code = dict[str, Digest]  # of what a user brings, by its names
Plain = bool | int | float | str
Argument = Annotated[Plain | tuple[Plain, ...], BeforeValidator(read_option)]


@dataclass(frozen=True)
class SectionOf:
    """Marks a mapping that is written, and checked, as a section of a manifest."""

    section: type[BaseModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler(self.section)


@dataclass(frozen=True)
class NameOf:
    """Marks a name that a registry must know, or one of some ``others``."""

    registry: Registry[Any]
    others: tuple[str, ...] = ()

    def check(self, name: str) -> str:
        """Return a name that may stand there."""
        return name if name in self.others else self.registry.check(name, self.others)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return no_info_after_validator_function(self.check, handler(source))


def is_classifier(name: str) -> bool:
    """Whether a known model is a classifier; a user's is, as far as its name says."""
    return MODELS.is_brought(name) or MODELS.find(name).purpose == "classifier"


def _refuse_others(name: str) -> str:
    if not is_classifier(name):
        allowed = [*filter(is_classifier, MODELS.names()), "package.module:name"]
        purpose = MODELS.find(name).purpose
        raise ValueError(f"{name} is a {purpose}, no classifier. Allowed: {', '.join(allowed)}")
    return name


ModelName = Annotated[str, NameOf(MODELS), AfterValidator(_refuse_others)]
DataName = Annotated[str, NameOf(DATASETS)]
ObjectiveName = Annotated[str, NameOf(OBJECTIVES)]
OptimizerName = Annotated[str, NameOf(OPTIMIZERS)]
SuiteName = Annotated[str, NameOf(SUITES)]
KindName = Annotated[str, NameOf(KINDS)]


class Section(BaseModel):
    """Base of every part of a manifest: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def changed(self, *names: str) -> list[str]:
        """Return those of the named fields that are not at their defaults."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].get_default()]

    def refuse(self, reason: str, *names: str) -> None:
        """Refuse named fields that would be ignored, unless they are at their defaults."""
        if found := self.changed(*names):
            raise ValueError(f"{', '.join(found)}: {reason}")


# Nothing that stays among the images is longer than the diameter of the pixel box in its norm:
# its width for linf, width * sqrt(n) for l2 and width * n for l1, with n numbers in an image.
# What is longer was meant in other units, such as levels of 0..255.


@dataclass(frozen=True)
class Extent:
    """Where perturbed points lie.

    Attributes
    ----------
    low, high : float
        Least and largest value of a pixel; infinite where there is no box.
    size : int or None
        Numbers in an image; None where that is not known, and l2 and l1 have no limit.
    diameter : float or None
        Of the data in every norm, where a box says nothing of it.
    """

    low: float = 0.0
    high: float = 1.0
    size: int | None = None
    diameter: float | None = None

    @classmethod
    def of(cls, data: str | None, transform: Any = None) -> Extent:
        """Return that of a data set in [0, 1]; of one that a function makes nothing but the box.

        A ``transform`` (`robustray.manifest.Transform`) says another height and width; "model" none
        that is known yet.
        """
        if data is None or DATASETS.is_brought(data) or transform == "model":
            return cls()
        shape = getattr(DATASETS.find(data), "image_shape", None)
        if shape and transform is not None:
            shape = (shape[0], *transform.size)
        return cls(size=math.prod(shape) if shape else None)

    def longest(self, norm: str) -> float:
        """Return the diameter in a norm ("linf", "l2", "l1", "l0"); infinite if not known."""
        if norm == "l0":
            return math.inf if self.size is None else float(self.size)
        if self.diameter is not None:
            return self.diameter
        width = self.high - self.low
        if norm == "linf" or math.isinf(width):
            return width
        if self.size is None:
            return math.inf
        return width * (math.sqrt(self.size) if norm == "l2" else self.size)


UNIT = Extent()


class Length(NamedTuple):
    """A length that a manifest gives: the field's path, its value, and the norm it is one in."""

    path: str
    value: float
    norm: str


def check_length(length: Length, extent: Extent = UNIT) -> None:
    """Refuse a length that no two images have between them.

    Raises
    ------
    ValueError
        If it is longer than the diameter; the message begins with the path.
    """
    path, value, norm = length
    longest = extent.longest(norm)
    if value <= longest * (1 + 1e-9):
        return
    if extent.diameter is not None:
        raise ValueError(
            f"{path}: {value:g} is larger than the distance between any two possible images "
            f"({longest:g})"
        )
    box, name = f"the pixel box [{extent.low:g}, {extent.high:g}]", re.split(r"[.: ]+", path)[-1]
    told = f"wider than {box}"
    if norm != "linf":
        told = f"longer than the {norm} diameter of {box}, {longest:.4g} for {extent.size} numbers"
    if norm == "l0":
        raise ValueError(f"{path}: {value:g} values are more than an image has, {longest:g}")
    units = "8/255, not 8" if norm == "linf" else "128/255, not 128"
    raise ValueError(f"{path}: {value:g} is {told}; {name} is in those units ({units}, in [0, 1])")


def check_lengths(lengths: Iterable[Length], extent: Extent, section: str = "") -> None:
    """Check the lengths of a section; their paths are told below it.

    Raises
    ------
    ValueError
        For the first one that is too long.
    """
    for length in lengths:
        check_length(length._replace(path=f"{section}{length.path}"), extent)
