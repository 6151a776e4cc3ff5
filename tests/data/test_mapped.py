"""Extra images that stay in their file: the same images, verified once, shared by processes."""

import multiprocessing
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.data import EpochBatches, Split, extra
from robustray.data.extra import read_extra
from robustray.data.formats import mapped
from robustray.data.formats.file_facts import Facts
from robustray.data.pixels import Pixels
from robustray.errors import DataError
from robustray.manifest.job import ExtraData
from robustray.manifest.recipe import Augmentation, Mixture

SHAPE, FIRST = (3, 4, 5), 50_000
SAVE = {"stored": np.savez, "compressed": np.savez_compressed}


def images(count=9):
    source = np.random.default_rng(0)
    return source.integers(0, 256, (count, 4, 5, 3), np.uint8), source.integers(0, 10, count)


def in_memory(x, y):
    x_NCHW = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    return Split(x_NCHW, torch.from_numpy(y.astype(np.int64)), FIRST + torch.arange(len(y)))


def read(folder, **options):
    return read_extra(ExtraData(file="a.npz", **options), folder, SHAPE, 10, FIRST)


def same(one, other):
    return all(
        torch.equal(getattr(one, n), getattr(other, n)) for n in ("x_NCHW", "y_N", "index_N")
    )


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, ">i8"])
@pytest.mark.parametrize("save", SAVE)
def test_images_and_digest_are_those_of_a_copy_in_memory(tmp_path, save, kind):
    x, y = images()
    SAVE[save](tmp_path / "a.npz", note=np.zeros(3), image=x, label=y.astype(kind))
    found, expected = read(tmp_path), in_memory(x, y)
    assert same(found, expected)
    assert found.digest == expected.digest
    assert read(tmp_path, limit=4).digest == in_memory(x[:4], y[:4]).digest
    rows = torch.tensor([8, 0, 0, 3])
    assert same(found.select(rows), expected.select(rows))


def test_arrays_in_fortran_order(tmp_path):
    x, y = images()
    np.savez(tmp_path / "a.npz", image=np.asfortranarray(x), label=y)
    assert same(read(tmp_path), in_memory(x, y))
    assert read(tmp_path).digest == in_memory(x, y).digest


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("save", "file"), [("stored", "a.npz"), ("compressed", "a.npz.image.npy")])
def test_images_lie_in_a_mapping_of_the_file(tmp_path, save, file):
    SAVE[save](tmp_path / "a.npz", image=images()[0], label=images()[1])
    split = read(tmp_path)
    assert isinstance(split.pixels, Pixels)
    assert isinstance(split.pixels.source, np.memmap)
    address = split.pixels.source.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            assert line.endswith(file)
            assert line.split()[1].startswith("r--")
            return
    pytest.fail("the images are in no mapping")


@given(rows=st.lists(st.integers(0, 8), max_size=20), first=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_any_rows(rows, first, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    x, y = images()
    if not (folder / "a.npz").exists():
        np.savez(folder / "a.npz", image=x, label=y)
    whole, copied = read(folder), in_memory(x, y)
    for chosen in (torch.tensor(rows, dtype=torch.int64), slice(first, None, 2)):
        assert same(whole.select(chosen), copied.select(chosen))


def test_an_epoch_is_the_same_bit_for_bit(tmp_path):
    source = np.random.default_rng(2)
    labelled = in_memory(*images(30))
    x, y = source.integers(0, 256, (50, 4, 5, 3), np.uint8), source.integers(0, 10, 50)
    np.savez(tmp_path / "a.npz", image=x, label=y)
    epochs = [
        EpochBatches(
            labelled,
            8,
            Augmentation(crop_padding=1),
            seed=1,
            epoch=2,
            extra=more,
            mixture=Mixture(extra=0.5),
        )
        for more in (read(tmp_path), in_memory(x, y))
    ]
    for one, copied in zip(*epochs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, copied, strict=True))
        assert one.x_BCHW.stride() == copied.x_BCHW.stride()


def test_what_was_verified_is_not_verified_again_until_the_file_changes(tmp_path, monkeypatch):
    x, y = images()
    np.savez(tmp_path / "a.npz", image=x, label=y)
    digest = extra._sha256(tmp_path / "a.npz")
    calls = []
    for place, name in ((extra, "_sha256"), (mapped, "_check"), (Pixels, "_digest")):
        real = getattr(place, name)
        monkeypatch.setattr(
            place, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1]
        )
    first = read(tmp_path, sha256=digest)
    assert first.digest == in_memory(x, y).digest
    assert calls == ["_sha256", "_check", "_check", "_digest"]
    assert read(tmp_path, sha256=digest).digest == first.digest
    assert len(calls) == 4, "another process would not hash it either"
    with pytest.raises(DataError, match=f"has sha256 {digest}, not {'1' * 64}"):
        read(tmp_path, sha256="1" * 64)
    np.savez(tmp_path / "a.npz", image=255 - x, label=y)
    with pytest.raises(DataError, match=f"not {digest}"):
        read(tmp_path, sha256=digest)
    assert read(tmp_path).digest == in_memory(255 - x, y).digest


def test_a_file_of_the_same_size_and_time_is_another_one(tmp_path):
    path = tmp_path / "a.npz"
    x, y = images()
    np.savez(path, image=x, label=y)
    before, first = path.stat(), read(tmp_path).digest
    np.savez(path, image=255 - x, label=y)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert read(tmp_path).digest != first


@pytest.mark.parametrize("save", SAVE)
def test_a_flipped_bit_is_found(tmp_path, save):
    path = tmp_path / "a.npz"
    SAVE[save](path, image=images(200)[0], label=images(200)[1])
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="not an npz of plain arrays"):
        read(tmp_path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="not an npz of plain arrays"):
        read(tmp_path)


def test_a_directory_that_points_elsewhere_is_refused(tmp_path):
    """The archive's directory says where a member begins; a wrong place must not be mapped."""
    path = tmp_path / "a.npz"
    np.savez(path, image=images()[0], label=images()[1])
    with zipfile.ZipFile(path) as archive:
        second = archive.getinfo("label.npy").header_offset
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 42 : entry + 46] = (second + 8).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="not an npz of plain arrays"):
        read(tmp_path)


def test_an_unpacked_copy_that_changed_is_made_again(tmp_path):
    x, y = images()
    np.savez_compressed(tmp_path / "a.npz", image=x, label=y)
    read(tmp_path)
    copy = tmp_path / ".robustray/a.npz.image.npy"
    inode = copy.stat().st_ino
    read(tmp_path)
    assert copy.stat().st_ino == inode, "unpacked once"
    copy.write_bytes(copy.read_bytes()[:-7])
    assert same(read(tmp_path), in_memory(x, y))
    copy.unlink()
    assert same(read(tmp_path), in_memory(x, y))


def test_without_a_folder_beside_it_facts_and_copies_are_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    (tmp_path / ".robustray").write_text("no folder")
    x, y = images()
    np.savez_compressed(tmp_path / "a.npz", image=x, label=y)
    assert same(read(tmp_path), in_memory(x, y))
    assert list((tmp_path / "scratch").rglob("a.npz.image.npy"))
    (tmp_path / "scratch").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no folder to unpack it to; write it with numpy\.savez"):
        read(tmp_path)
    np.savez(tmp_path / "a.npz", image=x, label=y)
    assert same(read(tmp_path), in_memory(x, y)), "a stored one needs no folder"


def test_no_room_to_unpack_is_said_before_anything_is_written(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", image=images()[0], label=images()[1])
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("robustray.data.formats.mapped.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"unpacking image takes \d+ bytes.*room for 10"):
        read(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "growing"
    path.write_bytes(b"a")
    facts = Facts(path)
    with pytest.raises(DataError, match="changed while it was read"):
        facts.know("size", lambda: path.write_bytes(b"ab"))
    assert facts.know("size", lambda: 2) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_facts_that_a_stranger_wrote_are_not_believed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a")
    facts = Facts(path)
    assert facts.know("fact", lambda: 1) == 1
    os.chown(tmp_path / ".robustray/file.json", 12345, -1)
    assert facts.know("fact", lambda: 2) == 2


def _ask(path, found):
    def find():
        found.put("worked")
        return 7

    found.put(Facts(path).know("fact", find))


def test_of_several_processes_one_does_the_work(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a")
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    workers = [context.Process(target=_ask, args=(path, found)) for _ in range(4)]
    for worker in workers:
        worker.start()
    answers = [found.get(timeout=30) for _ in range(5)]
    for worker in workers:
        worker.join(30)
    assert sorted(map(str, answers)) == ["7", "7", "7", "7", "worked"]


def test_a_split_is_handed_to_another_device_without_its_images(tmp_path):
    np.savez(tmp_path / "a.npz", image=images()[0], label=images()[1])
    split = read(tmp_path)
    assert split.to("meta") is split
    chosen = split.select(torch.tensor([1, 2]))
    assert not chosen.is_in_memory
    assert chosen.load().to("meta").x_NCHW.device.type == "meta"
