"""What goes wrong with models, told to users in one message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from robustray.errors import UserError


class ModelError(UserError, ValueError):
    """A model was asked for that can't be built or counted; says what is allowed."""


class WeightsError(ModelError):
    """A file of weights is damaged, or does not fit the model."""


def choice_error(kind: str, value: object, allowed: Iterable[str]) -> ModelError:
    """Return the error for a name that is not among the allowed ones.

    Parameters
    ----------
    kind : str
        What the name stands for ("activation").
    value : object
        What was given.
    allowed : iterable of str
        What may be given.
    """
    names = list(allowed)
    folded = {name.casefold(): name for name in names}
    close = [folded[key] for key in get_close_matches(str(value).casefold(), folded)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return ModelError(f"unknown {kind} {value!r}.{hint} Allowed: {', '.join(names)}")
