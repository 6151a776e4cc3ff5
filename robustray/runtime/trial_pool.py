"""Driving a queue of trials with Ray Tune.

Tune starts actors, gives them their resources and tells us what became of them. Everything that
must outlive a process is elsewhere: trials resume from the store, and which trial comes next, and
whether a failed one comes again, is decided by `TrialQueue`. So Tune gets a searcher that suggests
trials from the queue and no retries, checkpoints or restores of its own.
"""

# Ray's types are incomplete.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.execution import class_cache
from ray.tune.trainable.function_trainable import wrap_function

from robustray.cluster import preemption
from robustray.errors import MachineError
from robustray.manifest import Resources
from robustray.runtime.attempts import PREEMPTED
from robustray.runtime.failures import Failure, classify, one_line
from robustray.runtime.queue import TrialQueue
from robustray.runtime.signals import Stop, stopping_politely
from robustray.runtime.tuning import Chooser, Judge, JudgedScheduler, QueueSearcher, StopWhen

_LAUNCHER_BYTES = 400 * 2**20  # a process with torch and Ray, without work of its own

# One attempt at the named trial in a worker; reports dictionaries, returns the outcome.
Execute = Callable[[str, Callable[[dict[str, Any]], None]], dict[str, Any]]


class TrialListener:
    """What a driver hears of a running sweep, in its main loop."""

    def started(self, name: str) -> None:
        """Hear that a worker has begun an attempt."""

    def progressed(self, name: str, report: dict[str, Any]) -> None:
        """Hear a worker's report."""

    def finished(self, name: str) -> None:
        """Hear that a trial is done."""

    def stopped(self, name: str, running: bool) -> None:
        """Receive that the search has stopped a trial, which may not have started."""

    def preempted(self, name: str) -> bool:
        """Tell whether a trial whose worker is gone had been asked to stop, and saved its state."""
        return False

    def failed(self, name: str, kind: Failure, message: str, wait: float | None) -> None:
        """Hear that an attempt failed; the next comes after ``wait`` seconds, or never if None."""

    def tick(self) -> None:
        """Hear that some time has passed; a `MachineError` from here ends the run."""


def run_queue(
    queue: TrialQueue,
    execute: Execute,
    resources: Resources,
    listener: TrialListener,
    *,
    name: str,
    judge: Judge | None = None,
    chooser: Chooser | None = None,
) -> bool:
    """Run trials until the queue is finished.

    Parameters
    ----------
    queue : TrialQueue
        What is to be done.
    execute : callable
        Makes one attempt; runs in a worker, must be picklable.
    resources : Resources
        Of each trial.
    listener : Listener
        Told what happens.
    name : str
        Shown by Ray for these actors.
    judge : Judge, optional
        Stops trials early; by default every trial runs to its end.
    chooser : Chooser, optional
        Says which of the trials that the queue holds back begins next.

    Returns
    -------
    bool
        False if it was interrupted (SIGINT, SIGTERM) with work left.

    Raises
    ------
    MachineError
        If no trial could be started for ``resources.wait_minutes``; what ``listener.tick`` raises.
    """
    stop = Stop()
    state = _SweepCallback(queue, stop, listener, resources.wait_minutes * 60, judge)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "64"
    _keep_keys_to_nodes()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # we tell what failed, once
    with tempfile.TemporaryDirectory(prefix="robustray-tune-") as scratch, stopping_politely(stop):
        tuner = tune.Tuner(
            tune.with_resources(_trainable(execute), _claim(resources)),
            param_space={},
            tune_config=tune.TuneConfig(
                search_alg=QueueSearcher(queue, stop, listener, judge, chooser),
                scheduler=JudgedScheduler(judge) if judge else None,
                num_samples=-1,
                max_concurrent_trials=resources.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=scratch,
                verbose=0,
                callbacks=[state],
                stop=StopWhen(lambda: state.may_end),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if state.abort is None:
                raise
        finally:
            preemption.withdraw()
    if state.abort is not None:
        raise state.abort
    return queue.finished


def _keep_keys_to_nodes() -> None:
    """Stop Tune from copying the driver's S3 keys into the runtime environment of its actors.

    Ray's dashboard and logs show such an environment. Every node has its own keys.
    """
    passed_on = class_cache.ENV_VARS_TO_PROPAGATE
    passed_on.difference_update([name for name in passed_on if name.startswith("AWS_")])


def _claim(resources: Resources) -> tune.PlacementGroupFactory:
    """Return what the process takes that Tune starts for a trial.

    Several workers are started, and their resources claimed, by that process itself: it needs no
    more than memory.
    """
    if resources.workers > 1:
        return tune.PlacementGroupFactory([{"memory": _LAUNCHER_BYTES}])
    return tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": resources.gpus}])


def _trainable(execute: Execute) -> type[tune.Trainable]:
    def attempt(config: dict[str, Any]) -> None:
        name = config["trial"]
        outcome = execute(name, lambda report: tune.report({"trial": name, **report}))
        tune.report(outcome)

    class Attempt(wrap_function(attempt)):
        """The function above, in a process that hears SIGTERM: only its main thread can."""

        def setup(self, config: dict[str, Any]) -> None:
            preemption.listen()
            super().setup(config)

    return Attempt


class _SweepCallback(tune.Callback):
    """Turns Tune's events into the queue's."""

    def __init__(
        self,
        queue: TrialQueue,
        stop: Stop,
        listener: TrialListener,
        patience_s: float,
        judge: Judge | None,
    ) -> None:
        self._queue, self._listener, self._patience_s = queue, listener, patience_s
        self._judge, self._stop, self._asked = judge, stop, False
        self._outcomes: dict[str, dict[str, Any]] = {}
        self._running: set[str] = set()
        self._waiting_since = time.monotonic()
        self.abort: MachineError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Hide the driver's locks and threads from Tune, which pickles callbacks for restores."""
        return {}

    @property
    def may_end(self) -> bool:
        """Whether the run stops, and no trial is still to save what it has."""
        return self._stop.overdue or (self._stop.is_set() and not self._running)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._stop.is_set() and not self._asked:
            preemption.ask_workers()
            self._asked = True
        now = time.monotonic()
        if self._running or not self._queue.handed_out:
            self._waiting_since = now
        elif now - self._waiting_since > self._patience_s:
            self.abort = MachineError(
                f"no node could start a trial for {self._patience_s / 60:g} minutes "
                "(resources.wait_minutes). Nothing is lost; run the same command again"
            )
            raise self.abort
        try:
            self._listener.tick()
        except MachineError as error:
            self.abort = error
            raise

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._running.add(trial.config["trial"])
        self._listener.started(trial.config["trial"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "outcome" in result:
            self._outcomes[trial.trial_id] = result
        elif "trial" in result:
            self._listener.progressed(trial.config["trial"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name, outcome = trial.config["trial"], self._outcomes.pop(trial.trial_id, None)
        if self._was_stopped(name):
            return
        self._running.discard(name)
        if outcome is None:
            return  # stopped from outside: the driver is shutting down
        if outcome["outcome"] == "finished":
            self._queue.succeed(name)
            self._listener.finished(name)
        else:
            kind = outcome["outcome"]
            failure = Failure.PREEMPTION if kind == PREEMPTED else Failure(kind)
            self._fail(name, failure, outcome["message"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._was_stopped(trial.config["trial"]):
            return
        error = _read_error(trial)
        message = one_line(error) if error else "the worker was lost"
        self._fail(trial.config["trial"], _kind(error), message)

    def _was_stopped(self, name: str) -> bool:
        """Close a trial that the search has stopped, however its worker ended then."""
        if self._judge is None or not self._judge.stopped(name):
            return False
        running = name in self._running
        self._running.discard(name)
        self._queue.stop(name)
        self._listener.stopped(name, running)
        return True

    def _fail(self, name: str, kind: Failure, message: str) -> None:
        self._running.discard(name)
        if kind is Failure.PREEMPTION and self._listener.preempted(name):
            self._queue.give_back(name)
            return
        wait = self._queue.fail(name, kind, time.monotonic())
        self._listener.failed(name, kind, message, wait)


def _read_error(trial: Any) -> BaseException | None:
    """Return the exception that Tune met; it lies in Tune's own scratch folder of this driver."""
    path = trial.pickled_error_file
    return cloudpickle.loads(Path(path).read_bytes()) if path else None


def _kind(error: BaseException | None) -> Failure:
    """Tell what took a worker away from the error that Ray gives."""
    return Failure.PREEMPTION if error is None else classify(error)
