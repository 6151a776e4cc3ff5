"""Corrupted images: the right rows of the right files, official bytes only, one message each."""

import hashlib
import io
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from robustray.data import corruptions, load_dataset, needed_forms
from robustray.data.corruptions import open_cifar10_c, open_cifar100_c
from robustray.data.downloads import Archive
from robustray.data.pixels import Pixels
from robustray.errors import DataError, ManifestError
from robustray.manifest import DataConfig
from robustray.registry import DATASETS
from tests.helpers.corrupted_images import COUNT, images, labels, write_set

OWN = {"path": "own"}


def load(root, name="cifar10-c", corruption="fog", severity=3, limit=None, **arguments):
    """Load the test images of a cell."""
    options = {"corruption": corruption, "severity": severity, **arguments}
    config = DataConfig(name=name, arguments=options, test_limit=limit)
    return load_dataset(config, root, ("test",))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "own", {"fog": [(k,) for k in range(5)]})
    return folder


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["cifar10-c", "cifar100-c"])
def test_each_severity_is_a_block_of_the_file(root, name, severity):
    found = load(root, name, severity=severity, **OWN)
    expected = images((severity - 1,), seed=severity - 1).transpose(0, 3, 1, 2)
    assert np.array_equal(found.test.x_NCHW.numpy(), expected)
    assert found.test.y_N.tolist() == labels().tolist()
    assert found.test.index_N.tolist() == list(range(COUNT))
    assert found.class_names == DATASETS.find(name.removesuffix("-c")).class_names


def test_images_stay_in_their_file_and_limits_take_the_first(root):
    found = load(root, limit=7, **OWN)
    assert isinstance(found.test.pixels, Pixels)
    assert found.test.pixels.shape == (7, 3, 8, 8)
    assert found.label == "cifar10-c(corruption=fog, severity=3, path=own) test[:7]"
    assert len(found.train) == 0


def test_there_is_nothing_to_train_on(root):
    assert open_cifar10_c("train", root=root, corruption="fog", severity=1) is None
    assert open_cifar100_c("train", root=root, corruption="fog", severity=1) is None
    config = DataConfig(name="cifar10-c", arguments={"corruption": "fog", "severity": 1, **OWN})
    with pytest.raises(DataError, match="leaves none of 0 training images"):
        load_dataset(config, root)
    assert needed_forms(config, root=root) == ()  # so clusters are not refused for lack of files


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"corruption": "fgo"}, "CIFAR-10-C has no corruption 'fgo'; it has gaussian_noise, shot_"),
        ({}, r"fog.npy is missing; unpack CIFAR-10-C.tar \(md5 56bf5dcef84df0e2308c6dcbcbbd8499\)"),
        ({"path": "own", "corruption": "snow"}, r"own/snow.npy is missing \(.*own has fog, labels"),
        ({"path": "nowhere"}, "nowhere has no .npy file"),
    ],
)
def test_what_is_not_there_is_told(root, options, words):
    with pytest.raises(DataError, match=words):
        load(root, **options)


@pytest.mark.parametrize("severity", [0, 6, "3", 2.0])
def test_severities_are_1_to_5(severity):
    with pytest.raises(ValueError, match=r"arguments.severity: must be"):
        DataConfig(name="cifar10-c", arguments={"corruption": "fog", "severity": severity})


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((11, 8, 8, 3), np.uint8), np.zeros(11, int), "11 images can't be of 5 severit"),
        (np.zeros((10, 8, 8, 3), np.uint8), np.zeros(9, int), r"labels are \(9,\), not \(10,\)"),
        (np.zeros((10, 8, 8, 3)), np.zeros(10, int), "images are float64"),
        (np.zeros((10, 8, 8, 3), np.uint8), np.full(10, 10), "a label is none of its 10 classes"),
        (np.array([{}] * 10, object), np.zeros(10, int), "objects, which are pickles"),
    ],
)
def test_files_with_other_content_are_refused(tmp_path, x, y, words):
    (tmp_path / "own").mkdir()
    np.save(tmp_path / "own/fog.npy", x, allow_pickle=True)
    np.save(tmp_path / "own/labels.npy", y)
    with pytest.raises(DataError, match=words):
        load(tmp_path, severity=1, **OWN)


def write_official(folder) -> dict[str, str]:
    """Write files in the official layout and size; return their digests."""
    folder.mkdir()
    x = np.lib.format.open_memmap(folder / "fog.npy", "w+", np.uint8, (50_000, 32, 32, 3))
    x[[0, 40_000, 49_999], 0, 0, 0] = 1, 2, 3
    x.flush()
    np.save(folder / "labels.npy", np.tile(np.arange(10_000) % 10, 5).astype(np.uint8))
    return {
        name: hashlib.md5((folder / f"{name}.npy").read_bytes(), usedforsecurity=False).hexdigest()
        for name in ("fog", "labels")
    }


def test_the_official_layout_and_only_the_official_bytes(tmp_path, monkeypatch):
    digests = write_official(tmp_path / "CIFAR-10-C")
    official = corruptions._FILES["CIFAR-10-C"]["fog"]
    words = f"its MD5 is {digests['fog']}, not {official}; unpack CIFAR-10-C.tar again"
    with pytest.raises(DataError, match=re.escape(words)):
        load(tmp_path)
    for name, digest in digests.items():
        monkeypatch.setitem(corruptions._FILES["CIFAR-10-C"], name, digest)
    last = load(tmp_path, severity=5).test
    assert last.pixels.shape == (10_000, 3, 32, 32)
    assert [int(last.select(slice(k, k + 1)).x_NCHW[0, 0, 0, 0]) for k in (0, 9_999)] == [2, 3]


def test_the_archive_is_unpacked_where_a_download_is_allowed(tmp_path, monkeypatch):
    write_set(tmp_path / "made", {"fog": [(k,) for k in range(5)]})
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as archive:
        archive.add(tmp_path / "made", "CIFAR-10-C")
    (tmp_path / "CIFAR-10-C.tar").write_bytes(blob.getvalue())
    digest = hashlib.md5(blob.getvalue(), usedforsecurity=False).hexdigest()
    archive = Archive("CIFAR-10-C.tar", digest, "http://127.0.0.1:9/never")
    monkeypatch.setitem(corruptions._ARCHIVES, "CIFAR-10-C", archive)
    for name in ("fog", "labels"):
        made = (tmp_path / f"made/{name}.npy").read_bytes()
        found = hashlib.md5(made, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(corruptions._FILES["CIFAR-10-C"], name, found)
    with pytest.raises(DataError, match="is missing; unpack"):
        load(tmp_path)
    options = {"corruption": "fog", "severity": 2}
    config = DataConfig(name="cifar10-c", arguments=options, download=True)
    found = load_dataset(config, tmp_path, ("test",)).test
    assert np.array_equal(found.x_NCHW.numpy(), images((1,), seed=1).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("above", ["", "weather/"])
def test_imagenet_c_is_folders_in_the_order_of_the_images_names(tmp_path, above):
    folder = tmp_path / f"ImageNet-C/{above}fog/2"
    for number, wnid in [(1, "n01440764"), (0, "n01443537"), (2, "n01440764")]:
        (folder / wnid).mkdir(parents=True, exist_ok=True)
        picture = np.full((6, 6, 3), 50 * number, np.uint8)
        Image.fromarray(picture).save(folder / wnid / f"ILSVRC2012_val_0000000{number}.JPEG")
    (folder / "n01484850").mkdir()
    found = load(tmp_path, "imagenet-c", severity=2, num_classes=3).test
    assert found.y_N.tolist() == [1, 0, 0]
    assert found.x_NCHW.float().mean((1, 2, 3)).round().tolist() == [0, 50, 100]
    with pytest.raises(DataError, match="3 class folders instead of 1000"):
        load(tmp_path, "imagenet-c", severity=2)
    with pytest.raises(DataError, match=r"fog/1 is missing \(.*has no corruption\); get it"):
        load(tmp_path, "imagenet-c", severity=1)


def test_unknown_options_are_told(root):
    with pytest.raises((ManifestError, ValueError), match=r"unknown key.*corruption"):
        DataConfig(name="cifar10-c", arguments={"corruptoin": "fog", "severity": 1})
