"""Manifests of studies in the store: kept with a digest, and verified against it and their id.

They lie apart from the trials, so that studies are found quickly. The first line is a comment with
the SHA-256 of the others; the manifests of earlier versions have none, and must only fit their id.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from robustray.errors import CorruptObjectError, UserError
from robustray.manifest import study_id
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
    CorruptObjectError
        If its manifest is not the one that was stored, and that the id was made of.
    """
    key = _key(id_)
    mend = "Run the study again from its own manifest: that writes it anew"
    try:
        text = store.get(key).decode()
        head, _, body = text.partition("\n")
        if head.startswith(_DIGEST) and head.removeprefix(_DIGEST) != sha256_bytes(body.encode()):
            raise CorruptObjectError(f"{key} is damaged: it differs from its digest. {mend}")
        study = study_from_document(yaml.safe_load(text), id_, key)
    except (UserError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise CorruptObjectError(f"{key} is damaged, or of another version. {mend}") from error
    if study_id(study.manifest) != id_:
        raise CorruptObjectError(
            f"{key} is another manifest than the one that {id_} was made of: its own id would be "
            f"{study_id(study.manifest)}. {mend}"
        )
    return study


def _key(id_: str) -> str:
    return f"manifests/{id_}.yaml"
