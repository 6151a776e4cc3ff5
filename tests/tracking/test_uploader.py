import socket
import sqlite3
import sys
import threading
import time

import pytest
from mlflow import MlflowClient

from robustray.errors import CorruptObjectError, StoreUnavailableError
from robustray.tracking import MlflowSink, Uploader
from tests.helpers.http_proxy import FORWARD, Proxy
from tests.helpers.mlflow_records import history, record, runs_of
from tests.helpers.servers import MlflowServer

END = 1_700_000_100_000


@pytest.fixture
def lines():
    return []


@pytest.fixture
def uploader(sqlite_uri, lines, quick):
    with Uploader(MlflowSink(sqlite_uri), log=lines.append) as made:
        yield made


def finished(key, experiment, **changes):
    return record(key, experiment=experiment, status="FINISHED", end_ms=END, **changes)


def drained(uploader, until, timeout_s=60):
    """Drain again and again until a condition on the keys left holds; the keys left then."""
    end = time.monotonic() + timeout_s
    while not until(left := uploader.drain(0.2)):
        assert time.monotonic() < end, left
    return sorted(left)


def keys_of(uri, experiment):
    return [run.data.tags["mlflow.robustray.key"] for run in runs_of(uri, experiment)]


def test_an_uploader_that_may_no_longer_bring_anything_says_so_at_once(sqlite_uri, lines, quick):
    answers = iter([True, False])
    with Uploader(
        MlflowSink(sqlite_uri), log=lines.append, allowed=lambda: next(answers)
    ) as uploader:
        uploader.submit("first", lambda: finished("first", "e"))
        assert uploader.drain(60) == []
        uploader.submit("second", lambda: pytest.fail("it may not be made"))
        uploader.submit("third", lambda: pytest.fail("nor this one"))
        assert uploader.drain(60) == ["second", "third"]
    assert keys_of(sqlite_uri, "e") == ["first"]
    assert lines == []


def test_a_server_killed_in_the_middle_of_30_runs(mlflow_server, experiment, lines, quick):
    ten = threading.Event()

    def make(number):
        if number == 10:
            ten.set()
        return finished(f"study/{number:02}", experiment, parent_key="study", steps=4)

    uri = mlflow_server.endpoint
    with Uploader(MlflowSink(uri), log=lines.append) as uploader:
        uploader.submit("study", lambda: finished("study", experiment))
        for number in range(30):
            uploader.submit(f"study/{number:02}", lambda number=number: make(number))
        assert ten.wait(60)
        mlflow_server.kill()
        assert len(drained(uploader, lambda _: lines)) >= 19
        mlflow_server.restart()
        assert uploader.drain(60) == []
    runs = runs_of(uri, experiment)
    assert keys_of(uri, experiment) == ["study"] + [f"study/{n:02}" for n in range(30)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs[1:]:
        assert run.data.tags["mlflow.parentRunId"] == runs[0].info.run_id
        assert [step for step, _, _ in history(uri, run, "loss")] == [0, 1, 2, 3]
    assert ["away" in line for line in lines] == [True, False]


def test_a_server_that_comes_late(mlflow_server, experiment, lines, quick):
    place = Proxy(mlflow_server.endpoint, lambda _: FORWARD)
    with place:
        pass  # its port is free, and nobody listens there
    with Uploader(MlflowSink(place.endpoint), log=lines.append) as uploader:
        start = time.monotonic()
        for number in range(5):
            uploader.submit(f"k{number}", lambda n=number: finished(f"k{n}", experiment))
        assert time.monotonic() - start < 0.5
        assert uploader.check() == "Connection refused"
        assert drained(uploader, lambda _: lines) == [f"k{number}" for number in range(5)]
        with Proxy(mlflow_server.endpoint, lambda _: FORWARD, port=place.port):
            assert uploader.drain(60) == []
            assert uploader.check() is True
    assert len(lines) == 2
    assert len(runs_of(mlflow_server.endpoint, experiment)) == 5


@pytest.mark.slow
def test_a_server_that_comes_back_without_its_database(experiment, lines, quick):
    with (
        MlflowServer() as server,
        Uploader(MlflowSink(server.endpoint), log=lines.append) as uploader,
    ):
        uploader.submit("k", lambda: record("k", experiment=experiment))
        assert uploader.drain(60) == []
        server.kill()
        (server.folder / "mlflow.db").unlink()
        server.restart()
        uploader.submit("k", lambda: finished("k", experiment, steps=3))
        assert uploader.drain(60) == []
        (run,) = runs_of(server.endpoint, experiment)
        assert len(history(server.endpoint, run, "loss")) == 3


def test_bad_records_are_told_once_and_hold_up_nothing(uploader, sqlite_uri, lines):
    gone, good = "e-deleted", "e-good"
    uploader.submit("first", lambda: finished("first", gone))
    assert uploader.drain(30) == []
    client = MlflowClient(sqlite_uri)
    client.delete_experiment(client.get_experiment_by_name(gone).experiment_id)

    def fail(error):
        raise error

    uploader.submit("refused", lambda: finished("refused", gone))
    uploader.submit("wrong", lambda: fail(ZeroDivisionError("http://me:s3cret@there")))
    uploader.submit("exits", lambda: sys.exit(1))
    uploader.submit("wrong/child", lambda: finished("wrong/child", good, parent_key="wrong"))
    uploader.submit("good", lambda: finished("good", good))
    # The experiment that this process still remembers takes no more runs.
    assert sorted(uploader.drain(30)) == ["exits", "refused", "wrong"]
    assert keys_of(sqlite_uri, good) == ["good", "wrong/child"]
    assert sorted(line.split()[1] for line in lines) == ["exits", "refused", "wrong"]
    told = "".join(lines)
    assert "test_uploader.py" in told  # a fault of the program keeps its traceback
    assert "s3cret" not in told
    uploader.submit("wrong", lambda: fail(ZeroDivisionError("http://me:s3cret@there")))
    uploader.submit("refused", lambda: finished("refused", good))
    assert sorted(uploader.drain(30)) == ["exits", "wrong"]


def test_parents_go_first_and_come_once(uploader, sqlite_uri, experiment):
    calls = []

    def make(key, parent):
        calls.append(key)
        return finished(key, experiment, parent_key=parent)

    gate = threading.Event()
    uploader.submit("gate", lambda: gate.wait(30) and finished("gate", experiment))
    uploader.submit("s/t/e", lambda: make("s/t/e", "s/t"))
    uploader.submit("s/t", lambda: make("s/t", "s"))
    uploader.submit("s", lambda: make("s", None))
    gate.set()
    assert uploader.drain(30) == []
    tags = {run.data.tags["mlflow.robustray.key"]: run for run in runs_of(sqlite_uri, experiment)}
    for child, parent in (("s/t/e", "s/t"), ("s/t", "s")):
        assert tags[child].data.tags["mlflow.parentRunId"] == tags[parent].info.run_id
    assert sorted(calls) == ["s", "s/t", "s/t/e"]


def test_runs_that_claim_to_be_each_others_parent_do_not_hang(uploader, sqlite_uri, experiment):
    uploader.submit("a", lambda: finished("a", experiment, parent_key="b"))
    uploader.submit("b", lambda: finished("b", experiment, parent_key="a"))
    assert uploader.drain(30) == []
    assert keys_of(sqlite_uri, experiment) == ["a", "b"]


def test_a_parent_whose_record_cannot_be_read_holds_up_no_child(
    uploader, sqlite_uri, experiment, lines
):
    broken = threading.Event()
    broken.set()

    def parent():
        if broken.is_set():
            raise CorruptObjectError("study.json")
        return finished("study", experiment)

    uploader.submit("study", parent)
    uploader.submit("trial", lambda: finished("trial", experiment, parent_key="study"))
    uploader.submit("other", lambda: finished("other", experiment))
    both = ["other", "trial"]
    assert "study" in drained(uploader, lambda _: keys_of(sqlite_uri, experiment) == both)
    broken.clear()
    assert uploader.drain(30) == []
    _other, study, trial = runs_of(sqlite_uri, experiment)
    assert trial.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert len(lines) == 1


def test_the_newest_record_of_a_key_wins(uploader, sqlite_uri, experiment):
    made = []

    def make(steps):
        made.append(steps)
        return record("k", experiment=experiment, steps=steps)

    gate = threading.Event()
    uploader.submit("gate", lambda: gate.wait(30) and finished("gate", experiment))
    for steps in range(1, 50):
        uploader.submit("k", lambda steps=steps: make(steps))
    gate.set()
    assert uploader.drain(30) == []
    assert made == [49]
    uploader.submit("k", lambda: make(50))
    assert uploader.drain(30) == []
    run = runs_of(sqlite_uri, experiment)[1]
    assert len(history(sqlite_uri, run, "loss")) == 50


def test_a_record_submitted_while_the_last_one_is_sent_is_not_lost(
    uploader, sqlite_uri, experiment
):
    begun, gate = threading.Event(), threading.Event()

    def slow():
        begun.set()
        gate.wait(30)
        return record("k", experiment=experiment, steps=1)

    uploader.submit("k", slow)
    assert begun.wait(30)
    uploader.submit("k", lambda: record("k", experiment=experiment, steps=2))
    gate.set()
    assert uploader.drain(30) == []
    (run,) = runs_of(sqlite_uri, experiment)
    assert len(history(sqlite_uri, run, "loss")) == 2


def test_a_store_that_is_away_is_waited_for(uploader, sqlite_uri, experiment, lines):
    away = threading.Event()
    away.set()

    def make(key):
        if away.is_set():
            raise StoreUnavailableError("no answer from http://me:s3cret@there")
        return finished(key, experiment)

    for key in "abc":
        uploader.submit(key, lambda key=key: make(key))
    assert drained(uploader, lambda _: lines) == ["a", "b", "c"]
    away.clear()
    assert uploader.drain(30) == []
    assert keys_of(sqlite_uri, experiment) == ["a", "b", "c"]
    assert ["the store is away" in line for line in lines] == [True, False]
    assert "s3cret" not in "".join(lines)


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_gateway_that_answers_for_an_absent_server(
    mlflow_server, experiment, lines, quick, status
):
    down = threading.Event()
    down.set()
    fault = lambda _: status if down.is_set() else FORWARD  # noqa: E731
    with (
        Proxy(mlflow_server.endpoint, fault) as proxy,
        Uploader(MlflowSink(proxy.endpoint), log=lines.append) as uploader,
    ):
        for key in "ab":
            uploader.submit(key, lambda key=key: finished(key, experiment))
        assert uploader.check() is not True
        assert drained(uploader, lambda _: lines) == ["a", "b"]
        down.clear()
        assert uploader.drain(30) == []
    assert ["MLflow (http://127.0.0.1" in line and "away" in line for line in lines] == [
        True,
        False,
    ]


def test_one_record_that_the_server_stumbles_over_does_not_stop_others(
    mlflow_server, experiment, lines, quick
):
    broken = threading.Event()
    broken.set()

    def fault(path):
        return 500 if broken.is_set() and "log-batch" in path and not done.is_set() else FORWARD

    done = threading.Event()
    with (
        Proxy(mlflow_server.endpoint, fault) as proxy,
        Uploader(MlflowSink(proxy.endpoint), log=lines.append) as uploader,
    ):
        uploader.submit("sick", lambda: done.clear() or finished("sick", experiment))
        uploader.submit("well", lambda: done.set() or finished("well", experiment))
        assert drained(uploader, lambda left: left == ["sick"] and lines) == ["sick"]
        broken.clear()
        assert uploader.drain(30) == []
    assert len(lines) == 1
    assert lines[0].startswith("run sick:")


def test_check_gives_up_on_a_server_that_says_nothing(lines, monkeypatch):
    monkeypatch.setattr("robustray.tracking.uploader.CHECK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uploader = Uploader(
            MlflowSink(f"http://127.0.0.1:{silent.getsockname()[1]}"), log=lines.append
        )
        assert "no answer" in str(uploader.check())
        start = time.monotonic()
        uploader.submit("k", lambda: record("k"))
        assert uploader.drain(0.1) == ["k"]
        uploader.close(0.1)
        assert time.monotonic() - start < 3


def test_check_of_a_file_that_cannot_be_made(lines):
    with Uploader(MlflowSink("sqlite:////proc/none/mlflow.db"), log=lines.append) as uploader:
        assert uploader.check() == "No such file or directory"


def test_a_broken_log_stops_nothing(sqlite_uri, experiment):
    with Uploader(MlflowSink(sqlite_uri), log=lambda line: [][1]) as uploader:
        uploader.submit("wrong", lambda: [][1])
        uploader.submit("good", lambda: finished("good", experiment))
        assert uploader.drain(30) == ["wrong"]
    assert keys_of(sqlite_uri, experiment) == ["good"]


@pytest.mark.slow
def test_a_locked_database_is_waited_for(uploader, sqlite_uri, experiment):
    lock = sqlite3.connect(sqlite_uri.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    uploader.submit("k", lambda: finished("k", experiment))
    assert uploader.drain(25) == ["k"]  # MLflow itself waits 20 s for a lock
    lock.execute("COMMIT")
    assert uploader.drain(60) == []
    assert keys_of(sqlite_uri, experiment) == ["k"]
