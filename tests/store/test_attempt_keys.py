"""Creating at most once without an atomic create: races, crashes, conflicts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.errors import StoreError
from robustray.store import NotFoundError, attempt_keys, open_store
from robustray.store.attempt_keys import ROOT, StoreConflictError, create, merged, resolve
from robustray.store.objects import ObjectInfo


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_at_most_one_writer_is_told_that_it_created(data):
    """Whatever way the steps of two writers interleave, one at most is told True."""
    objects: dict[str, bytes] = {}
    turn, results = threading.Condition(), {}
    order = data.draw(st.lists(st.booleans(), min_size=30, max_size=30))
    steps = {"next": 0, "alive": {False, True}}

    def step(who):
        with turn:
            turn.wait_for(lambda: _whose(order, steps) in (who, None), timeout=5)
            steps["next"] += 1
            turn.notify_all()

    def listing(who):
        def call(prefix):
            step(who)
            return sorted(ObjectInfo(k, len(v)) for k, v in objects.items() if k.startswith(prefix))

        return call

    def put(who):
        def call(name, content):
            step(who)
            objects[name] = content

        return call

    def write(who):
        try:
            results[who] = create(
                "k",
                b"%d" % who,
                exists=lambda: False,
                listing=listing(who),
                put=put(who),
                delete=lambda name: objects.pop(name, None),
                sleep=lambda _: step(who),
            )
        finally:
            with turn:
                steps["alive"].discard(who)
                turn.notify_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (False, True)))
    assert sum(results.values()) == 1
    winner = next(who for who, won in results.items() if won)
    assert list(objects.values()) == [b"%d" % winner]


def _whose(order, steps):
    """Return whose turn it is; None where the order has run out, or waits for who has ended."""
    at = steps["next"]
    if at >= len(order) or order[at] not in steps["alive"]:
        return None
    return order[at]


def test_many_writers_on_a_server_that_overwrites(overwriting_uri):
    store = open_store(overwriting_uri)
    store.probe()
    for round_ in range(3):
        start = threading.Barrier(4)

        def write(number, start=start, round_=round_):
            start.wait()
            return store.create(f"lock/{round_}", b"%d" % number)

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(write, range(4)))
        assert sum(made) == 1
        assert store.get(f"lock/{round_}") == b"%d" % made.index(True)
    assert [info.key for info in store.list("lock/")] == ["lock/0", "lock/1", "lock/2"]


def test_a_writer_that_dies_after_writing_has_created(overwriting_uri):
    store = open_store(overwriting_uri)
    store.probe()
    code = (
        "import os, signal, sys\n"
        "from robustray.store import attempt_keys, open_store\n"
        "look = attempt_keys.attempts_of\n"
        "def die(key, listing):\n"
        "    found = look(key, listing)\n"
        "    if found: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return found\n"
        "attempt_keys.attempts_of = die\n"
        "open_store(sys.argv[1]).create('record', b'whole')\n"
    )
    dead = subprocess.run([sys.executable, "-c", code, overwriting_uri], env=os.environ.copy())
    assert dead.returncode == -signal.SIGKILL
    assert store.get("record") == b"whole"
    assert not store.create("record", b"other")


def test_equal_attempts_are_merged_and_different_ones_refused(overwriting_uri):
    store: Any = open_store(overwriting_uri)
    store.probe()
    assert store.create("a/b", b"one")
    (name,) = attempt_keys.attempts_of("a/b", store._list)
    twin = name.rpartition("-")[0] + "-0123456789ab"
    store._put(twin, b"one")
    assert store.get("a/b") == b"one"
    assert [info.key for info in store.list("a")] == ["a/b"]
    store._put(f"{ROOT}a/b/{'0' * 64}-0123456789ab", b"two")
    with pytest.raises(StoreConflictError, match=r"a/b .*different contents.*0123456789ab"):
        store.get("a/b")
    assert isinstance(StoreConflictError(), StoreError)
    store.put("a/b", b"decided")
    assert store.get("a/b") == b"decided"
    store.delete("a/b")
    with pytest.raises(NotFoundError):
        store.get("a/b")


def test_names_of_attempts_are_no_keys_of_a_listing():
    raw = [
        ObjectInfo(f"{ROOT}units/x/record.json/{'a' * 64}-1", 5),
        ObjectInfo("units/x/data", 7),
        ObjectInfo(attempt_keys.MARKER, 1),
    ]

    def listing(prefix):
        return [info for info in raw if info.key.startswith(prefix)]

    assert merged("", listing) == [
        ObjectInfo("units/x/data", 7),
        ObjectInfo("units/x/record.json", 5),
    ]
    assert merged("units/x/r", listing) == [ObjectInfo("units/x/record.json", 5)]
    assert merged("units/x/record.json/", listing) == []
    assert resolve("units/x/record.json", listing) == raw[0].key


def test_a_reader_waits_for_writers_who_have_met():
    mine, other = (f"{ROOT}k/{digit * 64}-1" for digit in "ab")
    raw = [ObjectInfo(mine, 1), ObjectInfo(other, 1)]
    waits = []

    def takes_its_own_back(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            raw.remove(ObjectInfo(other, 1))

    assert resolve("k", lambda _: list(raw), takes_its_own_back) == mine
    assert len(waits) == 2
    raw.append(ObjectInfo(other, 1))
    with pytest.raises(StoreConflictError, match=other):
        resolve("k", lambda _: list(raw), waits.append)
    assert sum(waits[2:]) < 5
