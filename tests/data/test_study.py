"""The study's data sets against the published numbers."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from robustray.alignment import alignment
from robustray.alignment.delta_x import nearest_other
from robustray.alignment.official import shuffled_split
from robustray.alignment.splits import load_study, to_signed
from robustray.alignment.synthetic import (
    SQUARES,
    SQUARES32,
    clean_square,
    draw_spheres,
    sphere_delta_x,
    square_delta_x,
    square_images,
)
from robustray.errors import DataError, UserError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_mnist = pytest.mark.skipif(
    not (DATA / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").exists(), reason="no MNIST here"
)


@pytest.mark.parametrize(
    ("split", "ones", "count"),
    [("train", 5026, 10_000), ("validation", 99, 200), ("test", 514, 1000)],
)
def test_squares_have_the_published_classes(split, ones, count):
    for first in range(3):  # the sizes are drawn before the noise, whatever the limit
        y_N = square_images(SQUARES32, split, first)["y"]
        assert len(y_N) == first
    y_N = load_study("squares32", split, limit=count).y_N if count < 10_000 else _labels()
    assert int(y_N.sum()) == ones


def _labels():
    y_N = load_study("squares32", "train").y_N
    assert y_N[:10].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1, 0]
    return y_N


@pytest.mark.parametrize(
    ("setting", "sides", "first", "ring", "norm"),
    [(SQUARES, (88, 142), (68, 41), 12420, 111.445), (SQUARES32, (12, 20), (10, 6), 256, 16.0)],
)
def test_geometry_of_squares(setting, sides, first, ring, norm):
    for label, side, start in zip((1, 0), sides, first, strict=True):
        bright = np.argwhere(clean_square(setting, label) > 0)
        assert len(bright) == side**2
        assert bright.min(0).tolist() == [start, start]
    delta = square_delta_x(setting, torch.tensor([0, 1]))
    assert delta.abs().sum((1, 2, 3)).tolist() == [ring, ring]
    assert delta.flatten(1).norm(dim=1).tolist() == pytest.approx([norm, norm], abs=5e-4)
    assert delta.sum((1, 2, 3)).tolist() == [-ring, ring]


def test_squares32_pixels_are_the_published_ones():
    test = load_study("squares32", "test")
    x = test.images().double()
    assert x.mean().item() == pytest.approx(-0.2391, abs=5e-5)
    assert x.std(correction=0).item() == pytest.approx(0.5008, abs=5e-5)
    assert x.abs().max() <= 1
    assert test.index_N[0].item() == 10_200
    clean = torch.stack(
        [torch.from_numpy(clean_square(SQUARES32, y)) for y in test.y_N[:9].tolist()]
    )
    noise = x[:9, 0] - clean
    assert noise.abs().max() <= 0.5 + 1e-6
    moved = test.images(slice(9)) + test.delta_x(slice(9))
    other = torch.stack(
        [torch.from_numpy(clean_square(SQUARES32, 1 - y)) for y in test.y_N[:9].tolist()]
    )
    torch.testing.assert_close((moved[:, 0].double() - other), noise, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_squares_pixels_are_the_published_ones():
    x = load_study("squares", "test").x_N.double()
    assert x.mean().item() == pytest.approx(-0.2260, abs=5e-5)
    assert x.std(correction=0).item() == pytest.approx(0.6700, abs=5e-5)
    assert (x.abs() > 1).double().mean().item() == pytest.approx(0.157, abs=5e-4)
    assert -6.6 < x.min() < -6.4
    assert 6.1 < x.max() < 6.3


def test_generating_leaves_the_global_state_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    square_images(SQUARES, "validation", 2)
    assert (np.random.get_state()[1] == before).all()


def test_squares_cache_says_what_it_was_made_from(tmp_path):
    made = load_study("squares32", "validation", cache=tmp_path, limit=20)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = load_study("squares32", "validation", cache=tmp_path, limit=20)
    assert made.digest == again.digest
    assert file.stat().st_mtime_ns == stamp
    load_study("squares32", "validation", cache=tmp_path, limit=21)
    (other,) = set(tmp_path.iterdir()) - {file}
    other.rename(file)
    with pytest.raises(DataError, match="was made from"):
        load_study("squares32", "validation", cache=tmp_path, limit=20)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="damaged"):
        load_study("squares32", "validation", cache=tmp_path, limit=21) if file.rename(
            other
        ) else None
    other.write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read"):
        load_study("squares32", "validation", cache=tmp_path, limit=21)


def test_spheres():
    x, y = draw_spheres(torch.arange(1000), seed=0, purpose="test")
    radius = x.double().norm(dim=1)
    torch.testing.assert_close(radius, torch.where(y == 0, 1.0, 1.3).double(), atol=1e-6, rtol=0)
    assert 420 < int(y.sum()) < 580
    delta = sphere_delta_x(x, y)
    torch.testing.assert_close(delta.norm(dim=1), torch.full((1000,), 0.3), atol=1e-6, rtol=0)
    torch.testing.assert_close((x + delta).norm(dim=1), torch.where(y == 0, 1.3, 1.0))
    # The gradient of the radius: alpha_x is |alpha|, and both are 1.
    assert alignment(x, delta).sign().tolist() == (1 - 2 * y).tolist()
    some, some_y = draw_spheres(torch.tensor([7, 3]), seed=0, purpose="test")
    assert torch.equal(some, x[[7, 3]])
    assert torch.equal(some_y, y[[7, 3]])
    other, _ = draw_spheres(torch.arange(1000), seed=0, purpose="train")
    assert (other * x).sum(1).abs().max() < 0.5
    split = load_study("spheres", "test")
    assert len(split) == 1000
    assert torch.equal(split.images(), x)


def test_published_first_validation_indices():
    assert shuffled_split(60_000, "validation")[:5].tolist() == [3048, 19563, 58303, 8870, 40228]
    cifar = shuffled_split(50_000, "validation")
    assert cifar[:5].tolist() == [11841, 19602, 45519, 25747, 42642]
    assert len(cifar) == 5000
    assert sorted([*cifar, *shuffled_split(50_000, "train")]) == list(range(50_000))


@needs_mnist
def test_mnist_splits():
    validation = load_study("mnist", "validation", root=DATA)
    assert validation.index_N[:5].tolist() == [3048, 19563, 58303, 8870, 40228]
    assert len(validation) == 6000
    test = load_study("mnist", "test", root=DATA, limit=10)
    assert test.index_N.tolist() == list(range(60_000, 60_010))
    assert test.y_N.tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    raw = gzip.decompress((DATA / "MNIST/raw/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    pixels = np.frombuffer(raw, np.uint8)[: 10 * 784].reshape(10, 1, 28, 28)
    expected = (torch.from_numpy(pixels.copy()).float() / 255 - 0.5) / 0.5
    assert torch.equal(test.images(), expected)
    assert test.label == "mnist test[:10]"


@needs_mnist
def test_mnist35_has_the_published_counts():
    counts = {
        split: load_study("mnist35", split, root=DATA) for split in ("train", "validation", "test")
    }
    assert {name: len(split) for name, split in counts.items()} == {
        "train": 10397, "validation": 1155, "test": 1902,
    }  # fmt: skip
    both = torch.cat([counts["train"].y_N, counts["validation"].y_N])
    assert [int((both == k).sum()) for k in (0, 1)] == [6131, 5421]
    assert [int((counts["test"].y_N == k).sum()) for k in (0, 1)] == [1010, 892]
    assert not set(counts["train"].index_N.tolist()) & set(counts["validation"].index_N.tolist())


def test_signed_pixels():
    x = to_signed(torch.tensor([0, 255, 51], dtype=torch.uint8))
    assert x.tolist() == pytest.approx([-1, 1, -0.6])


def test_what_is_not_there_is_said():
    with pytest.raises(UserError, match="unknown data set 'circles'"):
        load_study("circles", "test")
    with pytest.raises(DataError, match="split is one of"):
        load_study("squares", "val")
    with pytest.raises(DataError, match="there are 360"):
        load_study("digits", "test", limit=361)


def test_a_users_function_is_a_data_set_like_others():
    name = "tests.registry.test_data:few"
    train, test = (load_study(name, split, arguments={"size": 3}) for split in ("train", "test"))
    assert (train.num_classes, train.image_shape) == (3, (1, 3, 3))
    assert train.label == f"{name}(size=3) train"
    assert sorted(train.index_N.tolist()) == list(range(6))
    assert test.index_N.tolist() == [6, 7, 8]


def test_nearest_of_another_class():
    known = torch.tensor([[0.0, 0], [1, 0], [5, 5], [0, 2]])
    known_y = torch.tensor([0, 1, 2, 1])
    delta, row = nearest_other(torch.tensor([[0.0, 0.1]]), torch.tensor([0]), known, known_y)
    assert row.tolist() == [1]
    torch.testing.assert_close(delta, torch.tensor([[1, -0.1]]))
    x, y, wanted = torch.zeros(1, 2), torch.tensor([0]), torch.tensor([2])
    assert nearest_other(x, y, known, known_y, wanted)[1].item() == 2
    with pytest.raises(ValueError, match="no example"):
        nearest_other(x, y, known[:1], known_y[:1])
