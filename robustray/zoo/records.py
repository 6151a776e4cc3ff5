"""The records of the zoo: one YAML file for each set of published weights, in manifests/zoo/."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from robustray.errors import ManifestError
from robustray.manifest.fields import Natural, Section
from robustray.models.errors import choice_error

FOLDER = Path(__file__).resolve().parents[2] / "manifests/zoo"
_GIB = 1 << 30
_URL = r"^(https|http)://[^\s/]+/.*$|^drive:[A-Za-z0-9_-]{20,}$|^page:https://.+$"


class ZooFile(Section):
    """One file of a record.

    ``sources`` are tried in order: ``https://...`` (Hugging Face's ``.../resolve/...`` among them),
    ``drive:ID`` for Google Drive, ``page:https://...`` for a page on which a person has to click.
    ``http://`` is allowed with ``plain_http: true`` only. ``sha256`` and ``size`` (bytes) are what
    the publishers tell; without a digest the first download is trusted and remembered.
    ``archive`` is unpacked; ``format`` is one that ``load_weights`` knows.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]
    role: Literal["weights", "accurate", "robust", "mixing", "generator"] = "weights"
    sources: Annotated[tuple[Annotated[str, Field(pattern=_URL)], ...], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Natural | None = None
    max_size: Natural = 4 * _GIB
    plain_http: bool = False
    archive: Literal["zip", "tar"] | None = None
    format: str = "auto"

    @model_validator(mode="after")
    def _no_open_lines_unseen(self) -> Self:
        if not self.plain_http and any(source.startswith("http://") for source in self.sources):
            raise ValueError(
                "sources: http:// can be read and changed on its way; say plain_http: true if "
                "there is no other"
            )
        return self


class ZooRecord(Section):
    """A set of published weights.

    ``model`` and ``options`` are those of ``create_model``; without a model it can be fetched and
    not imported. ``published`` are the authors' numbers, in percent.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
    description: str
    system: Literal[
        "robust-resnets", "robust-model-zoo", "adaptive-smoothing", "gradient-direction"
    ]
    model: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    data: str
    threat: str | None = None
    licence: str
    paper: str
    published: dict[str, float] = Field(default_factory=dict)
    note: str = ""
    files: Annotated[tuple[ZooFile, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("files: two of them have the same name")
        return self


def load_records(folder: Path | None = None) -> dict[str, ZooRecord]:
    """Return all records by name, sorted.

    Parameters
    ----------
    folder : Path, optional
        Default: ``$ROBUSTRAY_ZOO_RECORDS``, else the project's manifests/zoo, else that of the
        working folder.

    Raises
    ------
    ManifestError
        If a file is no record, or two have one name.
    """
    return dict(_load(folder or Path(os.environ.get("ROBUSTRAY_ZOO_RECORDS") or _default_folder())))


@lru_cache(maxsize=4)
def _load(place: Path) -> dict[str, ZooRecord]:
    found: dict[str, ZooRecord] = {}
    for path in sorted(place.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            record = _record(document, path)
            if record.name in found:
                raise ManifestError(f"two records are called {record.name}", str(path), "name")
            found[record.name] = record
    return dict(sorted(found.items()))


def find_record(name: str, folder: Path | None = None) -> ZooRecord:
    """Return a record by its name.

    Raises
    ------
    ModelError
        If there is none; lists the closest ones (a ``ValueError``).
    """
    records = load_records(folder)
    if name not in records:
        raise choice_error("set of published weights", name, records)
    return records[name]


def drive_id(source: str) -> str | None:
    """Return the id of a file on Google Drive, or None for another source."""
    found = re.fullmatch(r"drive:(.+)", source)
    return found[1] if found else None


def _default_folder() -> Path:
    return FOLDER if FOLDER.is_dir() else Path("manifests/zoo").resolve()


def _record(document: Any, path: Path) -> ZooRecord:
    if not isinstance(document, dict):
        raise ManifestError("must be a mapping of fields to values", str(path))
    try:
        return ZooRecord.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(
            f"{first['msg'].removeprefix('Value error, ')}", str(path), place, first["input"]
        ) from error
