"""Data sets that users bring: functions, and folders of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from robustray.data import describe, load_dataset
from robustray.errors import UserError
from robustray.manifest import DataConfig, JudgedData, ManifestError, build_manifest

HERE = "tests.registry.test_data:"


def few(split: str, *, wrong: str = "", size: int = 4):
    """Six images to train on and three to test, of classes that have names."""
    count = {"train": 6, "test": 3}[split]
    images = np.arange(count * size * size, dtype=np.uint8).reshape(count, size, size, 1)
    labels = np.array(["cat", "dog", "cow"] * 2)[:count]
    return {
        "pair": images,
        "floats": (images / 255, labels),
        "labels": (images, labels[:1]),
        "negative": (images, -np.ones(count, int)),
        "shapes": (images[:, : 2 if split == "test" else 4], labels),
        "numbers": (images, labels if split == "test" else np.arange(count)),
    }.get(wrong, (images, labels))


def config(**fields) -> DataConfig:
    return DataConfig.model_validate({"name": f"{HERE}few", "validation": 2} | fields)


def test_a_function_is_a_data_set():
    facts = describe(config())
    assert (facts.image_shape, facts.num_classes, facts.test) == ((1, 4, 4), 3, 3)
    assert facts.class_names == ("cat", "cow", "dog")
    data = load_dataset(config())
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 2, 3)
    assert data.test.y_N.tolist() == [0, 2, 1]
    assert data.test.x_NCHW[1, 0, 0].tolist() == [16, 17, 18, 19]
    other = load_dataset(config(arguments={"size": 3}))
    assert other.digest != data.digest
    assert other.label == f"{HERE}few(size=3) validation=2"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("pair", "a ndarray, not a pair of images and labels"),
        ("floats", r"images are float64 \(6, 4, 4, 1\), not uint8 \(N, H, W, C\)"),
        ("labels", r"labels are <U3 \(1,\), not 6 numbers or names of classes"),
        ("negative", "the smallest label is -1; classes count from 0"),
        ("shapes", "images of train and test differ"),
        ("numbers", "some are names, and others are numbers"),
    ],
)
def test_what_a_function_may_not_return(wrong, words):
    with pytest.raises(UserError, match=words):
        describe(config(arguments={"wrong": wrong}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "cifar11"}, r"data\.name: unknown data set 'cifar11'; did you mean 'cifar10'"),
        ({"name": "cifar10", "arguments": {"size": 3}}, r"data\.arguments\.size: unknown key"),
        ({"name": "folder"}, r"data\.arguments\.path: is missing"),
    ],
)
def test_what_a_manifest_may_not_say(data, words):
    with pytest.raises(ManifestError, match=words):
        build_manifest({"kind": "Sweep", "name": "x", "data": data})


def test_arguments_of_a_function_are_checked():
    with pytest.raises(ManifestError, match=r"data\.arguments\.sise: .*did you mean 'size'"):
        describe(config(arguments={"sise": 3}))


@pytest.fixture
def pictures(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for name, grey in (("dark", 20), ("light", 200)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((6, 6, 3), grey + number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_a_folder_of_images_is_a_data_set(pictures):
    wanted = config(name="folder", arguments={"path": "photos"})
    facts = describe(wanted, pictures)
    assert (facts.image_shape, facts.class_names) == ((3, 6, 6), ("dark", "light"))
    data = load_dataset(wanted, pictures)
    assert data.test.y_N.tolist() == [0, 0, 1, 1]
    assert torch.equal(data.test.x_NCHW[:, 0, 0, 0], torch.tensor([20, 21, 200, 201]).byte())
    small = config(name="folder", arguments={"path": "photos", "size": 3})
    assert describe(small, pictures).image_shape == (3, 3, 3)


def test_images_of_a_folder_have_one_size(pictures):
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(pictures / "photos/test/dark/9.png")
    with pytest.raises(UserError, match=r"9\.png is of \(6, 5\) .*data\.arguments\.size"):
        load_dataset(config(name="folder", arguments={"path": "photos"}), pictures)
    with pytest.raises(UserError, match="no images"):
        describe(config(name="folder", arguments={"path": "nothing"}), pictures)


def test_judged_images_may_be_a_users():
    assert JudgedData(name=f"{HERE}few", arguments={"size": 3}).name == f"{HERE}few"
