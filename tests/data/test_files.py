import gzip
import hashlib
import tarfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from robustray.data import load_dataset
from robustray.data.files import read_part
from robustray.data.readers import read_cifar, read_mnist
from robustray.data.sources import OfficialFile, Part
from robustray.errors import DataError
from robustray.manifest.job import DataConfig
from robustray.registry import DATASETS
from tests.helpers.official_files import bomb, cifar_record, gzipped_idx, idx, python2_pickle


def part_of(path, blob):
    """Return a part that declares ``blob`` to be the official content of ``path``."""
    file = OfficialFile(path, hashlib.md5(blob).hexdigest())  # noqa: S324
    return Part("batch", (file,), 0, 5, partial(read_cifar, label_key=b"labels"))


@pytest.fixture
def official(tmp_path):
    blob = python2_pickle(cifar_record())
    path = tmp_path / "cifar-10-batches-py" / "batch"
    path.parent.mkdir()
    path.write_bytes(blob)
    return tmp_path, path, blob, part_of("cifar-10-batches-py/batch", blob)


def test_an_intact_file_is_returned_whole(official):
    root, _, blob, part = official
    assert read_part("cifar10", part, root, fetch=False) == [blob]
    assert len(part.read([blob]).y_N) == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "extend", "empty"])
def test_every_kind_of_damage_is_named_with_both_digests(official, damage):
    root, path, blob, part = official
    middle = len(blob) // 2
    wrong = {
        "flip": blob[:middle] + bytes([blob[middle] ^ 1]) + blob[middle + 1 :],
        "cut": blob[:-1],
        "extend": blob + b"\0",
        "empty": b"",
    }[damage]
    path.write_bytes(wrong)
    found = hashlib.md5(wrong).hexdigest()  # noqa: S324
    with pytest.raises(DataError) as caught:
        read_part("cifar10", part, root, fetch=False)
    message = str(caught.value)
    for piece in (str(path), found, part.files[0].md5, "data.download: true", "ROBUSTRAY_DATA"):
        assert piece in message
    assert "\n" not in message


def test_a_missing_file_is_named_with_how_to_get_it(official):
    root, path, _, part = official
    path.unlink()
    with pytest.raises(DataError, match="is missing") as caught:
        read_part("cifar10", part, root, fetch=False)
    for piece in (str(path), part.files[0].md5, "data.download: true", "ROBUSTRAY_DATA"):
        assert piece in str(caught.value)
    path.mkdir()
    with pytest.raises(DataError, match="can't be read"):
        read_part("cifar10", part, root, fetch=False)


def test_a_foreign_pickle_under_an_official_name_is_never_opened(tmp_path):
    mark = tmp_path / "mark"
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir()
    path.write_bytes(bomb(mark.write_text, "boom"))
    with pytest.raises(DataError, match="is damaged"):
        load_dataset(DataConfig(name="cifar10"), tmp_path, splits=("test",))
    assert not mark.exists()


def test_a_root_that_can_not_be_written_is_the_users_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="can't bring data to"):
        load_dataset(DataConfig(name="cifar10", download=True), blocked / "data")


def test_an_unpacked_file_is_as_good_as_a_gzipped_one(tmp_path):
    x, y = np.zeros((3, 2, 2), np.uint8), np.array([1, 2, 3], np.uint8)
    files = []
    for name, array in (("x", x), ("y", y)):
        packed, plain = gzipped_idx(array), idx(array)
        md5s = (hashlib.md5(blob).hexdigest() for blob in (packed, plain))  # noqa: S324
        files.append(OfficialFile(f"{name}.gz", *md5s))
    part = Part("train", tuple(files), 0, 3, read_mnist)
    with pytest.raises(DataError, match=r"x\.gz is missing .*, and so is x\. "):
        read_part("mnist", part, tmp_path, fetch=False)
    (tmp_path / "x").write_bytes(idx(x))
    (tmp_path / "y.gz").write_bytes(gzipped_idx(y))
    assert part.read(read_part("mnist", part, tmp_path, fetch=False)).y_N.tolist() == [1, 2, 3]
    (tmp_path / "x").write_bytes(idx(x) + b"1")
    with pytest.raises(DataError, match=r"x is damaged: .*expected md5"):
        read_part("mnist", part, tmp_path, fetch=False)
    (tmp_path / "x.gz").write_bytes(gzipped_idx(x))
    read_part("mnist", part, tmp_path, fetch=False)


def test_an_archive_is_read_where_its_folder_is_missing(official):
    root, path, blob, part = official
    file = replace(part.files[0], archive=("cifar.tar.gz", "0" * 32))
    part = replace(part, files=(file,))
    with tarfile.open(root / "cifar.tar.gz", "w:gz") as archive:
        archive.add(path, file.path)
    path.unlink()
    assert read_part("cifar10", part, root, fetch=False) == [blob]
    whole = (root / "cifar.tar.gz").read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "damaged|can't be read"),
        (b"no archive", "damaged"),
        (gzip.compress(bytes(10240), mtime=0), "it holds no cifar-10-batches-py/batch"),
    ):
        (root / "cifar.tar.gz").write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_part("cifar10", part, root, fetch=False)


@pytest.mark.parametrize("name", ["train", "t10k"])
def test_the_digests_of_unpacked_mnist_are_those_of_its_content(shared_data, name):
    part = DATASETS.find("mnist").train[0] if name == "train" else DATASETS.find("mnist").test[0]
    for file in part.files:
        content = gzip.decompress((shared_data / file.path).read_bytes())
        assert hashlib.md5(content).hexdigest() == file.unpacked_md5  # noqa: S324
