"""Data files staged in the store, and fetched by a machine that lacks them."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from robustray.cli import main
from robustray.data import load_dataset, needed_files
from robustray.errors import CorruptObjectError, DataError
from robustray.evaluation.images import load_images
from robustray.manifest import DataConfig, JudgedData
from robustray.store import ObjectStore, open_store
from robustray.store.s3 import S3Store
from robustray.store.s3_client import make_seals
from robustray.store.staged_data import fetch_data, load_staged_dataset, push_data, where_is

MNIST = DataConfig(name="mnist")


def test_only_files_that_are_needed_are_named():
    paths = [path for path, _ in needed_files(DataConfig(name="cifar10", train_limit=10_001))]
    folder = "cifar-10-batches-py/"
    assert paths == [folder + name for name in ("data_batch_1", "data_batch_2", "test_batch")]
    assert needed_files(DataConfig(name="digits")) == ()
    assert [path for path, _ in needed_files(MNIST, ("test",))] == [
        "MNIST/raw/t10k-images-idx3-ubyte.gz",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz",
    ]


def test_another_machine_gets_what_was_staged(store: ObjectStore, shared_data, tmp_path):
    said: list[str] = []
    push_data(MNIST, shared_data, store, said.append)
    push_data(MNIST, shared_data, store, said.append)
    assert [line.split()[0] for line in said] == ["staged"] * 4 + ["there"] * 4
    assert len(store.list("data/")) == 4
    there = tmp_path / "elsewhere"
    assert where_is(MNIST, there, store) == "staged"
    found = load_staged_dataset(MNIST, there, store, ("test",))
    assert found.digest == load_dataset(MNIST, shared_data, ("test",)).digest
    assert sorted(path.name for path in there.rglob("*") if path.is_file()) == [
        ".download.lock",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]


def test_a_file_is_fetched_once_and_local_ones_come_first(shared_data, tmp_path, monkeypatch):
    store, there = open_store(str(tmp_path / "store")), tmp_path / "there"
    push_data(MNIST, shared_data, store, lambda _: None)
    kept = there / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    kept.parent.mkdir(parents=True)
    shutil.copyfile(shared_data / "MNIST/raw/t10k-labels-idx1-ubyte.gz", kept)
    fetched, get_file = [], type(store).get_file

    def counted(self: ObjectStore, key: str, path: Path) -> None:
        fetched.append(key)
        get_file(self, key, path)

    monkeypatch.setattr(type(store), "get_file", counted)
    threads = [threading.Thread(target=fetch_data, args=(MNIST, there, store)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == len(set(fetched)) == 3
    assert where_is(MNIST, there, None) == "here"


def test_an_evaluation_finds_its_images_in_the_store(shared_data, tmp_path):
    store, judged = open_store(str(tmp_path / "store")), JudgedData(name="mnist", first=10)
    push_data(MNIST, shared_data, store, lambda _: None)
    images = load_images(judged, str(tmp_path / "there"), store)
    assert images.digest == load_images(judged, str(shared_data)).digest


def test_bytes_that_changed_in_the_store_are_not_taken(shared_data, tmp_path):
    store, there = open_store(str(tmp_path / "store")), tmp_path / "there"
    push_data(MNIST, shared_data, store, lambda _: None)
    for info in store.list("data/"):
        store.put(info.key, b"something else")
    with pytest.raises(CorruptObjectError, match="has digest"):
        fetch_data(MNIST, there, store)
    assert [path.name for path in there.iterdir()] == [".download.lock"]


def test_a_push_stages_again_what_is_damaged_in_the_store(s3_uri, shared_data, tmp_path):
    store = S3Store(s3_uri)
    push_data(MNIST, shared_data, store, lambda _: None)
    changed, cut, *_ = store.list("data/")
    for info, size in ((changed, changed.size), (cut, cut.size // 2)):
        seals = make_seals(store.get(info.key))  # of the bytes that were once there
        store._client.put_object(
            Bucket=store.bucket,
            Key=store._key(info.key),
            Body=bytes(size),
            Metadata=seals["Metadata"],
        )
    with pytest.raises(CorruptObjectError):
        fetch_data(MNIST, tmp_path / "there", store)
    said: list[str] = []
    push_data(MNIST, shared_data, store, said.append)
    assert sorted(line.split()[0] for line in said) == ["staged"] * 2 + ["there"] * 2
    fetch_data(MNIST, tmp_path / "there", store)
    assert where_is(MNIST, tmp_path / "there", None) == "here"


def test_damaged_and_missing_files_are_not_staged(shared_data, tmp_path):
    store, here = open_store(str(tmp_path / "store")), tmp_path / "here"
    with pytest.raises(DataError, match="can't be read"):
        push_data(MNIST, here, store, print)
    shutil.copytree(shared_data / "MNIST", here / "MNIST", copy_function=shutil.copyfile)
    for path, _ in needed_files(MNIST):
        (here / path).write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        push_data(MNIST, here, store, print)
    with pytest.raises(DataError, match="is damaged"):
        where_is(MNIST, here, store)
    assert store.list() == []


def test_extra_images_are_staged_by_the_digest_that_the_manifest_states(shared_data, tmp_path):
    file = tmp_path / "here/extra.npz"
    file.parent.mkdir()
    x = np.zeros((3, 28, 28, 1), np.uint8)
    np.savez(file, image=x, label=np.arange(3))
    shutil.copytree(shared_data / "MNIST", file.parent / "MNIST", copy_function=shutil.copyfile)
    store, sha256 = open_store(str(tmp_path / "store")), hashlib.sha256(file.read_bytes())
    config = DataConfig.model_validate({"name": "mnist", "extra": {"file": "extra.npz"}})
    with pytest.raises(DataError, match=sha256.hexdigest()):
        push_data(config, file.parent, store, lambda _: None)
    config = DataConfig.model_validate(
        {"name": "mnist", "extra": {"file": "extra.npz", "sha256": sha256.hexdigest()}}
    )
    push_data(config, file.parent, store, lambda _: None)
    fetch_data(config, tmp_path / "there", store)
    assert (tmp_path / "there/extra.npz").read_bytes() == file.read_bytes()


def test_a_folder_that_cannot_be_written_is_named(shared_data, tmp_path):
    store = open_store(str(tmp_path / "store"))
    push_data(MNIST, shared_data, store, lambda _: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="set ROBUSTRAY_DATA to a folder that can be written"):
        fetch_data(MNIST, tmp_path / "file/data", store)


def test_the_command_stages_sets_by_name_and_refuses_others(
    shared_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ROBUSTRAY_DATA", str(shared_data))
    assert main(["data", "push", "mnist"]) == 0
    assert capsys.readouterr().out.count("staged ") == 4
    assert main(["data", "push", "imagenet"]) == 2
    assert "cifar10, cifar100, fashion-mnist, mnist, stl10, svhn" in capsys.readouterr().err
    assert main(["data", "push"]) == 2
    assert "--manifest" in capsys.readouterr().err
