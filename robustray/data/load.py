"""From a manifest's ``data`` section to a data set."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from robustray.data.dataset import ROLES, Dataset, Split, digest_of, smallest_hashes
from robustray.data.extra import read_extra
from robustray.data.files import read_part
from robustray.data.formats.image_files import ImageFiles
from robustray.data.functions import find_source
from robustray.data.pixels import Pixels, image_shape_of
from robustray.data.readers import Arrays
from robustray.data.sources import Part, Source
from robustray.errors import DataError
from robustray.manifest.job import DataConfig, Transform
from robustray.registry import DATASETS

_DECODED = 4 << 30  # bytes of images in files that are decoded at once and kept in memory


@dataclass(frozen=True)
class DataFacts:
    """What a configuration says of its data before a file is opened.

    ``train``, ``validation`` and ``test`` are numbers of images.
    """

    label: str
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    train: int
    validation: int
    test: int


def describe(
    config: DataConfig, root: Path | None = None, splits: Collection[str] = ROLES
) -> DataFacts:
    """Check a configuration and say what it gives; of official sets no file is read.

    Parameters
    ----------
    config : DataConfig
        Which data set, and what part of it.
    root : Path, optional
        Where the files are; default ``$ROBUSTRAY_DATA``, else ``./data``.
    splits : collection of str
        Which of "train", "validation" and "test" are wanted.

    Raises
    ------
    DataError
        If parts are unknown or named twice, a limit exceeds the set, or the validation part
        leaves nothing to train on.
    """
    source = _source(config, root)
    parts = _training_parts(source, config)
    train = _limited(sum(part.size for part in parts), "train_limit", config.train_limit)
    test = _limited(sum(part.size for part in source.test), "test_limit", config.test_limit)
    if config.validation >= train and set(splits) != {"test"}:
        message = f"data.validation of {config.validation} leaves none of {train} training images"
        raise DataError(f"{message} of {config.name} to train on")
    if "test" in splits and not test:
        raise DataError(f"the data set {config.name} has no images to test on")
    return DataFacts(
        label=_label(config, source, parts),
        image_shape=image_shape_of(source.image_shape, _transform(config)),
        num_classes=len(source.class_names),
        class_names=source.class_names,
        train=max(0, train - config.validation),
        validation=config.validation,
        test=test,
    )


def load_dataset(
    config: DataConfig, root: Path | None = None, splits: Collection[str] = ROLES
) -> Dataset:
    """Load a data set from verified official files.

    Parameters
    ----------
    config : DataConfig
        Which one, and what part of it. ``validation`` images are held out from the training set
        (after parts and limit), those with the smallest hashes of their official positions: the
        same ones in every trial of every study.
    root : Path, optional
        Where the files are; default ``$ROBUSTRAY_DATA``, else ``./data``.
    splits : collection of str
        Which of "train", "validation" and "test" are wanted. Files of no wanted split are not
        opened; the others of the result are empty, and its digest covers the wanted ones. Extra
        images belong to "train".

    Returns
    -------
    Dataset
        uint8 tensors on the CPU. With a transform, mapped from a file of arrays, or in files and of
        more than 4 GiB, images are read when they are wanted (`Split.load`).

    Raises
    ------
    DataError
        If the configuration asks for what is not there, or a file is missing or damaged.
    MachineError
        If ``config.download`` was set and the download failed.
    """
    if not set(splits) <= set(ROLES):
        raise ValueError(f"splits must be among {ROLES}, not {splits}")
    facts, source = describe(config, root, splits), _source(config, root)
    folder = data_root(root)
    found: dict[str, Split] = {}
    if "train" in splits or "validation" in splits:
        parts = _training_parts(source, config)
        whole = _read(source, parts, folder, facts.train + facts.validation, config)
        held_N = smallest_hashes(whole.index_N, config.validation, "validation")
        found |= {"train": whole.select(~held_N), "validation": whole.select(held_N)}
    if "test" in splits:
        found["test"] = _read(source, source.test, folder, facts.test, config)
    wanted = {role: split for role, split in found.items() if role in splits}
    extra = None
    if config.extra and "train" in splits:
        classes, first = len(source.class_names), sum(part.size for part in source.train)
        extra = read_extra(config.extra, folder, facts.image_shape, classes, first)
    return Dataset(
        name=config.name,
        label=facts.label,
        **{role: wanted.get(role, _empty(facts)) for role in ROLES},
        num_classes=facts.num_classes,
        digest=digest_of(wanted | ({"extra": extra} if extra else {}), facts.num_classes),
        class_names=facts.class_names,
        extra=extra,
    )


def needed_files(
    config: DataConfig, splits: Collection[str] = ROLES, root: Path | None = None
) -> tuple[tuple[str, str | None], ...]:
    """Return the files that `load_dataset` would open, but for those that a function opens.

    Parameters
    ----------
    config, splits, root
        As in `load_dataset`.

    Returns
    -------
    tuple of (str, str or None)
        Path below the data root, and its digest: MD5 (32 digits) of an official file, SHA-256 (64)
        of the extra images, None where the configuration does not say it.

    Raises
    ------
    DataError
        If the configuration asks for what is not there.
    """
    return tuple(forms[0] for forms in needed_forms(config, splits, root))


def needed_forms(
    config: DataConfig, splits: Collection[str] = ROLES, root: Path | None = None
) -> tuple[tuple[tuple[str, str | None], ...], ...]:
    """Return `needed_files`, each with what may lie there in its place: unpacked, or an archive."""
    source = _source(config, root)
    parts: list[Part] = []
    if any(part.files for part in (*source.train, *source.test)):
        facts = describe(config, root, splits)
        if "train" in splits or "validation" in splits:
            parts += _first_parts(_training_parts(source, config), facts.train + facts.validation)
        if "test" in splits:
            parts += _first_parts(source.test, facts.test)
    files: list[tuple[tuple[str, str | None], ...]] = []
    files += [file.forms for part in parts for file in part.files]
    if config.extra and "train" in splits:
        files.append(((config.extra.file, config.extra.sha256),))
    return tuple(files)


def official_names() -> list[str]:
    """Return the names of the data sets that come as files of their publishers'."""
    sources = {name: DATASETS.find(name) for name in DATASETS.names()
               if not DATASETS.is_brought(name)}  # fmt: skip
    return [n for n, s in sources.items() if isinstance(s, Source) and s.train[0].files]


def data_root(root: Path | None = None) -> Path:
    """Return the folder of data files: ``root``, else ``$ROBUSTRAY_DATA``, else ``./data``."""
    return Path(root or os.environ.get("ROBUSTRAY_DATA") or "data")


def _source(config: DataConfig, root: Path | None) -> Source:
    root = data_root(root)
    return find_source(config.name, config.arguments, root, download=config.download)


def _transform(config: DataConfig) -> Transform | None:
    if config.transform == "model":
        raise DataError("data.transform: model needs a manifest that names one model")
    return config.transform


def _training_parts(source: Source, config: DataConfig) -> tuple[Part, ...]:
    """Return the parts that are wanted, in official order whatever order they are named in."""
    if config.parts is None:
        return tuple(part for part in source.train if not part.optional)
    allowed = [part.name for part in source.train]
    if not set(config.parts) <= set(allowed) or len(set(config.parts)) < len(config.parts):
        message = f"data.parts of {config.name} must be different ones of {', '.join(allowed)}"
        raise DataError(f"{message}, not {', '.join(config.parts)}")
    return tuple(part for part in source.train if part.name in config.parts)


def _limited(size: int, field: str, limit: int | None) -> int:
    if limit is not None and limit > size:
        raise DataError(f"data.{field} is {limit}, but there are only {size} images")
    return limit or size


def _label(config: DataConfig, source: Source, parts: tuple[Part, ...]) -> str:
    """Name the data set and everything in which it differs from the whole one."""
    label = config.name
    if config.arguments:
        label += f"({', '.join(f'{name}={value}' for name, value in config.arguments.items())})"
    if parts != _training_parts(source, config.model_copy(update={"parts": None})):
        label += f"[{','.join(part.name for part in parts)}]"
    if config.train_limit is not None:
        label += f"[:{config.train_limit}]"
    if config.validation != DataConfig.model_fields["validation"].default:
        label += f" validation={config.validation}"
    if config.test_limit is not None:
        label += f" test[:{config.test_limit}]"
    if transform := _transform(config):
        changed = transform.model_dump(exclude_defaults=True)
        label += "".join(f" {name}={value}" for name, value in changed.items())
    if config.extra is not None:
        limit = f"[:{config.extra.limit}]" if config.extra.limit else ""
        label += f" + {Path(config.extra.file).stem}{limit}"
    return label


def _read(
    source: Source, parts: tuple[Part, ...], root: Path, count: int, config: DataConfig
) -> Split:
    """Read the first ``count`` images of some parts, and no file that holds none of them."""
    found: list[Arrays] = []
    missing = count
    for part in _first_parts(parts, count):
        blobs = read_part(source.name, part, root, fetch=config.download)
        x, y_N, index_N = _checked(source, part, part.read(blobs))
        found.append(Arrays(x[:missing], y_N[:missing], index_N[:missing]))
        missing -= part.size
    return Split(
        _pixels([arrays.x_NCHW for arrays in found], _transform(config)),
        torch.from_numpy(np.concatenate([arrays.y_N for arrays in found])),
        torch.from_numpy(np.concatenate([arrays.index_N for arrays in found])),
    )


def _pixels(
    images: list[np.ndarray | ImageFiles], transform: Transform | None
) -> torch.Tensor | Pixels:
    """Return images as a tensor, or where they are: transformed, mapped, or in too many files."""
    first = images[0]
    if isinstance(first, ImageFiles):
        found = Pixels(first, transform)
        fits = transform is None and math.prod(found.shape) <= _DECODED
        return found.read() if fits else found
    if isinstance(first, np.memmap):
        return Pixels(first, transform)
    # Some formats have another order of axes, which concatenating alone would keep.
    together = np.concatenate([one for one in images if isinstance(one, np.ndarray)])
    together = np.ascontiguousarray(together)
    return torch.from_numpy(together) if transform is None else Pixels(together, transform)


def _first_parts(parts: tuple[Part, ...], count: int) -> tuple[Part, ...]:
    """Return the parts that hold the first ``count`` images."""
    starts = accumulate((part.size for part in parts), initial=0)
    return tuple(part for part, start in zip(parts, starts, strict=False) if start < count)


def _checked(source: Source, part: Part, arrays: Arrays) -> Arrays:
    """Move positions to where the part begins; verified files must hold what they should."""
    if isinstance(arrays.x_NCHW, np.ndarray):
        assert arrays.x_NCHW.shape == (part.size, *source.image_shape)
    assert set(np.unique(arrays.y_N)) <= set(range(len(source.class_names)))
    return arrays._replace(index_N=arrays.index_N + part.first)


def _empty(facts: DataFacts) -> Split:
    none = torch.zeros(0, dtype=torch.int64)
    return Split(torch.zeros(0, *facts.image_shape, dtype=torch.uint8), none, none)
