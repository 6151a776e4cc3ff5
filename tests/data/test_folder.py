"""Binary problems from a folder and a table; single images; ImageNet's folder."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from robustray.alignment.splits import load_study
from robustray.data.folder import preprocess, read_imagenet
from robustray.data.formats.pictures import equalise, read_grey
from robustray.errors import DataError
from robustray.manifest.job import FolderData

SOURCE = np.random.default_rng(0)
CONFIG = {
    "root": "lungs", "table": "table.csv", "path": "file", "target": "ratio", "subject": "who",
    "validation": "val.txt", "test": "test.txt", "size": 32, "crop": 24,
}  # fmt: skip


@pytest.fixture
def lungs(tmp_path):
    folder = tmp_path / "lungs"
    folder.mkdir()
    lines = ["file,ratio,who"]
    for number in range(8):
        grey = SOURCE.integers(0, 65536, (40, 50), dtype=np.uint16)
        Image.fromarray(grey).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{0.5 + 0.05 * number},s{number // 2}")
    (folder / "table.csv").write_text("\n".join(lines))
    (folder / "val.txt").write_text("s1\n")
    (folder / "test.txt").write_text("s1\ns3\n\n")
    return tmp_path


def load(place, split, cache=None, **changes):
    config = FolderData.model_validate(CONFIG | changes)
    return load_study("folder", split, root=place, folder=config, cache=cache)


def test_splits_go_by_subject_and_the_threshold_makes_classes(lungs):
    found = {split: load(lungs, split) for split in ("train", "validation", "test")}
    assert {name: split.index_N.tolist() for name, split in found.items()} == {
        "train": [0, 1, 4, 5], "validation": [2, 3], "test": [6, 7],
    }  # fmt: skip
    assert found["train"].y_N.tolist() == [1, 1, 0, 0]  # 0.70 is not below 0.7
    assert load(lungs, "train", below=False, threshold=0.52).y_N.tolist() == [0, 1, 1, 1]
    assert load(lungs, "train", validation=None, test=None).index_N.tolist() == list(range(8))


def test_images_are_cut_to_the_crop(lungs):
    split = load(lungs, "train")
    assert split.image_shape == (1, 24, 24)
    assert torch.equal(split.images(), split.x_N[..., 4:28, 4:28])
    first, again, later = (split.crops(slice(0, 4), seed=0, epoch=epoch) for epoch in (0, 0, 1))
    assert first.shape == (4, 1, 24, 24)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    alone = split.crops(torch.tensor([2]), seed=0, epoch=0)
    assert torch.equal(alone[0], first[2])


def test_pixels_of_8_and_16_bits(tmp_path):
    wide = np.array([[0, 256, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "16.png")
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.array([[[9, 1, 2]]], np.uint8)).save(tmp_path / "rgb.png")
    assert read_grey(tmp_path / "16.png").tolist() == [[0, 1, 255]]
    assert read_grey(tmp_path / "8.png").tolist() == [[0, 1, 255]]
    assert read_grey(tmp_path / "rgb.png").tolist() == [[9]]


def test_equalising_makes_brightness_uniform():
    skewed = SOURCE.exponential(size=(64, 64))
    flat = preprocess(skewed, 64)
    assert flat.min() >= -1
    assert flat.max() == 1
    counts, _ = np.histogram(preprocess(SOURCE.normal(size=(128, 128)), 128), 8, (-1, 1))
    assert counts.min() > 0.8 * counts.mean()
    # Ranks are kept, and shares are those of the definition.
    tiny = np.array([[0.0, 0.0, 1.0, 3.0]])
    assert equalise(tiny, bins=3)[0].tolist() == pytest.approx([0.5, 0.5, 0.625, 1.0])


def test_cache_follows_files_and_settings(lungs, tmp_path):
    cache = tmp_path / "cache"
    first = load(lungs, "train", cache)
    assert load(lungs, "train", cache).digest == first.digest
    assert len(list(cache.iterdir())) == 1
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(lungs / "lungs" / "0.png")
    assert load(lungs, "train", cache).digest != first.digest
    load(lungs, "train", cache, size=30)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "no.csv"}, "can't be read"),
        ({"target": "fev"}, "no column 'fev'; it has: file, ratio, who"),
        ({"test": "no.txt"}, "can't be read"),
        ({"test": None}, "no row belongs to the split test"),
        ({"target": "who"}, "row 7 has no number in 'who'"),
        ({"root": "nowhere"}, "can't be read"),
    ],
)
def test_what_is_wrong_is_said(lungs, changes, message):
    with pytest.raises(DataError, match=message):
        load(lungs, "test", **changes)


def test_missing_and_damaged_images_are_said(lungs, monkeypatch):
    (lungs / "lungs" / "7.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"7\.png can't be read"):
        load(lungs, "test")
    (lungs / "lungs" / "7.png").unlink()
    with pytest.raises(DataError, match=r"7\.png is missing"):
        load(lungs, "test")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match="pip install pydicom"):
        read_grey(lungs / "scan.dcm")


def test_imagenet_by_list(tmp_path):
    folder = tmp_path / "imagenet_5000"
    (folder / "val").mkdir(parents=True)
    colours = SOURCE.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "val" / "a b.png")
    Image.fromarray(colours).save(folder / "val" / "c.png")
    with pytest.raises(DataError, match="1 class folders instead of 1000"):
        load_study("imagenet", "test", root=tmp_path)
    (folder / "list.txt").write_text("val/c.png 7\nval/a b.png 999\n")
    split = load_study("imagenet", "test", root=tmp_path)
    assert split.y_N.tolist() == [7, 999]
    assert split.x_N.shape == (2, 3, 224, 224)
    assert split.images().min() >= -1
    x, _ = read_imagenet(folder, "Crop288", 1)
    assert np.array_equal(x[0].permute(1, 2, 0).numpy(), colours[6:294, 56:344])
    (folder / "list.txt").write_text("val/c.png 1000\n")
    with pytest.raises(DataError, match="line 1"):
        load_study("imagenet", "test", root=tmp_path)
    with pytest.raises(DataError, match="preprocessing is one of"):
        read_imagenet(folder, "Res224")
    with pytest.raises(DataError, match="only its list"):
        load_study("imagenet", "train", root=tmp_path)


def test_imagenet_by_folders(tmp_path):
    for number in range(1000):
        (tmp_path / f"n{number:08}").mkdir()
    for name in ("n00000003", "n00000999"):
        Image.fromarray(np.zeros((260, 256, 3), np.uint8)).save(tmp_path / name / "x.JPEG")
    x, y = read_imagenet(tmp_path)
    assert y.tolist() == [3, 999]
    assert x.shape == (2, 3, 224, 224)
