"""Whose fault it is: the classes of errors, and the exit code of each.

Errors of users are told in one message and never retried; errors of machines are retried from
the last checkpoint; anything else is an error of the program and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from robustray.words import unknown


class UserError(Exception):
    """Something that the user asked for can't be done as asked. Exit code 2, no traceback."""

    exit_code = 2


class ManifestError(UserError, ValueError):
    """A manifest is wrong.

    Parameters
    ----------
    message : str
        What is wrong and what is allowed.
    file : str
        The manifest's name.
    path : str
        The field, dotted ("recipe.optimizer.lr"); empty for the whole file.
    value : object
        What stood there.
    """

    def __init__(self, message: str, file: str = "", path: str = "", value: object = None) -> None:
        self.message, self.file, self.path, self.value = message, file, path, value
        place = ": ".join(part for part in (file, path) if part)
        super().__init__(f"{place}: {message}" if place else message)


@contextmanager
def below(section: str) -> Iterator[None]:
    """Let errors name their fields as the manifest at hand does: below a section of it.

    What is shared by several kinds of manifest knows only its own part: "uri", "threat.eps".
    """
    try:
        yield
    except ManifestError as error:
        path = f"{section}.{error.path}" if error.path else section
        raise ManifestError(error.message, error.file, path, error.value) from error


class DataError(UserError):
    """A data set is missing, damaged, or not what its name says."""


class StoreError(UserError):
    """The store can't be used as configured (no such bucket, no permission, bad address)."""


class MachineError(Exception):
    """A machine or a service failed; the same work may succeed elsewhere or later."""

    exit_code = 3


class StoreUnavailableError(MachineError):
    """The store did not answer for longer than the client was told to wait."""


class CorruptObjectError(MachineError):
    """Bytes that came back differ from the digest that was committed with them."""


class ModelError(UserError, ValueError):
    """A model was asked for that can't be built or counted; says what is allowed."""


class WeightsError(ModelError):
    """A file of weights is damaged, or does not fit the model."""


def choice_error(kind: str, value: object, allowed: Iterable[str]) -> ModelError:
    """Return the error for a name that is not among the allowed ones; see `robustray.words`."""
    return ModelError(unknown(kind, value, allowed))
