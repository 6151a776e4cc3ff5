"""TensorFlow's checkpoints: read whole, or refused with one clear message."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robustray.models import WeightsError, create_model, load_weights
from robustray.models.weights.tensor_bundle import read_bundle, read_index
from tests.helpers import tensor_bundles as bundles

REFERENCE = Path(__file__).parent / "reference"


@given(
    st.dictionaries(
        st.text("abc/_0", min_size=1, max_size=9),
        arrays.arrays(
            st.sampled_from(["<f4", "<f8", "<i4", "<i8"]),
            arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
            elements=st.integers(-5, 5),
        ),
        max_size=9,
    )
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("bundle")
    index = bundles.write(folder / "model-1", tensors)
    found = read_bundle(index)
    assert list(found) == sorted(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name].numpy(), array)
        assert found[name].numpy().dtype == array.dtype


@pytest.mark.parametrize("model", [1, 2])
def test_tensorflows_own_files_are_read_by_index_prefix_and_folder(model):
    folder = REFERENCE / f"model_{model}"
    found = read_bundle(folder / "checkpoint-0.index")
    assert len(found) == {1: 123, 2: 169}[model]
    network = create_model(f"robust_model_zoo_{model}", width=4)
    reports = [
        load_weights(network, path)
        for path in (folder, folder / "checkpoint-0", folder / "checkpoint-0.index")
    ]
    assert {report.sha256 for report in reports} == {reports[0].sha256}
    assert reports[0].format == "tensorflow"
    assert len(reports[0].matched) == len(found)


def sound(folder: Path) -> Path:
    tensors = {f"a/{n}": np.arange(n + 1, dtype="<f4") for n in range(7)}
    return bundles.write(folder / "m", tensors)


def test_a_folder_with_two_checkpoints_is_no_answer(tmp_path):
    sound(tmp_path)
    bundles.write(tmp_path / "n", {})
    with pytest.raises(WeightsError, match=r"several checkpoints; name one of m\.index, n\.index"):
        load_weights(create_model("robust_model_zoo_1", width=1), tmp_path)


def rewritten(folder: Path, entries: list[tuple[bytes, bytes]]) -> Path:
    index = sound(folder)
    index.write_bytes(bundles.table(entries))
    return index


ONE = np.ones(4, "<f4")
BAD_ENTRIES = {
    "no header": ([(b"a", bundles.entry(ONE, 0))], "no header"),
    "many shards": ([(b"", bundles.header(2**40))], "data files"),
    "big endian": ([(b"", bundles.header() + bundles.number(2, 1))], "big-endian"),
    "twice": (
        [(b"", bundles.header()), (b"a", bundles.entry(ONE, 0)), (b"a", bundles.entry(ONE, 0))],
        "twice",
    ),
    "unknown type": (
        [(b"", bundles.header()), (b"a", bundles.entry(ONE, 0, dtype=7))],
        "type 7",
    ),
    "huge shape": (
        [
            (b"", bundles.header()),
            (
                b"a",
                bundles.entry(ONE, 0, shape=bundles.nested(2, bundles.number(1, 2**62)) * 3),
            ),
        ],
        "shape",
    ),
    "beyond the file": (
        [(b"", bundles.header()), (b"a", bundles.entry(ONE, 2**50))],
        "cut off",
    ),
    "another shard": (
        [(b"", bundles.header()), (b"a", bundles.entry(ONE, 0, shard=3))],
        "data file 3 of 1",
    ),
    "overlap": (
        [
            (b"", bundles.header()),
            (b"a", bundles.entry(ONE, 0)),
            (b"b", bundles.entry(ONE, 8)),
        ],
        "same bytes",
    ),
    "checksum": (
        [(b"", bundles.header()), (b"a", bundles.entry(ONE, 0, crc=1))],
        "checksum of a",
    ),
    "sliced": (
        [(b"", bundles.header()), (b"a", bundles.entry(ONE, 0) + bundles.nested(7, b""))],
        "slices",
    ),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_malicious_entries_are_refused(tmp_path, name):
    entries, words = BAD_ENTRIES[name]
    with pytest.raises(WeightsError, match=words):
        read_bundle(rewritten(tmp_path, entries))


def test_a_compressed_block_is_refused(tmp_path):
    index = sound(tmp_path)
    entries = bundles.block([(b"", bundles.header())], kind=1)
    data = bytearray(bundles.table([(b"", bundles.header())]))
    data[: len(entries)] = entries
    index.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="compressed"):
        read_bundle(index)


def test_every_truncation_and_every_flipped_byte_of_an_index_is_refused(tmp_path):
    index = sound(tmp_path)
    whole, good = index.read_bytes(), read_index(index)
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_index(index)
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        index.write_bytes(bytes(flipped))
        with contextlib.suppress(WeightsError):
            assert read_index(index) == good  # the meta index and padding hold nothing


def test_every_flipped_byte_of_the_data_is_refused(tmp_path):
    index = sound(tmp_path)
    data = tmp_path / "m.data-00000-of-00001"
    whole = data.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        data.write_bytes(bytes(flipped))
        with pytest.raises(WeightsError, match="checksum"):
            read_bundle(index)
    data.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match="cut off"):
        read_bundle(index)
    data.unlink()
    with pytest.raises(WeightsError, match="is missing"):
        read_bundle(index)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_bytes_with_sound_checksums_are_refused_or_read(tmp_path_factory, junk, in_block):
    """Past the checksums, only WeightsError may come out."""
    folder = tmp_path_factory.mktemp("junk")
    index = sound(folder)
    if in_block:
        entries = [(b"", bundles.header()), (b"a", junk)]
        index.write_bytes(bundles.table(entries))
    else:
        index.write_bytes(junk + b"\0" * 40 + index.read_bytes()[-8:])
    with contextlib.suppress(WeightsError):
        read_bundle(index)


def fuzz(rounds: int, folder: Path, seed: int) -> tuple[int, int]:
    """Damage TensorFlow's own files at random; return how many were refused, and read equal."""
    rng, refused, equal = random.Random(seed), 0, 0
    source = REFERENCE / "model_2"
    good = read_bundle(source / "checkpoint-0.index")
    names = ["checkpoint-0.index", "checkpoint-0.data-00000-of-00001"]
    contents = {name: (source / name).read_bytes() for name in names}
    for name in names:
        shutil.copyfile(source / name, folder / name)
    for _ in range(rounds):
        name = names[rng.random() < 0.2]
        data = bytearray(contents[name])
        kind = rng.randrange(3)
        if kind == 0:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(rng.randrange(1, 9)):
                at = rng.randrange(len(data))
                data[at : at + (kind == 2)] = rng.randbytes(rng.randrange(1, 5))
        (folder / name).write_bytes(bytes(data))
        try:
            found = read_bundle(folder / "checkpoint-0.index")
            assert found.keys() == good.keys()
            assert all(found[key].equal(good[key]) for key in good)
            equal += 1
        except WeightsError:
            refused += 1
        (folder / name).write_bytes(contents[name])
    return refused, equal


def test_damaged_files_are_refused_or_read_the_same(tmp_path):
    refused, equal = fuzz(300, tmp_path, seed=0)
    assert refused + equal == 300
    assert refused > 200
