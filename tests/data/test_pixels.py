"""Images in files are the same as in memory; resizing and cutting is what torchvision does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from robustray.data import EpochBatches, Split, eval_batches
from robustray.data.formats.image_files import ImageFiles
from robustray.data.pixels import Pixels, read_ahead, transform_image
from robustray.errors import DataError
from robustray.manifest import ManifestError, build_manifest
from robustray.manifest.job import Transform
from robustray.manifest.recipe import Augmentation
from tests.helpers.image_sets import pixels, save

CUT = Transform(resize=14, crop=12, interpolation="bicubic")
KINDS = ("files", "files of one size", "mapped", "mapped and cut", "in memory and cut")
COUNT = 23


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Images that are read as batches need them, of every kind."""
    folder = tmp_path_factory.mktemp("pixels")
    names = [f"{number}.png" for number in range(COUNT)]
    for number, name in enumerate(names):
        save(folder / "any" / name, pixels(1, 12 + number % 5, 16 - number % 3, 3, seed=number)[0])
        save(folder / "one" / name, pixels(1, 9, 11, 3, seed=number)[0])
    np.save(folder / "x.npy", pixels(COUNT, 13, 15, 3))
    mapped = np.load(folder / "x.npy", mmap_mode="r").transpose(0, 3, 1, 2)
    found = (
        Pixels(ImageFiles(folder / "any", names), CUT),
        Pixels(ImageFiles(folder / "one", names)),
        Pixels(mapped),
        Pixels(mapped, CUT),
        Pixels(np.ascontiguousarray(mapped), CUT),
    )
    y_N = torch.arange(COUNT) % 7
    return {
        kind: Split(one, y_N, 50 + torch.arange(COUNT))
        for kind, one in zip(KINDS, found, strict=True)
    }


def epoch(split, *, start=0, number=1, mixed=False):
    options = {"cutmix": 0.5} if mixed else {"rotation": 15}
    augmentation = Augmentation.model_validate({"crop_padding": 2} | options)
    return EpochBatches(split, 5, augmentation, seed=3, epoch=number, start=start, num_classes=7)


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_same_images_in_memory(splits, kind):
    split = splits[kind]
    loaded = split.load()
    assert not split.is_in_memory
    assert loaded.is_in_memory
    assert split.image_shape == loaded.image_shape
    assert_same(eval_batches(split, 5), eval_batches(loaded, 5))
    for number in range(2):
        assert_same(epoch(split, number=number), epoch(loaded, number=number))


@pytest.mark.parametrize("kind", KINDS)
@given(start=st.integers(0, 5), rows=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=9))
@settings(max_examples=8, deadline=None)
def test_an_epoch_goes_on_from_any_step_and_rows_are_any(splits, kind, start, rows):
    split = splits[kind]
    assert_same(epoch(split, start=start), list(epoch(split.load()))[start:])
    chosen = torch.tensor(rows)
    assert torch.equal(split.select(chosen).x_NCHW, split.x_NCHW[chosen])
    again = split.select(slice(start, None, 2)).select(slice(1, 4))
    assert torch.equal(again.x_NCHW, split.x_NCHW[start::2][1:4])
    marked = split.y_N == start
    assert torch.equal(split.select(marked).index_N, split.index_N[marked])
    assert torch.equal(split.select(marked).x_NCHW, split.x_NCHW[marked])


def test_a_mapped_array_has_the_digest_of_its_copy(splits):
    split = splits["mapped"]
    assert split.digest == split.load().digest
    some = split.select(torch.tensor([4, 2, 2]))
    assert some.digest == some.load().digest
    assert len({splits[kind].digest for kind in KINDS}) == 4, "where pixels lie does not matter"
    assert splits["mapped and cut"].digest == splits["in memory and cut"].digest


def test_the_same_part_of_a_file_has_its_own_digest(tmp_path):
    """Views of one mapped file that have the same shape must not be taken for each other."""
    x = pixels(6, 4, 4, 3)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    zeros = torch.zeros(3, dtype=torch.int64)
    for view in (
        mapped[:3],
        mapped[3:],
        mapped[::2],
        mapped[::-2],
        mapped[:3].transpose(0, 2, 1, 3),
    ):
        split = Split(Pixels(view.transpose(0, 3, 1, 2)), zeros, torch.arange(3))
        assert split.digest == split.load().digest


SIDE = st.integers(1, 40)


@given(
    size=st.tuples(SIDE, SIDE),
    resize=st.one_of(st.none(), st.integers(1, 40), st.tuples(SIDE, SIDE)),
    crop=st.one_of(st.none(), st.integers(1, 40), st.tuples(SIDE, SIDE)),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
    grey=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_images_are_resized_and_cut_as_by_torchvision(size, resize, crop, interpolation, grey):
    given_ = {"resize": resize, "crop": crop, "interpolation": interpolation}
    try:
        transform = Transform.model_validate({k: v for k, v in given_.items() if v is not None}
                                             if resize is not None else {"crop": crop})  # fmt: skip
    except ValueError:  # nothing, or a cut that is larger
        return
    image = Image.fromarray(pixels(1, *size, *([] if grey else [3]), seed=sum(size))[0])
    steps = []
    if resize is not None:
        mode = InterpolationMode[interpolation.upper()]
        steps.append(Resize(resize, mode))
    steps.append(CenterCrop(transform.size))
    expected = np.asarray(Compose(steps)(image))
    assert np.array_equal(np.asarray(transform_image(image, transform)), expected)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ({}, "give resize, or crop, or both"),
        ({"crop": 8, "interpolation": "bicubic"}, "transform.interpolation: nothing is resized"),
        ({"resize": 8, "crop": 9}, "crop: 9 is larger than resize: 8"),
        ({"resize": 0}, r"transform\.resize: must be greater than or equal to 1"),
        ({"resize": 8, "interpolation": "cubic"}, r"transform\.interpolation: .*mean 'bicubic'"),
        ({"size": 8}, r"transform\.size: unknown key.*Allowed: resize, crop, interpolation"),
        ("models", "transform: must be 'model'.*did you mean 'model'"),
    ],
)
def test_what_no_transform_may_say(transform, words):
    data = {"name": "digits", "transform": transform}
    with pytest.raises(ManifestError, match=words):
        build_manifest({"kind": "Sweep", "name": "x", "data": data})


def test_channels_that_are_no_image(tmp_path):
    x_NCHW = pixels(2, 5, 8, 8)
    with pytest.raises(DataError, match="images have 5 channels, and only those of 1 or 3"):
        Pixels(x_NCHW, CUT)
    grey = Pixels(x_NCHW[:, :1], Transform(crop=4)).read()
    assert torch.equal(grey, torch.from_numpy(x_NCHW[:, :1, 2:6, 2:6]))
    with pytest.raises(DataError, match=r"data\.arguments\.size and data\.transform"):
        Pixels(ImageFiles(tmp_path, ["a"], size=4), CUT)


def test_what_fails_ahead_fails_in_its_turn():
    def read(step):
        if step == 3:
            raise DataError("step 3")
        return step

    found = read_ahead(read, range(9))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="step 3"):
        next(found)
