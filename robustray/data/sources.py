"""The official data sets: their files with MD5 digests, sizes, classes and layouts.

Beside them stand data sets that are functions: those of users, and a folder of images.

CIFAR: Krizhevsky, "Learning multiple layers of features from tiny images" (2009). MNIST: LeCun,
Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998). Digits:
the 1797 optical digits in scikit-learn; Alpaydin and Kaynak, "Cascading classifiers" (1998).
Folders are laid out as torchvision does it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robustray.data.pictures import read_colour
from robustray.data.readers import Arrays, read_cifar, read_digits, read_mnist
from robustray.errors import DataError, below
from robustray.manifest.explaining import check_options
from robustray.registry import DATASETS
from robustray.user_code import call


@dataclass(frozen=True)
class OfficialFile:
    """A file below the data root, and the MD5 that its publisher gives.

    ``unpacked_md5`` is that of a gzipped file's content, which may lie there in its place (without
    ".gz"); ``archive`` is the tar archive, with its MD5, that publishes the file under its path.
    """

    path: str
    md5: str
    unpacked_md5: str | None = None
    archive: tuple[str, str] | None = None

    @property
    def forms(self) -> tuple[tuple[str, str], ...]:
        """Paths and digests of what holds this content, the preferred one first."""
        found = [(self.path, self.md5)]
        if self.unpacked_md5 is not None:
            found.append((self.path.removesuffix(".gz"), self.unpacked_md5))
        return (*found, self.archive) if self.archive is not None else tuple(found)


@dataclass(frozen=True)
class Part:
    """A piece of a training or test set that can be read alone.

    ``read`` turns the bytes of ``files`` into arrays; ``first`` is its first image's official
    position and ``size`` its number of images.
    """

    name: str
    files: tuple[OfficialFile, ...]
    first: int
    size: int
    read: Callable[[list[bytes]], Arrays]


@dataclass(frozen=True)
class Source:
    """A data set: an official one, or what a function gave."""

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train: tuple[Part, ...]
    test: tuple[Part, ...]


_CIFAR10_ARCHIVE = ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")


def _cifar10() -> Source:
    folder, read = "cifar-10-batches-py", partial(read_cifar, label_key=b"labels")
    digests = (
        "c99cafc152244af753f735de768cd75f",
        "d4bba439e000b95fd0a9bffe97cbabec",
        "54ebc095f3ab1f0389bbae665268c751",
        "634d18415352ddfa80567beed471001a",
        "482c414d41f54cd18b22e5b47cb7c3cb",
    )
    train = tuple(
        Part(f"data_batch_{k + 1}",
             (OfficialFile(f"{folder}/data_batch_{k + 1}", md5, archive=_CIFAR10_ARCHIVE),),
             10_000 * k, 10_000, read)
        for k, md5 in enumerate(digests)
    )  # fmt: skip
    test_file = OfficialFile(
        f"{folder}/test_batch", "40351d587109b95175f43aff81a1287e", archive=_CIFAR10_ARCHIVE
    )
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    test = Part("test_batch", (test_file,), 0, 10_000, read)
    return Source("cifar10", (3, 32, 32), tuple(names.split()), train, (test,))


_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


def _cifar100() -> Source:
    folder, read = "cifar-100-python", partial(read_cifar, label_key=b"fine_labels")
    archive = ("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85")
    train = OfficialFile(f"{folder}/train", "16019d7e3df5f24257cddd939b257f8d", archive=archive)
    test = OfficialFile(f"{folder}/test", "f0ef6b0ae62326f3e7ffdfab6717acfc", archive=archive)
    return Source(
        "cifar100",
        (3, 32, 32),
        tuple(_CIFAR100_NAMES.split()),
        (Part("train", (train,), 0, 50_000, read),),
        (Part("test", (test,), 0, 10_000, read),),
    )


_Md5s = tuple[str, str]  # of the gzipped file, and of its content


def _mnist() -> Source:
    def part(name: str, prefix: str, size: int, images: _Md5s, labels: _Md5s) -> Part:
        files = (
            OfficialFile(f"MNIST/raw/{prefix}-images-idx3-ubyte.gz", *images),
            OfficialFile(f"MNIST/raw/{prefix}-labels-idx1-ubyte.gz", *labels),
        )
        return Part(name, files, 0, size, read_mnist)

    train = part(
        "train", "train", 60_000,
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    )  # fmt: skip
    test = part(
        "test", "t10k", 10_000,
        ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    )  # fmt: skip
    return Source("mnist", (1, 28, 28), tuple("0123456789"), (train,), (test,))


def _digits() -> Source:
    train = Part("train", (), 0, 1437, partial(read_digits, role="train"))
    test = Part("test", (), 0, 360, partial(read_digits, role="test"))
    return Source("digits", (1, 8, 8), tuple("0123456789"), (train,), (test,))


for _source in (_cifar10, _cifar100, _mnist, _digits):
    DATASETS.add(_source.__name__.removeprefix("_"), _source(), _source)


_SPLITS = ("train", "test")


def find_source(name: str, arguments: Mapping[str, Any] | None, root: Path) -> Source:
    """Return the data set of a name; a function is called once in a process.

    Parameters
    ----------
    name : str
        Of ``robustray.registry.DATASETS``: an official set, a function's, or "folder".
    arguments : mapping, optional
        Of the function: ``function(split, **arguments)`` returns the images, uint8 (N, H, W, C),
        and for each a class from 0 or a class's name, of "train" or "test". It also gets ``root``
        if it takes that.
    root : Path
        The folder of data files.

    Raises
    ------
    UserError
        If there is none of this name, or the function fails or returns anything else.
    """
    found = DATASETS.find(name)
    if isinstance(found, Source):
        return found
    return _called(name, json.dumps(arguments or {}), root.resolve())


@lru_cache(maxsize=4)
def _called(name: str, arguments: str, root: Path) -> Source:
    function, given = DATASETS.find(name), json.loads(arguments)
    with below("data"):
        check_options(DATASETS.options(name), given, "arguments")
        if "root" in inspect.signature(function).parameters:
            given["root"] = root
        read = {split: call(name, function, given | {"split": split}) for split in _SPLITS}
    pairs = {split: _checked(f"{name} {split}", pair) for split, pair in read.items()}
    shapes = {x.shape[1:] for x, _ in pairs.values()}
    if len(shapes) > 1:
        raise DataError(f"data set {name}: images of train and test differ: {sorted(shapes)}")
    classes, numbers = _number([y for _, y in pairs.values()])
    height, width, channels = shapes.pop()
    parts = []
    for (split, (x, _)), y_N in zip(pairs.items(), numbers, strict=True):
        x_NCHW = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        arrays = Arrays(x_NCHW, y_N, np.arange(len(y_N)))
        parts.append((Part(split, (), 0, len(y_N), partial(_given, arrays)),))
    return Source(name, (channels, height, width), classes, *parts)


def _given(arrays: Arrays, blobs: list[bytes]) -> Arrays:
    assert not blobs
    return arrays


def _checked(words: str, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as arrays, or tell what they are instead."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{words}: a {type(pair).__name__}, not a pair of images and labels")
    x, y = (np.asarray(part) for part in pair)
    if x.dtype != np.uint8 or x.ndim != 4 or not x.size:
        raise DataError(f"{words}: images are {x.dtype} {x.shape}, not uint8 (N, H, W, C)")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iuU" or (y.dtype.kind != "U" and y.min() < 0):
        raise DataError(
            f"{words}: labels are {y.dtype} {y.shape}, not for each of {len(x)} images a class "
            "from 0 or its name"
        )
    return x, y


def _number(labels: list[np.ndarray]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return the names of all classes, and the labels as int64 from 0."""
    if len({y.dtype.kind == "U" for y in labels}) > 1:
        raise DataError("labels of train and test: some are names, and others are numbers")
    if labels[0].dtype.kind == "U":
        names = np.unique(np.concatenate(labels))
        return tuple(map(str, names)), [np.searchsorted(names, y) for y in labels]
    count = 1 + max(int(y.max()) for y in labels)
    return tuple(map(str, range(count))), [y.astype(np.int64) for y in labels]


@DATASETS.register("folder")
def read_image_folder(
    split: str, *, root: Path, path: str, size: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """Read a folder of images in colour: ``path/train/<class>/*`` and ``path/test/<class>/*``.

    Parameters
    ----------
    split : {"train", "test"}
        Which part.
    root : Path
        The folder of data files.
    path : str
        The folder, below ``root``.
    size : int, optional
        Height and width that images are resized to; without it all must be of one size.

    Raises
    ------
    DataError
        If there are no images, one can't be read, or they are of different sizes.
    """
    folder = root / path / split
    files = [file for file in sorted(folder.glob("*/*")) if not file.name.startswith(".")]
    if not files:
        raise DataError(
            f"no images {folder}/CLASS/FILE; set ROBUSTRAY_DATA, or data.arguments.path"
        )
    pictures = [read_colour(file) for file in files]
    if size is not None:
        pictures = [one.resize((size, size), Image.Resampling.BILINEAR) for one in pictures]
    for file, picture in zip(files, pictures, strict=True):
        if picture.size != pictures[0].size:
            raise DataError(
                f"{file} is of {picture.size} pixels, and {files[0]} of {pictures[0].size}: give "
                "data.arguments.size"
            )
    return np.stack([np.asarray(picture) for picture in pictures]), [f.parent.name for f in files]
