"""Feeding MLflow and other sinks from the background, with patience for those that are away."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from robustray.errors import MachineError, StoreUnavailableError
from robustray.tracking.faults import RecordRejectedError, TrackingUnavailableError
from robustray.tracking.records import RunRecord
from robustray.tracking.sink import Sink
from robustray.words import redact

RecordMaker = Callable[[], RunRecord]

FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
LONGEST_WAIT_WHEN_DRAINING = 5.0
CHECK_SECONDS = 5.0


@dataclass
class _Waiting:
    """When something that failed may be tried again (monotonic seconds), doubling each time."""

    until: float = 0.0
    wait: float = 0.0
    failures: int = 0

    def fail(self, longest: float) -> None:
        self.failures += 1
        self.wait = min(longest, max(FIRST_WAIT, 2 * self.wait))
        self.until = time.monotonic() + self.wait

    def hurry(self) -> None:
        self.until = self.wait = 0.0


@dataclass
class _Task:
    """The newest record of a key, not yet made."""

    make: RecordMaker
    waiting: _Waiting


class Uploader:
    """Brings records to a sink from a daemon thread, so that work never waits for it.

    While the sink (or the store that records are made from) is away, nothing is lost: tries are
    repeated after 1, 2, 4 ... 30 seconds, with one message when it goes and one when it is back. A
    record that it will never accept is reported once and holds up nothing.

    Parameters
    ----------
    sink : Sink
        What records are brought to.
    log : callable
        Takes one line of text; the logger ``robustray.tracking`` by default.
    allowed : callable, optional
        Asked before each try, and may raise what records may; once it says False, nothing more is
        brought there.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        log: Callable[[str], None] | None = None,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sink = sink
        self.name, self.title = sink.name, sink.title
        self._logger = log or logging.getLogger("robustray.tracking").warning
        self._allowed = allowed
        self._change = threading.Condition()
        self._tasks: dict[str, _Task] = {}
        self._rejected: dict[str, str] = {}
        self._tried: set[str] = set()
        self._away: dict[str, _Waiting] = {}
        self._drains = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="robustray-uploader", daemon=True)
        self._thread.start()

    def submit(self, key: str, make_record: RecordMaker) -> None:
        """Have the record of a run brought to the sink, soon; returns at once.

        Parameters
        ----------
        key : str
            The run's key. Only the newest submission of a key counts.
        make_record : callable
            Returns the `RunRecord`; called in the background thread, more than once if need be. May
            raise `MachineError` (the store is away): it is called again later.
        """
        with self._change:
            earlier = self._tasks.get(key)
            self._tasks[key] = _Task(make_record, earlier.waiting if earlier else _Waiting())
            self._change.notify_all()

    def check(self) -> bool | str:
        """Return True if the sink answers within some 5 seconds, else what is wrong.

        The answer is for people; submitting works either way. The first call in a process imports
        MLflow, which takes further seconds.
        """
        answer: list[bool | str] = []
        self._sink.prepare()

        def ask() -> None:
            try:
                self._sink.probe()
                answer.append(True)
            except Exception as error:
                answer.append(_reason(error))

        thread = threading.Thread(target=ask, name="robustray-mlflow-check", daemon=True)
        thread.start()
        thread.join(CHECK_SECONDS)
        return answer[0] if answer else f"no answer within {CHECK_SECONDS:.0f} s"

    def hurry(self) -> None:
        """Try now whatever waits for a later try."""
        with self._change:
            for waiting in (*self._away.values(), *(t.waiting for t in self._tasks.values())):
                waiting.hurry()
            self._change.notify_all()

    def drain(self, timeout_s: float) -> list[str]:
        """Wait until everything submitted is in the sink, at most ``timeout_s`` seconds.

        Whatever waits for a later try is tried now.

        Returns
        -------
        list of str
            Keys whose newest record is not there: the sink was away, or refuses the record.
        """
        with self._change:
            self._drains += 1
            self.hurry()
            try:
                self._change.wait_for(lambda: not self._tasks or self._closed, timeout_s)
            finally:
                self._drains -= 1
            return list(dict.fromkeys((*self._tasks, *self._rejected)))

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop; what is under way may still end within ``timeout_s`` seconds."""
        self._give_up()
        self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        while (key := self._next()) is not None:
            self._attempt(key)

    def _next(self) -> str | None:
        """Wait for a key that may be tried; None when closed."""
        with self._change:
            while not self._closed:
                now = time.monotonic()
                pause = max((away.until - now for away in self._away.values()), default=0.0)
                waits = {key: task.waiting.until - now for key, task in self._tasks.items()}
                ready = next((key for key, wait in waits.items() if wait <= 0), None)
                if pause <= 0 and ready is not None:
                    return ready
                self._change.wait(max(pause, min(waits.values())) if waits else None)
            return None

    def _attempt(self, key: str) -> None:
        """Try one key; whatever happens is noted, nothing is raised."""
        task = self._tasks.get(key)
        if task is None:
            return
        try:
            if not self._allowed():
                return self._give_up()
            record = task.make()
            self._note_back("the store")
            self._bring(key, task, record)
        except StoreUnavailableError as error:
            self._note_away("the store", key, _reason(error))
        except MachineError as error:
            self._postpone(key, task, _reason(error))
        except RecordRejectedError as error:
            self._reject(key, task, _reason(error))
        except BaseException:  # a record's fault must not end the thread
            self._reject(key, task, redact(traceback.format_exc()))

    def _give_up(self) -> None:
        """Bring nothing more, and let nobody wait for it."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _bring(self, key: str, task: _Task, record: RunRecord) -> None:
        parent = record.parent_key
        if parent in self._tasks and parent not in self._tried:
            self._tried.add(parent)  # once only: a parent that can't come holds up no child
            self._attempt(parent)
            if self._away or self._closed:
                self._tried.discard(parent)
                return
        try:
            linked = self._sink.apply(record)
        except (TrackingUnavailableError, RecordRejectedError) as error:
            if not self._answers(key):
                return
            if isinstance(error, TrackingUnavailableError) and not error.refused:
                raise
            if task.waiting.failures:
                raise RecordRejectedError(str(error)) from None
            # Something before a server may have said no in its place, until just now.
            return self._postpone(key, task, "")
        self._note_back(self.title)
        if linked or parent not in self._tasks:
            self._done(key, task)
        else:
            self._postpone(key, task, "")

    def _answers(self, key: str) -> bool:
        """After a failure: whether the sink is there, so that the fault is the record's."""
        try:
            self._sink.probe()
        except Exception as error:
            self._note_away(self.title, key, _reason(error))
            return False
        self._note_back(self.title)
        return True

    def _note_away(self, service: str, key: str, reason: str) -> None:
        with self._change:
            self._tasks[key] = self._tasks.pop(key)  # the next try is another's
            is_news = service not in self._away
            self._away.setdefault(service, _Waiting()).fail(self._longest())
        if is_news:
            self._log(f"{service} is away, records wait for it: {reason}")

    def _note_back(self, service: str) -> None:
        with self._change:
            was_away = self._away.pop(service, None)
        if was_away:
            self._log(f"{service} is back, {len(self._tasks)} records are on their way")

    def _postpone(self, key: str, task: _Task, reason: str) -> None:
        with self._change:
            task.waiting.fail(self._longest())
        # The first failure is most often a connection that the server closed meanwhile.
        if task.waiting.failures == 2 and reason:
            self._log(f"run {key}: tried again until it works: {reason}")

    def _reject(self, key: str, task: _Task, reason: str) -> None:
        with self._change:
            is_news = self._rejected.get(key) != reason
            if self._tasks.get(key) is task:
                self._rejected[key] = reason
                del self._tasks[key]
        if is_news:
            self._log(f"run {key} can't be shown in {self.name}: {reason}")
        self._notify()

    def _done(self, key: str, task: _Task) -> None:
        with self._change:
            self._tried.add(key)
            self._rejected.pop(key, None)
            task.waiting.hurry()
            task.waiting.failures = 0
            if self._tasks.get(key) is task:
                del self._tasks[key]
        self._notify()

    def _notify(self) -> None:
        """Let those who drain look again; after the log, so that it is complete when they do."""
        with self._change:
            self._change.notify_all()

    def _longest(self) -> float:
        return LONGEST_WAIT_WHEN_DRAINING if self._drains else LONGEST_WAIT

    def _log(self, line: str) -> None:
        with suppress(Exception):  # a broken log must not end the thread
            self._logger(line)


def _reason(error: Exception) -> str:
    plain = isinstance(error, MachineError | RecordRejectedError) and str(error)
    return redact(plain or f"{type(error).__name__}: {error}").partition("\n")[0]
