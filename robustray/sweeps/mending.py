"""Damage in a study: found by whoever reads it, told in one message, mended by the next run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from robustray.errors import CorruptObjectError, ManifestError, UserError
from robustray.manifest import study_id
from robustray.manifest.explaining import unknown_names
from robustray.store import ObjectStore, is_damaged, sha256_bytes
from robustray.sweeps.grid import Study, study_from_document
from robustray.sweeps.trial import read_result

logger = logging.getLogger("robustray.sweeps")

_THREADS = 16  # over a network it is the waiting that takes long
# What a run of the study makes; whatever else is there tells its story, or has its own command.
_MADE = re.compile(r"[^/]+/(result|stopped|rungs/\d+)\.json")


class DamagedEvaluationError(CorruptObjectError):
    """What a further suite found on a trial is damaged; its evaluation mends that, not a run."""


def mend_study(store: ObjectStore, study: Study) -> dict[str, dict[str, Any]]:
    """Delete what is damaged of the results and decisions of a study; they are made again.

    The score that a trial had at a rung is not: trials that are judged later are not compared
    with it.

    Returns
    -------
    dict of str to dict
        The results of the trials that are finished, by their names.
    """
    start, finished = f"{study.prefix}/trials/", dict[str, dict[str, Any]]()
    keys = [e.key for e in store.list(start) if _MADE.fullmatch(e.key[len(start) :])]
    for key, found in zip(keys, for_each(lambda key: _look_at(store, key), keys), strict=True):
        name, _, rest = key[len(start) :].partition("/")
        if isinstance(found, CorruptObjectError):
            becomes = "its score is lost" if rest.startswith("rungs/") else "it is made again"
            logger.warning("%s is damaged; %s", key, becomes)
            store.delete(key)
        elif found is not None:
            finished[name] = found
    return {trial.name: finished[trial.name] for trial in study.trials if trial.name in finished}


def for_each(call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Call something for each item, several at a time; damage is returned instead of raised."""

    def guarded(item: Any) -> Any:
        try:
            return call(item)
        except CorruptObjectError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(guarded, items))


def require_intact(study: Study, found: list[Any]) -> list[Any]:
    """Return what was found, or raise one error for all that is damaged of it."""
    damaged = [one for one in found if isinstance(one, CorruptObjectError)]
    if damaged:
        words = "; ".join(map(str, damaged[:3]))
        rest = f"; and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        ours = [one for one in damaged if not isinstance(one, DamagedEvaluationError)]
        what = "what is" if len(ours) == len(damaged) else "what else is"
        advice = f". Run {study.id} again: {what} damaged is made again" if ours else ""
        raise CorruptObjectError(f"{words}{rest}{advice}")
    return found


def _look_at(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """Return a trial's result, None for anything else; raise where it is damaged."""
    if key.endswith("/result.json"):
        return read_result(store, key.removesuffix("/result.json"))
    if is_damaged(store, key):
        raise CorruptObjectError(f"{key} is damaged")
    return None


# They lie apart from the trials, so that studies are found quickly. The first line is a comment
# with the SHA-256 of the others; the manifests of earlier versions have none, and must only fit
# their id.

_DIGEST = "# sha256 "


def save_study(store: ObjectStore, study: Study) -> None:
    """Keep the study's manifest; a rerun may have other resources and retention."""
    text = study.manifest_yaml()
    store.put(_key(study.id), f"{_DIGEST}{sha256_bytes(text.encode())}\n{text}".encode())


def list_studies(store: ObjectStore) -> list[str]:
    """Return the ids of all studies in the store."""
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
