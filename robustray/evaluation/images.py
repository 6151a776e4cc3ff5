"""The images of an evaluation: a part of a data set, its facts, and its ranges."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from robustray.data import DataFacts, Split, data_root, describe
from robustray.errors import DataError
from robustray.evaluation.task import Range, cut
from robustray.manifest import JudgedData
from robustray.store import ObjectStore, open_store
from robustray.store.staged_data import load_staged_dataset


def facts_of(data: JudgedData, root: str | None = None) -> DataFacts:
    """Return shape, classes and sizes of the data set; of official ones no file is read.

    Raises
    ------
    DataError
        If there are not that many images, or no such parts.
    """
    config, folder, splits = data.config(), Path(root) if root else None, {data.split}
    whole = describe(config.model_copy(update={"test_limit": None}), folder, splits)
    count = getattr(whole, data.split)
    if data.first is not None and data.first > count:
        raise DataError(f"data.first is {data.first}, but there are only {count} images")
    return describe(config, folder, splits)


def label_of(data: JudgedData, root: str | None = None) -> str:
    """Return the words that stand beside every number: "cifar10 test[:1000]"."""
    facts = facts_of(data, root)
    if data.split == "test":
        return facts.label
    first = f"[:{data.first}]" if data.first else ""
    return f"{facts.label} {data.split}{first}"


def load_images(data: JudgedData, root: str | None, store: ObjectStore | None = None) -> Split:
    """Return the images, in official order; read once per process.

    Missing files are fetched from the store (default: `open_store`'s) if they were staged there.

    Raises
    ------
    DataError
        If they are missing, damaged, or fewer than wanted.
    """
    return _load(data.model_dump_json(), root, store.uri if store else None)


def ranges_of(images: Split, size: int) -> tuple[Range, ...]:
    """Cut images into ranges, each with the digest of what is in it."""
    cuts = cut(len(images), size)
    return tuple(Range(a, b, images.select(slice(a, b)).digest) for a, b in cuts)


@lru_cache(maxsize=2)
def _load(text: str, root: str | None, store_uri: str | None) -> Split:
    data = JudgedData.model_validate_json(text)
    facts_of(data, root)
    folder, store = data_root(Path(root) if root else None), open_store(store_uri)
    splits = load_staged_dataset(data.config(), folder, store, (data.split,))
    images: Split = getattr(splits, data.split)
    return images if data.first is None else images.select(slice(0, data.first))
