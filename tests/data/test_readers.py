import builtins
import gzip
import os
import pickle
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.data.readers import read_cifar, read_digits, read_mnist, unpickle_arrays
from robustray.errors import DataError
from tests.helpers.official_files import bomb, cifar_record, gzipped_idx, idx, python2_pickle


@pytest.mark.parametrize("key", [b"labels", b"fine_labels"])
def test_cifar_batches_of_python_2(key):
    record = cifar_record(7, key)
    arrays = read_cifar([python2_pickle(record)], key)
    assert isinstance(arrays.x_NCHW, np.ndarray)
    assert arrays.x_NCHW.shape == (7, 3, 32, 32)
    assert arrays.x_NCHW.dtype == np.uint8
    red, green, blue = np.split(record[b"data"][4], 3)
    assert np.array_equal(arrays.x_NCHW[4, 0], red.reshape(32, 32))  # rows of 32, plane by plane
    assert np.array_equal(arrays.x_NCHW[4, 1], green.reshape(32, 32))
    assert np.array_equal(arrays.x_NCHW[4, 2], blue.reshape(32, 32))
    assert arrays.y_N.tolist() == record[key]
    assert arrays.y_N.dtype == arrays.index_N.dtype == np.int64
    assert arrays.index_N.tolist() == list(range(7))


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickles_of_python_3_with_numpy_2(protocol):
    record = cifar_record()
    arrays = read_cifar([pickle.dumps(record, protocol)], b"labels")
    assert np.array_equal(np.asarray(arrays.x_NCHW).reshape(5, -1), record[b"data"])


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused(tmp_path, protocol):
    mark = tmp_path / "mark"
    for function, args in (
        (os.system, (f"touch {mark}",)),
        (builtins.eval, (f"open({str(mark)!r}, 'w')",)),
        (subprocess.Popen, (["touch", str(mark)],)),
        (os.mkdir, (str(mark),)),
    ):
        blob = bomb(function, *args, protocol=protocol)
        with pytest.raises(DataError, match="refused"):
            unpickle_arrays(blob)
        assert not mark.exists()
    pickle.loads(blob)  # noqa: S301 - the bomb is real
    assert mark.exists()


def test_names_inside_allowed_modules_are_refused():
    for name in (b"cnumpy\nload\n", b"cnumpy.core.multiarray\nscalar\n", b"cbuiltins\ngetattr\n"):
        with pytest.raises(DataError, match="refused"):
            unpickle_arrays(b"\x80\x02" + name + b".")
    for nested in (b"\x80\x04\x8c\x05numpy\x8c\x0bdtype.names\x93.", b"Pid\n."):
        with pytest.raises(DataError):
            unpickle_arrays(nested)


def test_arrays_of_other_types_are_refused():
    for array in (np.array([{}]), np.zeros(3), np.array(["a"])):
        with pytest.raises(DataError, match="another type than uint8, int32, int64"):
            unpickle_arrays(pickle.dumps({b"data": array}, 3))


def test_an_array_larger_than_its_bytes_is_refused():
    record = python2_pickle({b"data": np.arange(6, dtype=np.uint8).reshape(2, 3)})
    larger = record.replace(b"J\x02\x00\x00\x00J\x03", b"J\x02\x00\x00\x00J\x7f", 1)
    assert larger != record
    with pytest.raises(DataError, match="shape"):
        unpickle_arrays(larger)


@given(position=st.integers(0, 600), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=300, deadline=None)
def test_damaged_pickles_give_data_errors_only(position, value, cut):
    blob = bytearray(python2_pickle({b"data": np.zeros((1, 400), np.uint8), b"labels": [1]}))
    position %= len(blob)
    blob[position] = value
    try:
        record = unpickle_arrays(bytes(blob[:position] if cut else blob))
    except DataError:
        return
    assert isinstance(record, dict)


@pytest.mark.parametrize(
    "record",
    [
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 2]},
        {b"data": [1, 2], b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, None]},
    ],
)
def test_other_records_are_no_cifar_batches(record):
    with pytest.raises(DataError, match="not a CIFAR batch"):
        read_cifar([pickle.dumps(record, 3)], b"labels")
    with pytest.raises(DataError, match="list instead of a dict"):
        read_cifar([pickle.dumps([1])], b"labels")


def test_mnist_pairs():
    x = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    y = np.array([3, 1, 4, 1], np.uint8)
    arrays = read_mnist([gzipped_idx(x), gzipped_idx(y)])
    assert np.array_equal(arrays.x_NCHW, x[:, None])
    assert arrays.y_N.tolist() == [3, 1, 4, 1]
    assert arrays.y_N.dtype == np.int64
    with pytest.raises(DataError, match="pair"):
        read_mnist([gzipped_idx(x), gzipped_idx(y[:3])])
    with pytest.raises(DataError, match="pair"):
        read_mnist([gzipped_idx(y), gzipped_idx(y)])


def test_damaged_idx_files():
    x, y = np.zeros((4, 28, 28), np.uint8), gzipped_idx(np.zeros(4, np.uint8))
    whole = gzipped_idx(x)
    for cut in (0, 5, 20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DataError, match=r"gzip|idx"):
            read_mnist([whole[:cut], y])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    with pytest.raises(DataError, match="gzip"):
        read_mnist([bytes(flipped), y])
    for content in (b"", b"\0\0\x08", idx(x, kind=13), idx(x)[:6], idx(x)[:-1], idx(x) + b"\0"):
        with pytest.raises(DataError, match="idx"):
            read_mnist([gzip.compress(content), y])


def test_digits_are_split_once_and_for_all():
    train, test = read_digits([], "train"), read_digits([], "test")
    assert (len(train.y_N), len(test.y_N)) == (1437, 360)
    assert set(train.index_N) | set(test.index_N) == set(range(1797))
    assert test.index_N[:5].tolist() == [5, 7, 11, 17, 19]
    assert test.y_N[:5].tolist() == [5, 7, 1, 7, 9]
    assert np.bincount(test.y_N).min() >= 30  # not balanced, but no class is missing
    values = np.unique(np.concatenate([np.asarray(part.x_NCHW) for part in (train, test)]))
    assert values.tolist() == [round(v * 255 / 16) for v in range(17)]
