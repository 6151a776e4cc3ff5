"""Tensors in files come back as they were, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.errors import CorruptObjectError
from robustray.store import load_tensors, save_tensors, sha256_file
from robustray.store.tensors import load_metadata

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(
    specs=st.dictionaries(st.text(max_size=10), st.tuples(SHAPES, st.sampled_from(DTYPES))),
    note=st.text(max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, specs: dict, note: str) -> None:
    specs.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("t") / "x"
    tensors = {name: torch.randn(shape).mul(99).to(dtype) for name, (shape, dtype) in specs.items()}
    sha256, size = save_tensors(tensors, path, {"note": note})
    assert (sha256, size) == (sha256_file(path), path.stat().st_size)
    loaded = load_tensors(path, sha256)
    assert load_metadata(path) == {"note": note}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_views_transposes_and_shared_memory_are_stored_whole(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    tensors = {"base": base, "same": base, "row": base[1], "t": base.T, "last": base[:, 1:2]}
    sha256, _ = save_tensors(tensors, tmp_path / "f")
    for name, tensor in load_tensors(tmp_path / "f", sha256).items():
        assert torch.equal(tensor, tensors[name])


def test_loaded_tensors_outlive_their_file(tmp_path: Path) -> None:
    save_tensors({"w": torch.ones(1000)}, tmp_path / "f")
    loaded = load_tensors(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"")
    assert loaded["w"].sum() == 1000


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    metadata = {"z": 1, "y": 2, "x": [3.5], "w": None}
    tensors = {name: torch.ones(2) for name in "bacd"}
    backwards = dict(reversed(tensors.items()))
    written = {save_tensors(tensors, tmp_path / "f", metadata) for _ in range(20)}
    assert written == {save_tensors(backwards, tmp_path / "f", dict(reversed(metadata.items())))}


def test_a_flipped_bit_is_noticed_before_use(tmp_path: Path) -> None:
    path = tmp_path / "f"
    sha256, size = save_tensors({"w": torch.ones(100)}, path)
    good = path.read_bytes()
    for position in (0, 9, size // 2, size - 1):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        with pytest.raises(CorruptObjectError, match="SHA-256"):
            load_tensors(path, sha256)
    path.write_bytes(good[:-1])
    with pytest.raises(CorruptObjectError, match="not a safetensors file"):
        load_tensors(path)
