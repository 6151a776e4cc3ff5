"""One driver for a study at a time, in one process and with several real ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from robustray.errors import MachineError, UserError
from robustray.runtime import lease as module
from robustray.runtime.lease import LeaseLostError, Timing, lease
from robustray.runtime.signals import describe_process, has_ended
from robustray.store import LocalStore, ObjectStore, canonical_json, open_store
from robustray.store.opening import GuardedStore

PREFIX = "studies/s"
SHORT = Timing(beat_s=0.05, patience_s=0.6, poll_s=0.02)  # for holders that can't move
SURE = Timing(beat_s=0.05, patience_s=60, poll_s=0.02)  # for those that can, however slowly
FORK = multiprocessing.get_context("fork")  # the imports take longer than the tests


@pytest.fixture
def folder(tmp_path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def key(number: int, name: str = "claim") -> str:
    return f"{PREFIX}/drivers/{number:08d}/{name}.json"


def claim(store: ObjectStore, number: int = 1, **changes: Any) -> dict[str, Any]:
    """Claim a number as some other driver would: by default a process of another machine."""
    content = {
        **describe_process(),
        "host": "elsewhere",
        "boot": "another",
        "process": 1,
        **changes,
    }
    assert store.create(key(number), canonical_json(content))
    return content


@contextmanager
def forked(work: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """Run a function in a process of its own, which never outlives the block."""
    process = FORK.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def wait_until(condition: Callable[[], object], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lease_is_held_and_given_back(store):
    said: list[str] = []
    for number in (1, 2):
        with lease(store, PREFIX, said.append, SURE) as held:
            found = json.loads(store.get(key(number)))
            assert (found["process"], found["host"]) == (os.getpid(), socket.gethostname())
            held.check(store)
        assert json.loads(store.get(key(number, "beat"))) == {"ended": True}
    assert said == []
    assert [entry.key for entry in store.list(f"{PREFIX}/")] == [key(2, "beat"), key(2)]


def hold(store: ObjectStore, ready: Any) -> None:
    """Hold a lease until the process is killed."""
    with lease(store, PREFIX, print, SURE):
        ready.set()
        signal.pause()


@pytest.mark.parametrize("reaped", [True, False])
def test_a_driver_that_was_killed_on_this_machine_is_followed_at_once(folder, reaped):
    ready = FORK.Event()
    with forked(hold, folder, ready) as process:
        assert ready.wait(60)
        process.kill()
        if reaped:
            process.join()
        else:  # it stays a zombie until then
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        said: list[str] = []
        with lease(folder, PREFIX, said.append, SURE) as held:
            held.check(folder)
        assert said == []
        assert folder.exists(key(2))


def test_a_number_that_now_is_another_process_is_a_driver_that_has_ended():
    mine = describe_process()
    assert None not in mine.values()
    assert not has_ended(mine)
    assert has_ended(mine | {"started": mine["started"] - 1})
    assert has_ended(mine | {"process": 2**22 + 1})


@pytest.mark.parametrize(
    "other",
    [{"boot": "x"}, {"namespaces": "pid:[1] time:[2]"}, {"boot": None}, {"process": None}]
    + [{"process": number} for number in (0, -1, True, 2**80, "1")],
)
def test_nothing_is_known_of_processes_that_are_counted_elsewhere(other):
    assert not has_ended({**describe_process(), "process": 2**22 + 1, **other})


def test_the_silence_of_a_container_with_the_same_host_name_is_waited_out(folder):
    claim(folder, host=socket.gethostname(), process=2**22 + 1, namespaces="pid:[1] time:[2]")
    said: list[str] = []
    with lease(folder, PREFIX, said.append, SHORT) as held:
        held.check(folder)
    assert said[0].startswith(f"process {2**22 + 1} on {socket.gethostname()} was running")


@pytest.mark.parametrize("torn", [b"", b'{"host": "else', b"[1]", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("name", ["claim", "beat"])
def test_a_torn_object_does_not_block(folder, name, torn):
    if name == "beat":
        claim(folder)
    folder.put(key(1, name), torn)
    with lease(folder, PREFIX, print, SHORT):
        assert folder.exists(key(2))


@pytest.mark.parametrize("number", [1, 2])
def test_a_living_driver_is_left_alone(folder, number):
    """Its beat is written, or another one takes it over, while we watch."""
    claim(folder)
    alive = {
        1: lambda: folder.put(key(1, "beat"), b'{"beat":1}'),
        2: lambda: claim(folder, 2),
    }[number]

    def say(line: str) -> None:
        assert "process 1 on elsewhere was running this study" in line
        alive()

    with (
        pytest.raises(UserError, match="process 1 on elsewhere is running this study already"),
        lease(folder, PREFIX, say, SURE),
    ):
        pytest.fail("two drivers at once")
    assert not folder.exists(key(3))


def test_time_in_which_the_store_did_not_answer_is_no_silence(folder, monkeypatch):
    """However wrong the clocks: an hour in one look counts as two looks, and then it moves."""
    claim(folder)
    clock, looks = [0.0], []

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        looks.append(clock[0])
        if len(looks) == 3:
            clock[0] += 3600
        if len(looks) == 40:
            folder.put(key(1, "beat"), b'{"beat":1}')

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    with pytest.raises(UserError, match="running"), lease(folder, PREFIX, print):
        pytest.fail("taken from a driver that lives")
    assert len(looks) == 40


def test_a_driver_of_an_earlier_version_that_lives_is_left_alone(folder):
    old = f"{PREFIX}/driver.json"
    content = {"host": socket.gethostname(), "process": 2**22 + 1, "id": "x", "beat": 0}
    folder.put(old, canonical_json(content))
    with (
        pytest.raises(UserError, match="running this study already"),
        lease(
            folder, PREFIX, lambda _: folder.put(old, canonical_json(content | {"beat": 1})), SURE
        ),
    ):
        pytest.fail("two drivers at once")
    assert json.loads(folder.get(old))["beat"] == 1
    assert not folder.exists(key(1))


@pytest.mark.parametrize("content", [b'{"host":"a","process":1,"id":"x","beat":7}', b'{"ho', b""])
def test_a_silent_or_torn_driver_of_an_earlier_version_does_not_block(folder, content):
    folder.put(f"{PREFIX}/driver.json", content)
    with lease(folder, PREFIX, print, SHORT):
        assert not folder.exists(f"{PREFIX}/driver.json")


def test_a_claim_below_the_highest_one_is_no_lease(folder, monkeypatch):
    """Who was slow between look and claim looks again: the number was given away meanwhile."""
    claim(folder, 1)
    folder.put(key(1, "beat"), b'{"ended":true}')
    create = LocalStore.create

    def slow_create(self: LocalStore, name: str, data: bytes) -> bool:
        if name == key(2):  # meanwhile: claimed, taken over, ended, cleared
            assert create(self, key(3), data)
            self.put(key(3, "beat"), b'{"ended":true}')
        return create(self, name, data)

    monkeypatch.setattr(LocalStore, "create", slow_create)
    with lease(folder, PREFIX, print, SURE) as held:
        held.check(folder)
        assert folder.exists(key(4))
        assert not folder.exists(key(2))


def test_a_lost_lease_changes_nothing_more(store):
    store.put("kept", b"1")
    with lease(store, PREFIX, print, SURE) as held:
        held.store.put("mine", b"1")
        claim(store, 2)
        forbidden = [
            lambda: held.store.put("mine", b"2"),
            lambda: held.store.create("new", b"2"),
            lambda: held.store.delete("kept"),
            lambda: held.store.impatient().delete("kept"),
            held.tick,
        ]
        for change in forbidden:
            with pytest.raises(LeaseLostError, match="process 1 on elsewhere has taken studies/s"):
                change()
        assert held.store.get("mine") == store.get("kept") == b"1"
    left = {entry.key for entry in store.list()}
    assert left - {key(1, "beat")} == {"kept", "mine", key(1), key(2)}
    assert LeaseLostError.exit_code == 3


def test_a_holder_finds_out_by_itself(folder):
    with lease(folder, PREFIX, print, SURE) as held:
        claim(folder, 2)

        def told() -> bool:
            try:
                held.tick()
            except LeaseLostError:
                return True
            return False

        wait_until(told)


def test_a_driver_shows_life_again_after_an_error_that_nobody_expected(folder, monkeypatch, caplog):
    put, failures = LocalStore.put, [AttributeError("of a library")] * 2

    def failing_put(self: LocalStore, name: str, data: bytes) -> None:
        if failures:
            raise failures.pop()
        put(self, name, data)

    monkeypatch.setattr(LocalStore, "put", failing_put)
    with lease(folder, PREFIX, print, SURE):
        wait_until(lambda: folder.exists(key(1, "beat")))
    assert caplog.text.count("no sign of life") == 2


def test_a_lease_whose_objects_were_deleted_is_lost(folder):
    with lease(folder, PREFIX, print, SURE) as held:
        folder.delete(key(1))
        with pytest.raises(LeaseLostError, match="somebody"):
            held.store.put("mine", b"1")


def race(store: ObjectStore, rounds: int, barrier: Any, won: Any, me: int) -> None:
    """Become the driver at the same instant as another process, again and again."""
    for number in range(rounds):
        barrier.wait()
        try:
            with lease(store, PREFIX, lambda _: None, SURE):
                won[2 * number + me] = 1
                barrier.wait()
        except UserError:
            barrier.wait()
        barrier.wait()


def check_races(store: ObjectStore, rounds: int) -> None:
    barrier, won = FORK.Barrier(2, timeout=120), FORK.Array("i", 2 * rounds)
    with (
        forked(race, store, rounds, barrier, won, 0) as one,
        forked(race, store, rounds, barrier, won, 1) as other,
    ):
        for process in (one, other):
            process.join(300)
            assert process.exitcode == 0
    assert [won[2 * n] + won[2 * n + 1] for n in range(rounds)] == [1] * rounds


def test_of_two_drivers_at_one_instant_exactly_one_runs(folder):
    check_races(folder, 100)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("store", ["s3", "attempts"], indirect=True)
def test_of_two_drivers_at_one_instant_exactly_one_runs_on_servers(store):
    check_races(store, 25)


def drive(store: ObjectStore, prefix: str, out: Any) -> None:
    """Be a driver that writes all the time, and ends as commands do."""
    try:
        with lease(store, prefix, print, SURE) as held:
            count = 0
            while True:
                count += 1
                held.store.put("work", str(count).encode())
                held.store.put(f"published/{count % 5}", b"1")
                held.store.delete(f"published/{(count + 1) % 5}")
    except MachineError as error:
        out.send(str(error))
        os._exit(error.exit_code)  # type: ignore[attr-defined]


def check_pause(store: ObjectStore) -> None:
    receiver, sender = FORK.Pipe(False)
    with forked(drive, store, PREFIX, sender) as process:
        wait_until(lambda: store.exists("work"))
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with lease(store, PREFIX, print, SHORT) as held:
            before = {entry.key: store.get(entry.key) for entry in store.list()}
            os.kill(process.pid, signal.SIGCONT)
            process.join(60)
            assert process.exitcode == 3
            assert "this driver, which was silent too long" in receiver.recv()
            held.check(store)
            after = {entry.key: store.get(entry.key) for entry in store.list()}
            assert {name for name in before | after if before.get(name) != after.get(name)} <= {
                key(2, "beat"),
                *in_flight(before),
            }
        assert json.loads(store.get(key(2, "beat"))) == {"ended": True}


def test_a_driver_that_was_paused_beyond_its_lease_is_told_and_stops(folder):
    check_pause(folder)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["s3", "attempts"], indirect=True)
def test_a_driver_that_was_paused_beyond_its_lease_is_told_and_stops_on_servers(store):
    check_pause(store)


def in_flight(before: dict[str, bytes]) -> set[str]:
    """Return what may have been under way, past its look, as it was paused: a change, a beat."""
    count = int(before["work"])
    return {key(1, "beat"), "work", f"published/{count % 5}", f"published/{(count + 1) % 5}"}


def test_a_guarded_store_reads_as_the_plain_one_and_is_sent_without_its_guard(folder, tmp_path):
    asked: list[ObjectStore] = []
    guarded = GuardedStore(folder, asked.append)
    guarded.put("a/b", b"1")
    assert guarded.create("a/c", b"2")
    assert not guarded.create("a/c", b"3")
    (tmp_path / "file").write_bytes(b"4")
    guarded.put_file("a/d", tmp_path / "file")
    guarded.delete("a/b")
    assert asked == [folder] * 5
    guarded.get_file("a/d", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == guarded.get("a/d") == b"4"
    assert guarded.list("a/") == folder.list("a/")
    assert (guarded.exists("a/b"), guarded.exists("a/c")) == (False, True)
    assert (guarded.uri, guarded.mode) == (folder.uri, folder.mode)
    sent = pickle.loads(pickle.dumps(guarded))  # noqa: S301
    assert type(sent) is LocalStore
    assert len(asked) == 5
