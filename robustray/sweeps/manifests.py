"""Manifests of studies in the store: kept with a digest, and verified against it and their id.

They lie apart from the trials, so that studies are found quickly. The first line is a comment with
the SHA-256 of the others; the manifests of earlier versions have none, and must only fit their id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from robustray.errors import CorruptObjectError, ManifestError, UserError
from robustray.manifest import study_id
from robustray.manifest.explaining import unknown_names
from robustray.store import ObjectStore, sha256_bytes
from robustray.sweeps.grid import Study, study_from_document

_DIGEST = "# sha256 "


def write_manifest(store: ObjectStore, study: Study) -> None:
    """Keep a study's resolved manifest."""
    text = study.manifest_yaml()
    store.put(_key(study.id), f"{_DIGEST}{sha256_bytes(text.encode())}\n{text}".encode())


def list_manifests(store: ObjectStore) -> list[str]:
    """Return the ids of all studies whose manifests are in the store."""
    return sorted(Path(entry.key).stem for entry in store.list("manifests/"))


def read_study(store: ObjectStore, id_: str) -> Study:
    """Return a stored study by its id.

    Raises
    ------
    UserError
        If it uses what a package brought that is not installed here.
    CorruptObjectError
        If its manifest is not the one that was stored, and that the id was made of.
    """
    key, document = _key(id_), {}
    mend = "Run the study again from its own manifest: that writes it anew"
    try:
        text = store.get(key).decode()
        head, _, body = text.partition("\n")
        if head.startswith(_DIGEST) and head.removeprefix(_DIGEST) != sha256_bytes(body.encode()):
            raise CorruptObjectError(f"{key} is damaged: it differs from its digest. {mend}")
        document = yaml.safe_load(text)
        study = study_from_document(document, id_, key)
    except ManifestError as error:
        _name_missing(id_, document, error)
        raise CorruptObjectError(f"{key} is damaged, or of another version. {mend}") from error
    except (UserError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise CorruptObjectError(f"{key} is damaged, or of another version. {mend}") from error
    if study_id(study.manifest) != id_:
        raise CorruptObjectError(
            f"{key} is another manifest than the one that {id_} was made of: its own id would be "
            f"{study_id(study.manifest)}. {mend}"
        )
    return study


def _name_missing(id_: str, document: dict[str, Any], error: ManifestError) -> None:
    """Say which entry points are missing, if a study that names them can't be read for that."""
    pinned = document.get("code") or {}
    missing = [
        f"{name} of the group {group}"
        for name, group in unknown_names(error).items()
        if name in pinned
    ]
    if missing:
        raise UserError(
            f"{id_} uses what no installed package brings here: the entry point "
            f"{', '.join(missing)}. Install the package that brought it (pip install PACKAGE), "
            "here and on every node"
        ) from error


def _key(id_: str) -> str:
    return f"manifests/{id_}.yaml"
