"""Files of pseudo-labelled images: what is read, and that nothing in them is ever run."""

import hashlib
import os
import pickle

import numpy as np
import pytest
import torch

from robustray.data import describe, load_dataset
from robustray.data.extra import read_extra
from robustray.errors import DataError
from robustray.manifest.job import DataConfig, ExtraData
from tests.helpers.official_files import Bomb

SHAPE = (3, 4, 5)


def images(count=6):
    source = np.random.default_rng(0)
    x = source.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    return x, source.integers(0, 10, count)


def read(folder, file, **options):
    return read_extra(ExtraData(file=file, **options), folder, SHAPE, 10, 50_000)


def write_pickle(path, record, protocol=4):
    path.write_bytes(pickle.dumps(record, protocol))


def test_npz_and_pickle_give_the_same_images(tmp_path):
    x, y = images()
    np.savez(tmp_path / "a.npz", image=x, label=y)
    write_pickle(tmp_path / "a.pickle", {"data": x, "extrapolated_targets": y, "note": "published"})
    write_pickle(tmp_path / "b.pickle", {b"data": x, b"extrapolated_targets": y.tolist()}, 3)
    splits = [read(tmp_path, name) for name in ("a.npz", "a.pickle", "b.pickle")]
    assert len({split.digest for split in splits}) == 1
    assert torch.equal(splits[0].x_NCHW, torch.from_numpy(x).permute(0, 3, 1, 2))
    assert torch.equal(splits[0].y_N, torch.from_numpy(y))
    assert splits[0].index_N.tolist() == list(range(50_000, 50_006))


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_labels_of_any_common_integer_type(tmp_path, kind):
    x, y = images()
    write_pickle(tmp_path / "a.pickle", {"data": x, "extrapolated_targets": y.astype(kind)})
    assert read(tmp_path, "a.pickle").y_N.tolist() == y.tolist()


def test_a_limit_takes_the_first_images(tmp_path):
    x, y = images()
    np.savez(tmp_path / "a.npz", image=x, label=y)
    assert read(tmp_path, "a.npz", limit=4).y_N.tolist() == y[:4].tolist()
    with pytest.raises(DataError, match=r"limit is 7.* has 6 images"):
        read(tmp_path, "a.npz", limit=7)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused(tmp_path, protocol):
    mark = tmp_path / "mark"
    bomb = Bomb(os.mkdir, str(mark))
    write_pickle(tmp_path / "a.pickle", {"data": bomb, "extrapolated_targets": [1]}, protocol)
    with pytest.raises(DataError, match=r"refused.*Nothing was run; write it as npz with image"):
        read(tmp_path, "a.pickle")
    assert not mark.exists()


def test_an_npz_with_objects_inside_is_refused(tmp_path):
    mark = tmp_path / "mark"
    objects = np.empty(1, object)
    objects[0] = Bomb(os.mkdir, str(mark))
    np.savez(tmp_path / "a.npz", image=objects, label=np.zeros(1, int))
    with pytest.raises(DataError, match="not an npz of plain arrays"):
        read(tmp_path, "a.npz")
    assert not mark.exists()


def test_a_pickle_that_is_named_npz_is_refused(tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "a.npz").write_bytes(pickle.dumps(Bomb(os.mkdir, str(mark))))
    with pytest.raises(DataError, match="not an npz"):
        read(tmp_path, "a.npz")
    assert not mark.exists()


def wrong_records():
    x, y = images()
    return {
        "has no label": {"image": x},
        "has no image and no label": {"x": x},
        r"float64 \(6, 4, 5, 3\), not uint8 \(N, 4, 5, 3\)": {"image": x / 255, "label": y},
        r"not uint8 \(N, 4, 5, 3\)": {"image": x.transpose(0, 3, 1, 2), "label": y},
        "integer label for each": {"image": x, "label": y[:5]},
        "an integer label": {"image": x, "label": y.astype(float)},
        r"in \[-1, 9\], not \[0, 10\)": {"image": x, "label": np.array([-1, 9, 0, 0, 0, 0])},
        "label for each image, and": {"image": x[:0], "label": y[:0]},
    }


@pytest.mark.parametrize("message", wrong_records())
def test_other_content_is_refused(tmp_path, message):
    np.savez(tmp_path / "a.npz", **wrong_records()[message])
    with pytest.raises(DataError, match=message):
        read(tmp_path, "a.npz")


def test_missing_and_changed_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.npz is missing.*ROBUSTRAY_DATA"):
        read(tmp_path, "a.npz")
    x, y = images()
    np.savez(tmp_path / "a.npz", image=x, label=y)
    digest = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    assert len(read(tmp_path, "a.npz", sha256=digest)) == 6
    with pytest.raises(DataError, match=f"has sha256 {digest}, not {'0' * 64}"):
        read(tmp_path, "a.npz", sha256="0" * 64)


def test_a_data_set_with_extra_images(tmp_path):
    source = np.random.default_rng(1)
    x = source.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "more.npz", image=x, label=source.integers(0, 10, 20))
    plain = DataConfig(name="digits", validation=137)
    config = DataConfig(name="digits", validation=137, extra=ExtraData(file="more.npz", limit=15))
    assert describe(config).label == "digits validation=137 + more[:15]"
    data, without = load_dataset(config, tmp_path), load_dataset(plain, tmp_path)
    assert len(data.extra) == 15
    assert data.train.digest == without.train.digest
    assert data.digest != without.digest
    assert without.extra is None
    assert data.extra.index_N.min() == 1437, "positions after the official ones"
    assert load_dataset(config, tmp_path, ("test",)).digest == (
        load_dataset(plain, tmp_path, ("test",)).digest
    )
    assert data.to("meta").extra is data.extra, "images in files are moved batch by batch"
