"""Files that may say anything: only the documented errors, soon, and in a bounded memory."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustray.data.extra import read_extra
from robustray.data.formats import pickles
from robustray.data.readers import read_cifar, read_mnist
from robustray.errors import DataError
from robustray.manifest.job import ExtraData
from robustray.models import WeightsError, load_weights
from tests.helpers.official_files import cifar_record, gzipped_idx, idx, python2_pickle

SECONDS = 2
MEMORY = 400 << 20


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def torch_file(legacy: bool) -> bytes:
    buffer = io.BytesIO()
    content = {"state_dict": network().state_dict(), "epoch": 3, "best": torch.ones(2).double()}
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def npz_file(compressed: bool, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def images() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(240, dtype=np.uint8).reshape(4, 4, 5, 3), np.arange(4)


STATE = {name: tensor.numpy() for name, tensor in network().state_dict().items()}
X, Y = images()
VALID: dict[str, tuple[bytes, ...]] = {
    "weights": (
        torch_file(False), torch_file(True), npz_file(False, **STATE), npz_file(True, **STATE),
        safetensors.torch.save(network().state_dict()),
    ),
    "cifar": (python2_pickle(cifar_record(2)), pickle.dumps(cifar_record(2), 4)),
    "mnist": (gzipped_idx(X[..., 0]), idx(X[..., 0]), idx(Y.astype(np.uint8))),
    "extra.npz": (npz_file(False, image=X, label=Y), npz_file(True, image=X, label=Y)),
    "extra.pickle": tuple(
        pickle.dumps({"data": X, "extrapolated_targets": Y}, protocol) for protocol in (2, 4)
    ),
}  # fmt: skip


def read(kind: str, content: bytes, folder: Path) -> None:
    """Read a file of a kind; errors that users may see are none here."""
    path = folder / (kind if kind.startswith("extra") else "file")
    path.write_bytes(content)
    started, said = time.process_time(), "nothing wrong"
    try:
        call(kind, path)
    except (WeightsError, DataError) as error:
        said = str(error)
    assert said.rstrip(": ") == said != ""
    assert time.process_time() - started < SECONDS


def call(kind: str, path: Path) -> None:
    """Read a file as its kind is read."""
    if kind == "weights":
        load_weights(network(), path)
    elif kind == "cifar":
        read_cifar([path.read_bytes()], b"labels")
    elif kind == "mnist":
        read_mnist([path.read_bytes(), idx(np.zeros(4, np.uint8))])
    else:
        read_extra(ExtraData(file=path.name), path.parent, (3, 4, 5), 10, 0)


def spliced(content: bytes, edits: list[tuple[int, bytes, bool]], cut: int | None) -> bytes:
    """Replace or insert bytes at places (modulo the length), and cut the end off."""
    for place, new, replaces in edits:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + len(new) * replaces :]
    return content if cut is None else content[: cut % (len(content) + 1)]


# Numbers that claim much, opcodes of pickles, and a few bytes of anything.
INTERESTING = st.sampled_from(
    [b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", struct.pack("<q", 1 << 50), b"\x00" * 8,
     b"\x8e" + struct.pack("<Q", 1 << 40), b"\x96" + struct.pack("<Q", 1 << 33),
     b"r\xff\xff\xff\x7f", b"2", b"R", b"b", b"u", b"Q", b"0", b".", b"(", b"t", b"c", b"PK\3\4"]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 14), INTERESTING | st.binary(max_size=3), st.booleans()),
    max_size=4,
)


@pytest.mark.parametrize("kind", VALID)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damaged_files_give_documented_errors_only(kind, tmp_path, data):
    content = data.draw(st.sampled_from(VALID[kind]))
    edits = data.draw(EDITS)
    cut = data.draw(st.none() | st.integers(0, 1 << 14))
    read(kind, spliced(content, edits, cut), tmp_path)


@pytest.mark.parametrize("kind", VALID)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=st.binary(max_size=200), pieces=st.lists(INTERESTING, max_size=20))
def test_bytes_of_anything_give_documented_errors_only(kind, tmp_path, content, pieces):
    for start in (b"", b"\x80\x02", b"PK\3\4", b"\x1f\x8b", b"\0\0\x08\x03"):
        read(kind, start + content + b"".join(pieces), tmp_path)


def zipped(name: str, content: bytes, claim: int) -> bytes:
    """Return a zip archive with a member whose head says that it unpacks to so many bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    there, said = (struct.pack("<I", size) for size in (len(content), claim))
    return buffer.getvalue().replace(there + struct.pack("<H", len(name)),
                                     said + struct.pack("<H", len(name)))  # fmt: skip


def deflated(name: str, start: bytes, size: int) -> bytes:
    """Return a zip archive of a few bytes that does unpack to many."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as file,
    ):
        file.write(start)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return buffer.getvalue()


def npy_head(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def torch_claim(numel: int, size: int, stride: int) -> bytes:
    """Return a zip of torch.save whose pickle claims more than its storage of 16 bytes has."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(4, dtype=torch.float32)}, buffer)
    changed = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                many, one = (b"\x8a\x08" + struct.pack("<q", n) for n in (numel, size))
                step = b"\x8a\x08" + struct.pack("<q", stride)
                content = content.replace(b"K\x04tq", many + b"tq", 1)
                content = content.replace(b"K\x00K\x04\x85", b"K\x00" + one + b"\x85", 1)
                content = content.replace(b"K\x01\x85", step + b"\x85", 1)
            new.writestr(name, content)
    return changed.getvalue()


CROWD = b"\x80\x02" + b"]q\x00" * 3 + b"r\xff\xff\xff\x7f."
GIB = 3 << 30
BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "npz": ("weights", lambda: deflated("a.npy", npy_head("(314572800,)"), 300 << 20), "unpack to"),
    "npz claim": ("weights", lambda: zipped("a.npy", npy_head(f"({GIB},)"), GIB), "unpack to"),
    "npy": ("weights", lambda: zipped("a.npy", npy_head("(1125899906842624,)"), 128), "elements"),
    "zip": ("weights", lambda: zipped("archive/data.pkl", b"1" * 99, GIB), "unpack to"),
    "storage": ("weights", lambda: torch_claim(1 << 50, 4, 1), "claims 4503599627370496 bytes"),
    "shape": ("weights", lambda: torch_claim(4, 1 << 50, 1), "its storage has 4"),
    "stride": ("weights", lambda: torch_claim(4, 1 << 50, 0), "its storage has 4"),
    "head": ("weights", lambda: struct.pack("<Q", 1 << 50) + b"{}", "damaged"),
    "pickle": ("cifar", lambda: b"\x80\x02\x8e" + struct.pack("<Q", 1 << 40), "announces 10995116"),
    "array": ("cifar", lambda: b"\x80\x05\x96" + struct.pack("<Q", 1 << 33), "announces 85899345"),
    "memo": ("cifar", lambda: b"\x80\x02]r\xff\xff\xff\x7f.", "a list instead of a dict"),
    "depth": ("cifar", lambda: b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "key of a mapping"),
    "gzip": ("mnist", lambda: gzip.compress(idx(X[..., 0]) + bytes(1 << 28), 1), "more than"),
    "idx": ("mnist", lambda: gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "at most"),
    "extra": ("extra.npz", lambda: zipped("image.npy", npy_head("(9,)"), GIB), "unpack to"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_claims_much_is_refused_in_time_and_memory(name, tmp_path):
    kind, make, words = BOMBS[name]
    path = tmp_path / kind
    path.write_bytes(make())
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises((WeightsError, DataError), match=words):
            call(kind, path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    traced = 10  # a traced process is slow
    assert time.process_time() - started < traced * SECONDS


def test_a_pickle_has_so_many_steps_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "_STEPS", 1000)
    (tmp_path / "file").write_bytes(b"\x80\x02" + b"N0" * 500 + b".")
    with pytest.raises(DataError, match="more than 1000 steps"):
        call("cifar", tmp_path / "file")


def test_long_lists_beside_the_weights_are_no_hindrance(tmp_path):
    torch.save({"net": network().state_dict(), "hits": [True] * 1_010_000}, tmp_path / "file")
    load_weights(network(), tmp_path / "file")


def test_bombs_are_refused_by_a_process_with_little_memory(tmp_path):
    """No allocation that Python does not trace goes beyond the bound either."""
    for name, (kind, make, _) in BOMBS.items():
        if kind == "weights":
            (tmp_path / name).write_bytes(make())
    code = """
        import resource, sys
        from pathlib import Path
        import torch
        from robustray.models import WeightsError, load_weights
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                load_weights(torch.nn.Conv2d(3, 4, 3), path)
            except WeightsError as error:
                print("refused", path.name, "memory" in str(error).lower())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.split("\n")[:-1] == [
        f"refused {path.name} False" for path in sorted(tmp_path.iterdir())
    ]
