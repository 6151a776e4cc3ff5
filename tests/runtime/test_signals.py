"""Ctrl-C in a real process: the first is answered at once, the second ends it."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from robustray.runtime.signals import Stop, stopping_politely

ANSWER = "stopping after this step; press again to end now"
# A step that ends when a line comes, so that a test decides when that is.
RUN = """
import sys
from robustray.runtime.signals import Stop, stopping_politely

stop = Stop()
with stopping_politely(stop):
    while not stop.is_set():
        print("step begins", flush=True)
        sys.stdin.readline()
        print("step ends", flush=True)
print("all is in order", flush=True)
"""


@contextmanager
def running() -> Iterator[subprocess.Popen[str]]:
    """Start such a run; it is in the middle of its first step."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "step begins\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def read_answer(process: subprocess.Popen[str]) -> str:
    """Return what is said while the step still runs."""
    assert process.stderr is not None
    assert process.stderr.readline() == "\n"
    return process.stderr.readline().rstrip()


def test_the_first_ctrl_c_is_answered_at_once_and_the_step_ends_in_order():
    with running() as process:
        process.send_signal(signal.SIGINT)
        assert read_answer(process) == ANSWER
        said, complaints = process.communicate("go on\n", timeout=60)
    assert said == "step ends\nall is in order\n"
    assert (process.returncode, complaints) == (0, "")


def test_the_second_ctrl_c_ends_the_run_now():
    with running() as process:
        process.send_signal(signal.SIGINT)
        read_answer(process)
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=60)
    assert said == ""
    assert process.returncode == -signal.SIGINT
    assert complaints.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("times", [1, 2])
def test_sigterm_ends_a_run_in_order_however_often_it_comes(times):
    with running() as process:
        process.send_signal(signal.SIGTERM)
        assert read_answer(process) == "stopping after this step"
        for _ in range(times - 1):
            process.send_signal(signal.SIGTERM)
        said, complaints = process.communicate("go on\n", timeout=60)
    assert said == "step ends\nall is in order\n"
    assert (process.returncode, complaints) == (0, "")


def test_sigterm_after_a_ctrl_c_leaves_ten_seconds():
    stop = Stop()
    with stopping_politely(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        assert stop.deadline == math.inf
        signal.raise_signal(signal.SIGTERM)
        assert time.monotonic() < stop.deadline <= time.monotonic() + 10
