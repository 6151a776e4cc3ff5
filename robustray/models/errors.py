"""What goes wrong with models, told to users in one message."""

from __future__ import annotations

from collections.abc import Iterable

from robustray.errors import UserError
from robustray.words import unknown


class ModelError(UserError, ValueError):
    """A model was asked for that can't be built or counted; says what is allowed."""


class WeightsError(ModelError):
    """A file of weights is damaged, or does not fit the model."""


def choice_error(kind: str, value: object, allowed: Iterable[str]) -> ModelError:
    """Return the error for a name that is not among the allowed ones; see `robustray.words`."""
    return ModelError(unknown(kind, value, allowed))
