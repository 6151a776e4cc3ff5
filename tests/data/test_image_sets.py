"""Tiny ImageNet, ImageNet and folders, from small synthetic trees in the official layouts."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from robustray.data import describe, load_dataset
from robustray.data.downloads import torchvision_datasets
from robustray.data.formats import image_files
from robustray.data.formats.image_files import ImageFiles
from robustray.data.pixels import Pixels
from robustray.errors import DataError
from robustray.manifest.job import DataConfig
from robustray.registry import DATASETS
from tests.helpers.image_sets import WNIDS, pixels, save, write_imagenet, write_tiny_imagenet

TINY = DataConfig(name="tinyimagenet", validation=2)
CUT = {"resize": 30, "crop": 24}


def decoded(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def imagenet(**fields):
    given = {"name": "imagenet", "validation": 2, "transform": CUT} | fields
    return DataConfig.model_validate(given)


def test_tiny_imagenet_as_it_was_published(tmp_path):
    folder = write_tiny_imagenet(tmp_path)
    facts = describe(TINY, tmp_path)
    assert (facts.image_shape, facts.class_names) == ((3, 64, 64), tuple(WNIDS[:3]))
    assert (facts.train, facts.validation, facts.test) == (10, 2, 6)
    data = load_dataset(TINY, tmp_path)
    assert data.test.y_N.tolist() == [0, 2, 1, 0, 2, 1]
    for row in range(6):
        assert torch.equal(data.test.x_NCHW[row], decoded(folder / f"val/images/val_{row}.JPEG"))
    theirs = torchvision_datasets().ImageFolder(str(folder / "train"))
    for split in (data.train, data.validation):
        for x, y, row in zip(split.x_NCHW, split.y_N, split.index_N, strict=True):
            path, label = theirs.samples[int(row)]
            assert label == y
            assert torch.equal(x, decoded(path))


def test_what_is_no_tiny_imagenet(tmp_path):
    with pytest.raises(
        DataError, match=r"tinyimagenet: .*wnids\.txt is missing; unpack .*90528d7c"
    ):
        describe(TINY, tmp_path)
    folder = write_tiny_imagenet(tmp_path)
    config = DataConfig(name="tinyimagenet", validation=1)  # what was listed is kept by arguments
    (folder / "val/images/val_3.JPEG").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"val_3\.JPEG can't be read"):
        load_dataset(config, tmp_path, ("test",))
    listing = DATASETS.find("tinyimagenet")
    save(folder / "val/images/val_9.JPEG", pixels(1, 64, 64, 3)[0])
    with pytest.raises(DataError, match=r"the class of .*val_9\.JPEG is told nowhere"):
        listing("test", root=tmp_path)
    (folder / "wnids.txt").write_text(WNIDS[0])
    with pytest.raises(DataError, match=f"train: {WNIDS[1]} is no class of .*wnids.txt"):
        listing("train", root=tmp_path)


@pytest.mark.parametrize("val", ["folders", "devkit", "csv", "numbers", "names"])
@pytest.mark.parametrize("train", [True, False])
def test_imagenet_however_the_classes_are_told(tmp_path, val, train):
    classes = write_imagenet(tmp_path / "imagenet", train=train, val=val)
    config = imagenet(arguments={"labels": "mine.txt"} if val == "names" else None)
    facts = describe(config, tmp_path, ("test",))
    assert (facts.num_classes, facts.test, facts.image_shape) == (1000, 5, (3, 24, 24))
    test = load_dataset(config, tmp_path, ("test",)).test
    assert test.y_N.tolist() == classes  # in the published order, however they lie
    if val == "folders":  # the classes are numbered as torchvision does it
        folder = tmp_path / "imagenet/val"
        theirs = torchvision_datasets().ImageFolder(str(folder), allow_empty=True)
        assert isinstance(test.pixels, Pixels)
        assert isinstance(test.pixels.source, ImageFiles)
        found = zip(test.pixels.source.names, test.y_N.tolist(), strict=True)
        assert dict(found) == {path.removeprefix(f"{folder}/"): y for path, y in theirs.samples}
    if train:
        found = load_dataset(config, tmp_path)
        assert sorted([*found.train.y_N, *found.validation.y_N]) == [0, 0, 7, 7, 500, 500, 999, 999]


def test_what_is_no_imagenet(tmp_path):
    listing = DATASETS.find("imagenet")
    with pytest.raises(DataError, match=r"neither .*train nor .*can't be downloaded"):
        listing("test", root=tmp_path)
    write_imagenet(tmp_path / "imagenet", train=False, val="")
    with pytest.raises(DataError, match=r"there is no .*LOC_val_solution\.csv or val\.txt"):
        listing("test", root=tmp_path)
    table = tmp_path / "imagenet/val.txt"
    counted = "".join(f"ILSVRC2012_val_{n:08}.JPEG {n}\n" for n in range(1, 1001))
    table.write_text(counted)  # from 1, and no folder tells the classes
    with pytest.raises(DataError, match="1000 is no number of a class below 1000"):
        listing("test", root=tmp_path)
    table.write_text("ILSVRC2012_val_00000001.JPEG 3\n")
    with pytest.raises(DataError, match="are 1 instead of 1000"):
        listing("test", root=tmp_path)
    for number in range(1, 1001):
        (tmp_path / f"imagenet/train/{WNIDS[number - 1]}").mkdir(parents=True)
    with pytest.raises(DataError, match=r"the class of .*val_00000002\.JPEG is told nowhere"):
        listing("test", root=tmp_path)
    table.write_text("ILSVRC2012_val_00000001.JPEG 1000\n")
    with pytest.raises(DataError, match="1000 is no number of a class below 1000"):
        listing("test", root=tmp_path)
    table.write_text("\n")
    with pytest.raises(DataError, match="has no line with an image and its class"):
        listing("test", root=tmp_path)
    (tmp_path / "imagenet/ILSVRC2012_devkit_t12/data").mkdir(parents=True)
    with pytest.raises(DataError, match=r"devkit_t12/data can't be read"):
        listing("test", root=tmp_path)
    (tmp_path / f"imagenet/train/{WNIDS[5]}").rmdir()
    with pytest.raises(DataError, match="has 999 class folders instead of 1000"):
        listing("test", root=tmp_path)
    assert listing("train", root=tmp_path) is None


def test_images_of_any_size_need_a_transform(tmp_path):
    write_imagenet(tmp_path / "imagenet")
    with pytest.raises(DataError, match=r"is of \(.*\) pixels, and .*: give data\.transform"):
        load_dataset(imagenet(transform=None), tmp_path, ("test",))


def test_a_tree_has_any_depth_and_other_files_are_none_of_it(tmp_path):
    for name in ("b/deep/er/2.png", "b/1.png", "a/x.png", "a b/y.png"):
        save(tmp_path / "photos/test" / name, pixels(1, 5, 5, 3)[0])
    (tmp_path / "photos/test/.robustray").mkdir()
    (tmp_path / "photos/test/.robustray/x").write_text("")
    for name in (".hidden", "Thumbs.db", "prepare.sh"):
        (tmp_path / "photos/test/a" / name).write_text("")
    files, classes = DATASETS.find("folder")("test", root=tmp_path, path="photos")
    assert list(files.names) == ["a/x.png", "a b/y.png", "b/1.png", "b/deep/er/2.png"]
    assert classes == ["a", "a b", "b", "b"]


def test_an_image_that_changes_is_found(tmp_path):
    write_tiny_imagenet(tmp_path)
    config = DataConfig.model_validate({"name": "tinyimagenet", "validation": 2, "transform": CUT})
    test = load_dataset(config, tmp_path, ("test",)).test  # its digest has looked at all of them
    save(tmp_path / "tiny-imagenet-200/val/images/val_2.JPEG", pixels(1, 64, 64, 3, seed=5)[0])
    assert len(test.select(slice(0, 2)).x_NCHW) == 2
    with pytest.raises(DataError, match=r"val_2\.JPEG has changed since the data set was opened"):
        test.select(slice(2, 3)).load()
    (tmp_path / "tiny-imagenet-200/val/images/val_2.JPEG").unlink()
    with pytest.raises(DataError, match=r"val_2\.JPEG is missing"):
        test.select(slice(2, 3)).load()


def test_digests_of_many_files_are_kept_until_one_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_KEPT_FROM", 3)
    names = [f"{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        save(tmp_path / "many" / name, pixels(1, 6, 6, 3, seed=number)[0])
    read, real = [], ImageFiles._bytes
    monkeypatch.setattr(
        ImageFiles, "_bytes", lambda self, row: (read.append(row), real(self, row))[1]
    )

    def contents():
        read.clear()
        return ImageFiles(tmp_path / "many", names).contents(np.arange(5)).tolist()

    first = contents()
    assert sorted(read) == [0, 1, 2, 3, 4]
    assert contents() == first
    assert read == []
    save(tmp_path / "many/3.png", pixels(1, 6, 6, 3, seed=9)[0])
    changed = contents()
    assert sorted(read) == [0, 1, 2, 3, 4]
    assert [row for row in range(5) if changed[row] != first[row]] == [3]
    assert not (tmp_path / "many/.robustray").exists(), "no folder among those of classes"


def test_a_folder_of_tiny_imagenet_that_is_not_whole_is_told(tmp_path):
    config = DataConfig(name="tinyimagenet", validation=1, download=True)
    (tmp_path / "tiny-imagenet-200/train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"is not whole: there is no wnids\.txt"):
        describe(config, tmp_path)
    shutil.rmtree(tmp_path / "tiny-imagenet-200")
    (tmp_path / "tiny-imagenet-200").write_text("")
    with pytest.raises(DataError, match="is no folder; move it away"):
        describe(config, tmp_path)
