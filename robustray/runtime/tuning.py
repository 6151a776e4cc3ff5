"""What Tune asks us while it runs trials: which is next, may it go on, is it time to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from robustray.runtime.queue import TrialQueue

if TYPE_CHECKING:
    from robustray.runtime.trial_pool import TrialListener


class Judge(Protocol):
    """Who may stop trials early. Called in the driver's main loop."""

    def admits(self, name: str) -> bool:
        """Tell whether a trial may start."""
        ...

    def goes_on(self, name: str, report: dict[str, Any]) -> bool:
        """Hear a worker's report, and tell whether its trial goes on."""
        ...

    def stopped(self, name: str) -> object:
        """Return something true for a trial that was stopped for good."""
        ...


class Chooser(Protocol):
    """Who says which of the held trials begins next. Called in the driver's main loop."""

    def choose(self, left: Collection[str]) -> str | None:
        """Return one of them; None: none for now, and none at all once nothing runs."""
        ...


class JudgedScheduler(FIFOScheduler):
    """Asks the search whether a trial continues, after each report, and has Tune stop it if not."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge

    def __getstate__(self) -> dict[str, Any]:
        """Hide the judge's store from Tune, which pickles schedulers for restores."""
        return {}

    def on_trial_result(  # noqa: D102 (Tune's own)
        self, tune_controller: Any, trial: Any, result: dict[str, Any]
    ) -> str:
        goes_on = "outcome" in result or self._judge.goes_on(trial.config["trial"], result)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


class QueueSearcher(Searcher):
    """Suggests what the queue hands out and the judge admits; the chooser releases what is held."""

    def __init__(
        self,
        queue: TrialQueue,
        stop: threading.Event,
        listener: TrialListener,
        judge: Judge | None,
        chooser: Chooser | None = None,
    ) -> None:
        super().__init__()
        self._queue, self._stop, self._listener = queue, stop, listener
        self._judge, self._chooser = judge, chooser

    def __getstate__(self) -> dict[str, Any]:
        """Hide the driver's event from Tune, which pickles searchers for restores."""
        return {}

    def suggest(self, trial_id: str) -> Any:  # noqa: D102 (Tune's own)
        if self._queue.finished or self._stop.is_set():
            return Searcher.FINISHED
        name = self._pop()
        while name is not None and self._judge is not None and not self._judge.admits(name):
            self._queue.stop(name)
            self._listener.stopped(name, running=False)
            name = self._pop()
        if name is None:
            return Searcher.FINISHED if self._queue.finished else None
        return {"trial": name}

    def _pop(self) -> str | None:
        """Return what is ready, or else what the chooser makes ready."""
        queue, name = self._queue, self._queue.pop(time.monotonic())
        if name is not None or self._chooser is None or not queue.held:
            return name
        chosen = self._chooser.choose(queue.held)
        if chosen is not None:
            queue.release(chosen)
        elif queue.unfinished == len(queue.held):  # nothing can change that any more
            queue.held.clear()
        return queue.pop(time.monotonic())

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the callback hears the same, and why a trial failed."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: no state here outlives the driver."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: no state here outlives the driver."""
        raise NotImplementedError


class StopWhen(tune.Stopper):
    """Stops all trials once the run stops and none is left that could end by itself."""

    def __init__(self, may_end: Callable[[], bool]) -> None:
        self._may_end = may_end

    def __getstate__(self) -> dict[str, Any]:
        """Hide the driver's state from Tune, which pickles stoppers for restores."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: D102 (Tune's own)
        return False

    def stop_all(self) -> bool:  # noqa: D102 (Tune's own)
        return self._may_end()
