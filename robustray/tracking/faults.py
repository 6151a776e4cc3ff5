"""Where MLflow is, and its errors: which pass, which stay, how to tell them without secrets."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from robustray.errors import MachineError, UserError
from robustray.words import redact

_LOGIN = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; and "
    "start the server with --allowed-hosts for this address"
)
_PASSING = {408, 409, 429, 499}
_SERVICE_MODULES = {"sqlalchemy", "sqlite3", "botocore", "urllib3"}


class TrackingUnavailableError(MachineError):
    """MLflow or its storage did not do what was asked, but may do so later.

    Parameters
    ----------
    message : str
        What happened, free of credentials.
    refused : bool
        The server asked for other credentials (401, 403).
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class RecordRejectedError(Exception):
    """MLflow will never accept this record as it is."""


@contextmanager
def plain_errors() -> Generator[None]:
    """Turn the errors of MLflow and of what is under it into the two of this module.

    Errors of the program pass unchanged. The original is not chained, since its text may hold the
    credentials of a tracking URI.
    """
    try:
        yield
    except (MachineError, RecordRejectedError):
        raise
    except Exception as error:
        plain = translate(error)
        if plain is None:
            raise
        raise plain from None


def translate(error: Exception) -> TrackingUnavailableError | RecordRejectedError | None:
    """Return the error as one of this module's, or None if it is one of the program.

    Connection errors, time-outs, 5xx, 429 and a locked database pass; other 4xx stay. 401 and 403
    count as passing (credentials are renewed), marked as refusals.
    """
    status = _status(error)
    if status is None:
        return None
    message = redact(_story(error)).strip().partition("\n")[0][:400] or type(error).__name__
    if status in (401, 403):
        of_s3 = isinstance(getattr(error, "response", None), dict)
        return TrackingUnavailableError(message if of_s3 else f"{message}; {_LOGIN}", refused=True)
    if status >= 500 or status in _PASSING:
        return TrackingUnavailableError(message)
    return RecordRejectedError(message)


def is_missing(error: Exception) -> bool:
    """Whether MLflow says that the run or experiment does not exist."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def _story(error: BaseException) -> str:
    """Return what the system said if a connection failed, else the error's own words."""
    inner: BaseException | None = error
    while inner is not None:
        if type(inner).__module__ == "builtins" and isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)


class _MlflowError(Protocol):
    """What MLflow's errors have. They are not imported: that takes seconds."""

    def get_http_status_code(self) -> int: ...


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error has or amounts to; None for errors of the program."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if "mlflow" in modules:
        status = cast(_MlflowError, error).get_http_status_code()
        # MLflow reports an exhausted connection pool as a bad request.
        return 503 if status == 400 and "QueuePool" in str(error) else status
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        answer = cast(dict[str, Any], response)
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 503)
    if response is not None:  # requests
        return getattr(response, "status_code", 503)
    return 503 if isinstance(error, OSError) or modules & _SERVICE_MODULES else None


_DATABASES = ("postgresql", "mysql", "mssql")


def default_tracking_uri() -> str:
    """Return $MLFLOW_TRACKING_URI, or else an SQLite file below ./runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('runs/mlflow.db').resolve()}"


def resolve_uri(uri: str) -> str:
    """Return the URI with an absolute path if it names an SQLite file.

    Raises
    ------
    UserError
        If runs can't be kept there: neither an MLflow server nor a database.
    """
    scheme = uri.partition(":")[0].partition("+")[0].lower() if ":" in uri else ""
    if scheme in ("http", "https"):
        _check_address(uri)
        return uri.rstrip("/")
    if scheme in _DATABASES:
        return uri
    file, mark, options = uri.removeprefix("sqlite:///").partition("?")
    if scheme == "sqlite" and file not in (uri, "", ":memory:"):
        return f"sqlite:///{Path(file).resolve()}{mark}{options}"
    raise UserError(
        f"MLFLOW_TRACKING_URI: {redact(uri)!r} can't be used; allowed are an MLflow server "
        "(http://HOST:PORT), an SQLite file (sqlite:////absolute/mlflow.db) or another database"
    )


def sqlite_file(uri: str) -> Path | None:
    """Return the file that a resolved SQLite URI names; None for anything else."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def _check_address(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"MLFLOW_TRACKING_URI: {redact(uri)!r} is not a server's address")
