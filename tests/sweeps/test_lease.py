"""One driver for a study at a time."""

import json
import os
import threading

import pytest

from robustray.errors import UserError
from robustray.store import open_store
from robustray.sweeps import lease as module
from robustray.sweeps.lease import lease

KEY = "studies/s/driver.json"


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def holder(process: int, host: str, beat: int = 0) -> bytes:
    return json.dumps({"host": host, "process": process, "id": "x", "beat": beat}).encode()


def test_a_lease_is_held_and_given_back(store):
    said: list[str] = []
    with lease(store, KEY, said.append):
        assert json.loads(store.get(KEY))["process"] == os.getpid()
    assert not store.exists(KEY)
    assert said == []


def test_a_dead_process_of_this_machine_is_followed_at_once(store):
    import socket

    store.put(KEY, holder(2**22 + 1, socket.gethostname()))
    said: list[str] = []
    with lease(store, KEY, said.append):
        assert json.loads(store.get(KEY))["process"] == os.getpid()
    assert said == []


def test_silence_from_another_machine_is_waited_out(store, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 1.5)
    store.put(KEY, holder(1, "elsewhere"))
    said: list[str] = []
    with lease(store, KEY, said.append):
        assert json.loads(store.get(KEY))["process"] == os.getpid()
    assert "process 1 on elsewhere" in said[0]


def test_a_living_driver_is_left_alone(store, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 20)
    store.put(KEY, holder(1, "elsewhere"))
    beat = threading.Timer(0.5, lambda: store.put(KEY, holder(1, "elsewhere", beat=1)))
    beat.start()
    with pytest.raises(UserError, match="running this study already"), lease(store, KEY, print):
        pytest.fail("two drivers at once")
    beat.join()
    assert json.loads(store.get(KEY))["process"] == 1
