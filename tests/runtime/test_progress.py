"""What a run shows: counts that agree, times with their basis, and a terminal left as it was."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.runtime.failures import Failure
from robustray.runtime.progress import StepProgress, TrialProgress, TrialWork
from robustray.runtime.progress.screen import tell_at_once
from robustray.runtime.progress.trials import State
from robustray.runtime.progress.words import clock, describe_rest, describe_waiting

ATTACKS = ("fgsm", "cw-40")
NAMES = ("a", "b", "c")


class Terminal(io.StringIO):
    """A terminal of 80 columns, as far as anybody asks."""

    def isatty(self) -> bool:
        return True


def show(
    trials: dict[str, TrialWork], stream: io.StringIO, heartbeat_s: float = 0
) -> TrialProgress:
    return TrialProgress(
        trials, 4, ATTACKS, "validation_pgd-20", "1 CPU", stream, heartbeat_s=heartbeat_s
    )


def epoch(number: int, held_out: float | None = None) -> dict:
    found = {"epoch": number, "train_loss": 1.25, "images_per_second": 1234.0}
    return found if held_out is None else {**found, "validation_pgd-20": held_out}


EVENTS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(
    ["started", "epoch", "finished", "retried", "failed", "preempted", "stopped"]
)))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from([State.WAITING, State.DONE, State.STOPPED]), st.integers(0, 3))
def test_counts_agree_whatever_happens_in_whichever_order(events, earlier, epochs):
    trials = {name: TrialWork() for name in NAMES}
    trials["a"] = TrialWork(state=earlier, epochs=epochs)
    progress = show(trials, io.StringIO())
    for name, event in events:
        match event:
            case "started" | "finished" | "preempted":
                getattr(progress, event)(name)
            case "epoch":
                progress.report(name, epoch(min(4, trials[name].epochs + 1)))
            case "stopped":
                progress.stopped(name, "was stopped")
            case _:
                wait = 1.0 if event == "retried" else None
                progress.failed(name, Failure.USER_ERROR, "no", wait)
        counts, view = progress.counts, progress.view()
        assert sum(counts.values()) == len(NAMES)
        words = dict(view.facts)["trials"]
        first, *rest = re.findall(r"\d+", words)[0:1] + re.findall(r", (\d+)", words)
        assert int(first) + sum(map(int, rest)) == len(NAMES)
        assert len(view.rows) == counts[State.RUNNING]
        assert view.done == sum(trial.epochs for trial in trials.values()) <= view.total
        if not counts[State.RUNNING] + counts[State.WAITING]:
            assert view.done == view.total
            assert "time" not in dict(view.facts)
    progress.interrupt()
    assert not progress.counts[State.RUNNING]


def test_a_log_has_lines_with_the_last_numbers_the_best_and_the_time_left():
    log = io.StringIO()
    progress = show({name: TrialWork(4.0, 4.0) for name in NAMES}, log, heartbeat_s=-1)
    progress.show()
    progress.started("b")
    progress.report("b", epoch(1, held_out=0.25) | {"gpu_bytes": 2_500_000_000})
    progress.report("b", {"attack": "fgsm", "clean": 0.9, "fgsm": 0.5})
    progress.report("b", {"attack": "cw-40", "clean": 0.9, "fgsm": 0.5, "cw-40": 0.375})
    progress.finished("b")
    waiting, started, trained, *_, finished, _ = log.getvalue().splitlines()
    assert "waiting for a worker to start (1 CPU)" in waiting
    assert "known after the first epoch" in started
    words = "epochs 1/12", "2 waiting", "b epoch 1/4, loss 1.250, held out 25.0 %, 1,234 images/s"
    assert all(part in trained for part in (*words, "2.5 GB", "left, from 1 epoch of this run"))
    assert "best 25.0 % on held-out images, b" in trained
    assert finished.endswith(
        "b finished: clean 90.0 %, fgsm 50.0 %, cw-40 37.5 % (trials 1 of 3 done, 2 waiting; "
        "best 37.5 % under cw-40, b)"
    )
    assert not re.search(r"\x1b", log.getvalue())


def test_results_of_earlier_runs_are_among_the_best_and_not_in_the_time_left(monkeypatch):
    earlier = TrialWork(100.0, 0.0, State.DONE, 4, score=0.75)
    progress = show({"a": earlier, "b": TrialWork(), "c": TrialWork()}, io.StringIO())
    progress.started("b")
    begun = progress._begun
    progress.report("b", epoch(1))
    progress.report("b", epoch(2))
    monkeypatch.setattr("time.monotonic", lambda: begun + 600)
    facts = dict(progress.view().facts)
    assert facts["best"] == "75.0 % under cw-40, a"
    assert facts["time"] == "about 30 min left, from 2 epochs of this run"  # half of b, all of c


def test_a_terminal_gets_a_picture_lines_above_it_and_its_cursor_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    progress = show({f"d4-4-4_w{n}": TrialWork() for n in range(40)}, terminal)
    for number in range(40):
        progress.started(f"d4-4-4_w{number}")
    progress.report("d4-4-4_w0", epoch(1, 0.5))
    tell_at_once("stopping after this step")
    progress._screen._live.refresh()
    progress.say("a line that is longer than the terminal is wide is written as it is, " * 2)
    picture = terminal.getvalue()
    for words in ("1/160", "40 running", "1.250", "50.0 %", "more", "stopping after this step"):
        assert words in picture
    assert "memory" not in picture  # there is no GPU
    progress.close()
    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in picture.splitlines()]
    assert all(len(line) <= 80 for line in shown if "longer than" not in line)
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1


def test_a_terminal_that_can_draw_nothing_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    progress = show({"a": TrialWork()}, terminal)
    progress.say("said")
    progress.close()
    assert terminal.getvalue().endswith(" said\n")


def test_a_long_job_tells_each_step_and_what_its_time_left_is_known_from(monkeypatch):
    log = io.StringIO()
    progress = StepProgress(5, 1, "1 GPU", log)
    assert "for a worker to start (1 GPU)" in dict(progress.view().facts)["waiting"]
    progress.started()
    begun = progress._begun
    monkeypatch.setattr("time.monotonic", lambda: begun + 300)
    assert "known after the next step; 5 min" in dict(progress.view().facts)["time"]
    progress.step(3, {"loss": 0.5, "accuracy": 0.25})
    assert log.getvalue().endswith(
        "step 3 of 5: loss 0.5, accuracy 0.25; about 5 min left, from 2 steps of this run\n"
    )
    progress.waits()
    assert "time" not in dict(progress.view().facts)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "10 s"),
        (95, "100 s"),
        (150, "2 min"),
        (5400, "90 min"),
        (9000, "2.5 h"),
        (90000, "25 h"),
    ],
)
def test_times_are_round(seconds, words):
    assert describe_rest(seconds, "1 epoch").startswith(f"about {words} left")


def test_what_is_waited_for_depends_on_how_long_it_takes():
    assert "usually 10 s" in describe_waiting("1 CPU", 4)
    assert describe_waiting("1 CPU", 75) == "for a free node with 1 CPU, for 1:15 now"
    assert clock(3723) == "1:02:03"
