"""What all parts of a manifest are made of: strict sections, and numbers as people write them."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
MOST_BLOCKS = 2000
Depth = Annotated[Natural, Field(le=MOST_BLOCKS)]
Channels = Annotated[Natural, Field(le=100_000)]
Width = Annotated[PositiveNumber, Field(le=10_000)]
Pixels = Annotated[Natural, Field(le=10_000)]
PixelsOrZero = Annotated[NaturalOrZero, Field(le=10_000)]
MOST_STAGES = 16

Depths = Annotated[tuple[Depth, ...], Field(max_length=MOST_STAGES)]
Widths = Annotated[tuple[Width, ...], Field(max_length=MOST_STAGES)]
PerStage = Annotated[tuple[Channels, ...], Field(max_length=MOST_STAGES)]


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
