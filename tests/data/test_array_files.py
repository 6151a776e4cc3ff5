"""Data sets of users in ``.npz`` and ``.npy`` files, in all layouts."""

import numpy as np
import pytest
import torch

from robustray.data import describe, load_dataset
from robustray.errors import DataError
from robustray.manifest.job import DataConfig
from tests.helpers.image_sets import pixels

X, Y = pixels(9, 6, 5, 3), np.arange(9) % 4
LAYOUTS = {
    "NHWC": X,
    "NCHW": X.transpose(0, 3, 1, 2),
    "fortran": np.asfortranarray(X),
    "one channel last": X[..., :1],
    "one channel first": X[..., 0][:, None],
    "no channel": X[..., 0],
}


def config(**arguments):
    given = {"name": "npz", "validation": 2, "arguments": arguments}
    return DataConfig.model_validate(given)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_in_every_layout(tmp_path, layout, save):
    x = LAYOUTS[layout]
    save(tmp_path / "a.npz", images=x, labels=Y, note=np.array([object()]))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", Y[:, None].astype(np.uint8))
    expected = torch.from_numpy(X if x.shape[-1] == 3 or x.shape[1] == 3 else X[..., :1].copy())
    for arguments in (
        {"train": "a.npz", "test": "a.npz"},
        {"train": "x.npy", "train_labels": "y.npy", "test": "a.npz"},
    ):
        data = load_dataset(config(**arguments), tmp_path)
        assert torch.equal(data.test.x_NCHW, expected.permute(0, 3, 1, 2))
        assert data.test.y_N.tolist() == Y.tolist()
        assert data.num_classes == 4
        assert not data.train.is_in_memory
        for split in (data.train, data.validation):
            assert torch.equal(split.x_NCHW, expected.permute(0, 3, 1, 2)[split.index_N])
            assert split.digest == split.load().digest


def test_names_of_arrays(tmp_path):
    both = {"x_train": X, "y_train": Y, "x_test": X[:3], "y_test": Y[:3]}
    np.savez(tmp_path / "both.npz", **both)
    data = load_dataset(config(train="both.npz", test="both.npz"), tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 2, 3)
    np.savez(tmp_path / "plain.npz", X, Y)
    assert describe(config(test="plain.npz"), tmp_path, ("test",)).test == 9
    np.savez(tmp_path / "own.npz", pictures=X, kinds=Y)
    named = config(test="own.npz", images="pictures", labels="kinds", num_classes=7)
    assert describe(named, tmp_path, ("test",)).num_classes == 7


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": X}, r"has no array y_test or labels or .*, but images; name it in"),
        ({"other": X, "labels": Y}, r"has no array x_test or images .*data\.arguments\.images"),
        ({"images": X / 255, "labels": Y}, r"images are float64 \(9, 6, 5, 3\), not uint8"),
        ({"images": X[:, :, :, [0, 1]], "labels": Y}, "with 1 or 3 channels"),
        ({"images": X[0], "labels": Y[:5]}, r"its labels are int64 \(5,\), not 6 whole numbers"),
        ({"images": X, "labels": Y / 2}, "its labels are float64"),
        ({"images": X, "labels": -Y}, "classes count from 0"),
        ({"images": X / 255, "labels": Y}, r"Pixels in \[0, 1\] become bytes by \(255 \* images"),
        ({"images": X[:0], "labels": Y[:0]}, r"images are uint8 \(0, 6, 5, 3\)"),
        ({"images": np.array([object()]), "labels": Y}, "no file of plain arrays.*objects"),
    ],
)
def test_what_a_file_may_not_hold(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words) as caught:
        describe(config(test="a.npz"), tmp_path, ("test",))
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(DataError, match=r"a\.npz is missing; put it there or set ROBUSTRAY_DATA"):
        describe(config(test="a.npz"), tmp_path)
    with pytest.raises(DataError, match="give train or test"):
        describe(config(), tmp_path)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match=r"data\.arguments\.test_labels: name the file"):
        describe(config(test="x.npy"), tmp_path)
    whole = (tmp_path / "x.npy").read_bytes()
    for content in (b"", b"no array", whole[:-1], whole + b"1"):
        (tmp_path / "y.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"y\.npy is no file of plain arrays"):
            describe(config(test="x.npy", test_labels="y.npy"), tmp_path)
    np.savez(tmp_path / "a.npz", images=X, labels=Y)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a\.npz is no file of plain arrays"):
        describe(config(test="a.npz"), tmp_path)
