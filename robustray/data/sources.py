"""The official data sets: their files with MD5 digests, sizes, classes and layouts.

Beside them stand data sets that are functions (`robustray.data.functions`): those of users, and of
`robustray.data.image_sets`.

CIFAR: Krizhevsky, "Learning multiple layers of features from tiny images" (2009). MNIST: LeCun,
Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998). Fashion:
Xiao, Rasul, Vollgraf, "Fashion-MNIST" (2017). SVHN: Netzer, Wang, Coates, Bissacco, Wu, Ng,
"Reading digits in natural images with unsupervised feature learning" (2011). STL-10: Coates, Ng,
Lee, "An analysis of single-layer networks in unsupervised feature learning" (2011). Digits: the
1797 optical digits in scikit-learn; Alpaydin and Kaynak, "Cascading classifiers" (1998). Folders
are laid out as torchvision does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from robustray.data import array_files, corruptions, image_sets
from robustray.data.readers import (
    Arrays,
    read_cifar,
    read_digits,
    read_mnist,
    read_stl10,
    read_svhn,
)
from robustray.registry import DATASETS

# Three of them register data sets.
__all__ = ["OfficialFile", "Part", "Source", "array_files", "corruptions", "image_sets"]


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
    position and ``size`` its number of images. An ``optional`` part is trained on only where
    ``data.parts`` names it.
    """

    name: str
    files: tuple[OfficialFile, ...]
    first: int
    size: int
    read: Callable[[list[bytes]], Arrays]
    optional: bool = False


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


_Md5s = tuple[str, str | None]  # of the gzipped file, and of its content


def _idx_part(name: str, folder: str, prefix: str, size: int, images: _Md5s, labels: _Md5s) -> Part:
    """Return a pair of gzipped idx files, images and labels."""
    files = (
        OfficialFile(f"{folder}/raw/{prefix}-images-idx3-ubyte.gz", *images),
        OfficialFile(f"{folder}/raw/{prefix}-labels-idx1-ubyte.gz", *labels),
    )
    return Part(name, files, 0, size, read_mnist)


def _mnist() -> Source:
    train = _idx_part(
        "train", "MNIST", "train", 60_000,
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    )  # fmt: skip
    test = _idx_part(
        "test", "MNIST", "t10k", 10_000,
        ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    )  # fmt: skip
    return Source("mnist", (1, 28, 28), tuple("0123456789"), (train,), (test,))


_GARMENTS = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"


def _fashion_mnist() -> Source:
    train = _idx_part(
        "train", "FashionMNIST", "train", 60_000,
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", None),
        ("25c81989df183df01b3e8a0aad5dffbe", None),
    )  # fmt: skip
    test = _idx_part(
        "test", "FashionMNIST", "t10k", 10_000,
        ("bef4ecab320f06d8554ea6380940ec79", None),
        ("bb300cfdad3c16e7a12a480ee83cd310", None),
    )  # fmt: skip
    return Source("fashion-mnist", (1, 28, 28), tuple(_GARMENTS.split(",")), (train,), (test,))


def _svhn() -> Source:
    def part(name: str, first: int, size: int, md5: str, *, optional: bool = False) -> Part:
        files = (OfficialFile(f"{name}_32x32.mat", md5),)
        return Part(name, files, first, size, read_svhn, optional)

    train = (
        part("train", 0, 73_257, "e26dedcc434d2e4c54c9b2d4a06d8373"),
        part("extra", 73_257, 531_131, "a93ce644f1a588dc4d68dda5feec44a7", optional=True),
    )
    test = part("test", 0, 26_032, "eb5a983be6a315427106f1b164d9cef3")
    return Source("svhn", (3, 32, 32), tuple("0123456789"), train, (test,))


def _stl10() -> Source:
    archive = ("stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb")

    def part(name: str, size: int, images: str, labels: str) -> Part:
        md5s = {f"{name}_X.bin": images, f"{name}_y.bin": labels}
        files = [OfficialFile(f"stl10_binary/{n}", md5, None, archive) for n, md5 in md5s.items()]
        return Part(name, tuple(files), 0, size, read_stl10)

    train = part("train", 5_000, "918c2871b30a85fa023e0c44e0bee87f",
                 "5a34089d4802c674881badbb80307741")  # fmt: skip
    test = part("test", 8_000, "7f263ba9f9e0b06b93213547f721ac82",
                "36f9794fa4beb8a2c72628de14fa638e")  # fmt: skip
    names = "airplane bird car cat deer dog horse monkey ship truck"
    return Source("stl10", (3, 96, 96), tuple(names.split()), (train,), (test,))


def _digits() -> Source:
    train = Part("train", (), 0, 1437, partial(read_digits, role="train"))
    test = Part("test", (), 0, 360, partial(read_digits, role="test"))
    return Source("digits", (1, 8, 8), tuple("0123456789"), (train,), (test,))


for _source in (_cifar10, _cifar100, _mnist, _fashion_mnist, _svhn, _stl10, _digits):
    DATASETS.add(_source().name, _source(), _source)
