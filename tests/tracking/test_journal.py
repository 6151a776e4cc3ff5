import json
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.errors import CorruptObjectError
from robustray.tracking import Journal, read_journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "journal.jsonl"


def names(events):
    return [event["event"] for event in events]


def test_what_is_appended_is_in_memory_and_in_the_file(path):
    journal = Journal(path)
    first = journal.append("epoch", epoch=1, loss=0.5, rates=(0.1, 0.2))
    journal.append("epoch", epoch=2, loss=0.25)
    assert first["rates"] == [0.1, 0.2]
    assert read_journal(path) == journal.segment()
    assert names(journal.segment()) == ["epoch", "epoch"]


def test_segments_cut_the_events_without_gap_or_overlap(path):
    journal = Journal(path)
    journal.append("a")
    first = journal.segment()
    journal.append("b")  # while the checkpoint with the first segment is on its way
    journal.mark_committed()
    assert (names(first), names(journal.segment())) == (["a"], ["b"])
    assert names(journal.segment()) == ["b"]  # nothing committed: offered again
    journal.mark_committed()
    assert journal.segment() == []
    assert names(read_journal(path)) == ["a", "b"]


def test_times_never_go_back(path, monkeypatch):
    clock = iter([5_000, 4_000, 6_000])
    slow = SimpleNamespace(time_ns=lambda: next(clock) * 1_000_000)
    monkeypatch.setattr("robustray.tracking.journal.time", slow)
    journal = Journal(path, not_before_ms=4_500)
    times = [journal.append("e")["time_ms"] for _ in range(3)]
    assert times == [5_000, 5_000, 6_000]


def test_an_attempt_on_a_slow_clock_does_not_begin_before_the_last(path):
    assert Journal(path, not_before_ms=2**52).append("resumed")["time_ms"] == 2**52


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 200))
def test_any_torn_end_costs_the_last_event_only(cut):
    with TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        journal = Journal(path)
        for number in range(3):
            journal.append("e", number=number, text="ü\n")
        journal.close()
        whole = path.read_bytes()
        cut = min(cut, len(whole))
        path.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n")
        assert [e["number"] for e in read_journal(path)] == list(range(complete))
        again = Journal(path)
        again.append("next")
        again.close()
        assert names(read_journal(path)) == ["e"] * complete + ["next"]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"no": "event"}', ""])
def test_damage_before_the_end_is_told(path, line):
    Journal(path).append("a")
    path.write_text(f"{line}\n" + path.read_text())
    with pytest.raises(CorruptObjectError, match="line 1"):
        read_journal(path)


def test_what_is_not_json_is_refused_and_leaves_no_trace(path):
    journal = Journal(path)
    with pytest.raises(TypeError):
        journal.append("epoch", model=object())
    with pytest.raises(TypeError, match="time_ms"):
        journal.append("epoch", time_ms=1)
    assert journal.segment() == read_journal(path) == []


def test_later_changes_of_an_argument_do_not_reach_the_journal(path):
    rates = [0.1]
    journal = Journal(path)
    journal.append("epoch", rates=rates)
    rates.append(0.2)
    assert journal.segment()[0]["rates"] == [0.1]


def test_a_disk_that_takes_nothing_costs_the_file_only(caplog):
    journal = Journal("/dev/full")
    journal.append("a")
    journal.append("b")
    assert names(journal.segment()) == ["a", "b"]
    assert len(caplog.records) == 1
    assert Journal("/proc/none/journal").append("c")["event"] == "c"


def test_threads_share_a_journal(path):
    journal = Journal(path)
    threads = [
        threading.Thread(target=lambda: [journal.append("e", n=n) for n in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == journal.segment()
    assert len(lines) == 200
    assert [e["time_ms"] for e in lines] == sorted(e["time_ms"] for e in lines)
