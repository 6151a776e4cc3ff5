"""SVHN, STL-10 and Fashion-MNIST from small synthetic files in their official formats."""

import gzip
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from robustray.data import describe, load_dataset
from robustray.data.downloads import torchvision_datasets
from robustray.data.readers import read_stl10, read_svhn
from robustray.errors import DataError
from robustray.manifest.job import DataConfig
from robustray.registry import DATASETS
from tests.helpers.image_sets import OFFICIAL, declare, pack_stl10, pixels

NAMES = tuple(OFFICIAL)


def config(name, **fields):
    return DataConfig.model_validate({"name": name, "validation": 3} | fields)


@pytest.mark.parametrize("name", NAMES)
def test_images_classes_and_order_are_those_of_the_files(name, tmp_path, monkeypatch):
    written = OFFICIAL[name](tmp_path)
    declare(monkeypatch, name, tmp_path)
    data = load_dataset(config(name), tmp_path)
    for part, splits in (("train", (data.train, data.validation)), ("test", (data.test,))):
        x, y = written[part]
        assert sum(map(len, splits)) == len(y)
        for split in splits:
            assert np.array_equal(split.x_NCHW.permute(0, 2, 3, 1), x[split.index_N])
            assert split.y_N.tolist() == y[split.index_N].tolist()
            assert split.x_NCHW.is_contiguous()
    assert data.test.index_N.tolist() == list(range(len(data.test)))
    assert data.image_shape == describe(config(name)).image_shape


@pytest.mark.parametrize("name", NAMES)
def test_torchvision_reads_the_same_files_the_same(name, tmp_path, monkeypatch):
    OFFICIAL[name](tmp_path)
    declare(monkeypatch, name, tmp_path)
    sets = torchvision_datasets()
    for kind in (sets.SVHN, sets.STL10):  # it knows the official digests alone
        monkeypatch.setattr(kind, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    for packed in (tmp_path / "FashionMNIST/raw").glob("*.gz"):  # it reads unpacked ones
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    if name == "stl10":
        names = "\n".join(DATASETS.find(name).class_names)
        (tmp_path / "stl10_binary/class_names.txt").write_text(names)
    theirs: Any = {
        "svhn": lambda: sets.SVHN(str(tmp_path), "test"),
        "stl10": lambda: sets.STL10(str(tmp_path), "test"),
        "fashion-mnist": lambda: sets.FashionMNIST(str(tmp_path), train=False),
    }[name]()
    ours = load_dataset(config(name), tmp_path, ("test",)).test
    assert len(theirs) == len(ours)
    for row, (image, label) in enumerate(theirs):
        pixels_HWC = np.asarray(image).reshape(*ours.image_shape[1:], -1)
        assert np.array_equal(ours.x_NCHW[row].permute(1, 2, 0), pixels_HWC)
        assert int(label) == int(ours.y_N[row])


def test_digests_are_those_that_torchvision_compares():
    """Two people's notes of what the publishers say."""
    sets = torchvision_datasets()
    svhn = {part.files[0].path: part.files[0].md5 for part in _parts("svhn")}
    assert svhn == {file: md5 for _, file, md5 in sets.SVHN.split_list.values()}
    stl10 = {f.path.split("/")[1]: f.md5 for part in _parts("stl10") for f in part.files}
    known = dict(sets.STL10.train_list + sets.STL10.test_list)
    assert stl10 == {name: md5 for name, md5 in known.items() if not name.startswith("unlabeled")}
    assert _parts("stl10")[0].files[0].archive == (sets.STL10.filename, sets.STL10.tgz_md5)
    fashion = {f.path.split("/")[-1]: f.md5 for part in _parts("fashion-mnist") for f in part.files}
    assert fashion == dict(sets.FashionMNIST.resources)
    assert DATASETS.find("fashion-mnist").class_names == tuple(
        name.replace(" / ", "/") for name in sets.FashionMNIST.classes
    )


def _parts(name):
    source = DATASETS.find(name)
    return (*source.train, *source.test)


@pytest.mark.parametrize("name", NAMES)
def test_other_files_than_the_official_ones_are_refused(name, tmp_path):
    OFFICIAL[name](tmp_path)
    with pytest.raises(DataError, match=r"is damaged: \d+ bytes .*expected md5") as caught:
        load_dataset(config(name), tmp_path)
    assert "\n" not in str(caught.value)
    assert "ROBUSTRAY_DATA" in str(caught.value)
    with pytest.raises(DataError, match=r"is missing .*data\.download: true"):
        load_dataset(config(name), tmp_path / "elsewhere")


def test_svhns_extra_part_is_read_where_it_is_named(tmp_path, monkeypatch):
    written = OFFICIAL["svhn"](tmp_path)
    declare(monkeypatch, "svhn", tmp_path)
    plain, both = config("svhn"), config("svhn", parts=("train", "extra"))
    assert (describe(plain).label, describe(plain).train) == ("svhn validation=3", 9)
    assert (describe(both).label, describe(both).train) == ("svhn[train,extra] validation=3", 14)
    data = load_dataset(both, tmp_path)
    late = data.train.index_N >= 12
    assert late.any()
    x, y = written["extra"]
    assert data.train.y_N[late].tolist() == y[data.train.index_N[late] - 12].tolist()
    assert np.array_equal(
        data.train.x_NCHW[late].permute(0, 2, 3, 1), x[data.train.index_N[late] - 12]
    )
    with pytest.raises(
        DataError, match=r"data\.parts of svhn must be different ones of train, extra"
    ):
        describe(config("svhn", parts=("test",)))


def test_stl10_is_read_from_its_archive(tmp_path, monkeypatch):
    OFFICIAL["stl10"](tmp_path)
    declare(monkeypatch, "stl10", tmp_path)
    unpacked = load_dataset(config("stl10"), tmp_path)
    pack_stl10(tmp_path)
    assert load_dataset(config("stl10"), tmp_path).digest == unpacked.digest
    archive = tmp_path / "stl10_binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"stl10_binary\.tar\.gz (is damaged|can't be read)"):
        load_dataset(config("stl10"), tmp_path)


def test_what_is_no_file_of_svhn(tmp_path):
    x, y = np.moveaxis(pixels(4, 32, 32, 3), 0, 3), np.array([[1], [10], [3], [4]], np.uint8)
    for content, words in (
        ({"y": y}, "no uint8 array X"),
        ({"X": x / 255, "y": y}, "no uint8 array X"),
        ({"X": x[:30], "y": y}, "no uint8 array X of 32 x 32 x 3 x N"),
        ({"X": x, "y": y[:3]}, "no array y of N classes"),
        ({"X": x}, "no array y of N classes"),
        ({"X": x, "y": y / 1.0}, "no array y of N classes"),
        ({"X": x, "y": y - 1}, r"from 1 to 10; here are 0\.\.9"),
    ):
        savemat(tmp_path / "a.mat", content)
        with pytest.raises(DataError, match=words):
            read_svhn([(tmp_path / "a.mat").read_bytes()])
    savemat(tmp_path / "a.mat", {"X": x, "y": y})
    whole = (tmp_path / "a.mat").read_bytes()
    for blob in (b"", b"no file", whole[:1000]):
        with pytest.raises(DataError, match="not a MATLAB file"):
            read_svhn([blob])
    assert read_svhn([whole]).y_N.tolist() == [1, 0, 3, 4]


def test_what_is_no_pair_of_stl10():
    x = pixels(2, 3, 96, 96).tobytes()
    with pytest.raises(DataError, match="55295 bytes of images for 2 classes"):
        read_stl10([x[:-1], bytes([1, 2])])
    with pytest.raises(DataError, match=r"counts classes from 1 to 10; here are 0\.\.2"):
        read_stl10([x, bytes([0, 2])])
    assert read_stl10([x, bytes([1, 10])]).y_N.tolist() == [0, 9]


@pytest.mark.parametrize("name", NAMES)
def test_a_transform_is_part_of_the_label_and_of_the_digest(name, tmp_path, monkeypatch):
    OFFICIAL[name](tmp_path)
    declare(monkeypatch, name, tmp_path)
    plain, larger = config(name), config(name, transform={"resize": 120, "crop": 112})
    assert describe(larger).image_shape == (describe(plain).image_shape[0], 112, 112)
    assert describe(larger).label == f"{name} validation=3 resize=120 crop=112"
    data = load_dataset(larger, tmp_path)
    assert data.test.x_NCHW.shape[2:] == (112, 112)
    assert data.digest != load_dataset(plain, tmp_path).digest
    assert data.digest == load_dataset(larger, tmp_path).digest
    assert torch.equal(data.test.select(slice(2, 4)).x_NCHW, data.test.x_NCHW[2:4])
