"""Asking a judge, after each report of a trial, whether Tune should stop it for good."""

from __future__ import annotations

from typing import Any, Protocol

from ray.tune.schedulers import FIFOScheduler, TrialScheduler


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
