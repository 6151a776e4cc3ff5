import hashlib
from functools import partial

import pytest

from robustray.data import load_dataset
from robustray.data.files import read_part
from robustray.data.readers import read_cifar
from robustray.data.sources import OfficialFile, Part
from robustray.errors import DataError
from robustray.manifest.schema import DataConfig

from .official import bomb, cifar_record, python2_pickle


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
