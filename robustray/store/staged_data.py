"""Data files in the store: staged once by a person, fetched once by each node that lacks them.

A staged file lies under its digest, the publisher's own MD5 or the SHA-256 that a manifest states:
``data/<digest>``. So the store needs no list of them, and a name can't hold two contents.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Literal

from robustray.data import ROLES, Dataset, load_dataset, needed_forms
from robustray.data.downloads import alone
from robustray.errors import CorruptObjectError, DataError, MachineError
from robustray.manifest import DataConfig
from robustray.store.digests import sha256_file
from robustray.store.objects import ObjectStore, holds

Forms = tuple[tuple[str, str | None], ...]


def push_data(
    config: DataConfig, root: Path, store: ObjectStore, say: Callable[[str], None]
) -> None:
    """Put the files that a configuration needs into the store; what is there stays.

    Parameters
    ----------
    config : DataConfig
        With ``download`` set, missing official files are downloaded first.
    root : Path
        Folder of data files.
    store : ObjectStore
        Where they go.
    say : callable
        Takes a line for each file.

    Raises
    ------
    DataError
        If a file is missing or damaged, or the digest of extra images is not stated.
    """
    if config.download:
        load_dataset(config, root)
    for path, digest in dict.fromkeys(
        _here(forms, root) or forms[0] for forms in needed_forms(config, root=root)
    ):
        if digest is None:
            raise DataError(
                f"data.extra.sha256 must be stated, so that nodes know what to fetch; {path} has "
                f"{_digest(root / path, 64)}"
            )
        _check(root / path, digest)
        there = _is_staged(root / path, digest, store)
        if not there:
            store.put_file(_key(digest), root / path)
        say(f"{'there already' if there else 'staged':<13} {path}  {_key(digest)}")


def load_staged_dataset(
    config: DataConfig, root: Path, store: ObjectStore, splits: Collection[str] = ROLES
) -> Dataset:
    """Load a data set as `load_dataset` does; what ``root`` lacks is fetched from the store.

    Raises
    ------
    DataError, MachineError
        As `load_dataset`; and if the store fails, or holds other bytes than it should.
    """
    fetch_data(config, root, store, splits)
    return load_dataset(config, root, splits)


def fetch_data(
    config: DataConfig, root: Path, store: ObjectStore, splits: Collection[str] = ROLES
) -> None:
    """Bring staged files into ``root`` where it lacks them; a file appears whole and verified.

    Processes that share the folder wait for one fetch. What is neither here nor staged is left to
    `load_dataset`, which knows what to advise.
    """
    lacking = [forms for forms in needed_forms(config, splits, root) if _here(forms, root) is None]
    staged = dict.fromkeys(found for forms in lacking if (found := _staged(forms, store)))
    if not staged:
        return
    with alone(root):
        for path, digest in staged:
            if not (root / path).exists():
                _fetch(path, digest, root, store)


def where_is(
    config: DataConfig, root: Path, store: ObjectStore | None
) -> Literal["here", "staged", "missing"]:
    """Tell where the files of a data set are; without a store only ``root`` is looked at.

    Raises
    ------
    DataError
        If a file of ``root`` is damaged.
    """
    place: Literal["here", "staged"] = "here"
    for forms in needed_forms(config, root=root):
        if (found := _here(forms, root)) is not None:
            _check(root / found[0], found[1])
        elif store and _staged(forms, store):
            place = "staged"
        else:
            return "missing"
    return place


def find_missing(config: DataConfig, root: Path, store: ObjectStore | None) -> list[str]:
    """Return the files of a data set that are neither in ``root`` nor staged; opens none."""
    return [
        forms[0][0]
        for forms in needed_forms(config)
        if _here(forms, root) is None and not (store and _staged(forms, store))
    ]


def _here(forms: Forms, root: Path) -> tuple[str, str | None] | None:
    """Return the form of a file that lies below a root, or None."""
    return next((form for form in forms if (root / form[0]).exists()), None)


def _staged(forms: Forms, store: ObjectStore) -> tuple[str, str] | None:
    """Return the form of a file that the store has, or None."""
    known = ((path, digest) for path, digest in forms if digest)
    return next((form for form in known if store.exists(_key(form[1]))), None)


def _fetch(path: str, digest: str, root: Path, store: ObjectStore) -> None:
    """Copy one file next to its place, look at it, and move it there."""
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as folder:
            copy = Path(folder, "file")
            store.get_file(_key(digest), copy)
            if (found := _digest(copy, len(digest))) != digest:
                raise CorruptObjectError(f"{store.uri}: {_key(digest)} has digest {found}")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            copy.replace(root / path)
    except OSError as error:
        raise MachineError(f"fetching {path} to {root} failed: {error.strerror}") from error


def _is_staged(path: Path, digest: str, store: ObjectStore) -> bool:
    """Tell whether the store holds a file's bytes; damaged ones are staged again."""
    key = _key(digest)
    if dict(store.list(key)).get(key) != path.stat().st_size:
        return False
    # There is room for such a file where it lies; that folder may be another one's, though.
    scratch = path.parent if os.access(path.parent, os.W_OK) else None
    return holds(store, key, sha256_file(path), scratch)


def _check(path: Path, digest: str | None) -> None:
    if digest and (found := _digest(path, len(digest))) != digest:
        raise DataError(f"{path} is damaged: its digest is {found}, not {digest}")


def _key(digest: str) -> str:
    return f"data/{digest}"


def _digest(path: Path, length: int) -> str:
    """Return a file's MD5 (32 digits) or SHA-256 (64)."""
    algorithm = partial(hashlib.md5 if length == 32 else hashlib.sha256, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
