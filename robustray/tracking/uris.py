"""Tracking URIs: the default one, which are allowed, and how to show them without secrets."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from robustray.errors import UserError
from robustray.words import redact

_DATABASES = ("postgresql", "mysql", "mssql")


def default_tracking_uri() -> str:
    """Return $MLFLOW_TRACKING_URI, or else an SQLite file below ./runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('runs/mlflow.db').resolve()}"


def ui_command(uri: str) -> str:
    """Return what opens the MLflow UI on a tracking URI, without credentials.

    Parameters
    ----------
    uri : str
        A tracking URI.

    Returns
    -------
    str
        A shell command for a database; for a server, the address to open in a browser.
    """
    uri = resolve_uri(uri)
    if uri.startswith(("http://", "https://")):
        return redact(uri)
    if redact(uri) != uri and os.environ.get("MLFLOW_TRACKING_URI") == uri:
        return f'{_program()} ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
    return f"{_program()} ui --backend-store-uri {shlex.quote(redact(uri))}"


def _program() -> str:
    """Return how a shell starts MLflow here, with or without an activated environment."""
    return "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"


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
