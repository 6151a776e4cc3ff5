"""What all parts of a manifest are made of: strict sections, and numbers as people write them."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def read_fraction(value: object) -> object:
    """Read "8/255" as a float; leave everything else to pydantic."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError("not a number or a fraction such as 8/255") from error
    return value


Number = Annotated[float, BeforeValidator(read_fraction), Field(allow_inf_nan=False)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Natural = Annotated[int, Field(ge=1, strict=True)]
NaturalOrZero = Annotated[int, Field(ge=0, strict=True)]
PerStage = tuple[Natural, ...]


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
