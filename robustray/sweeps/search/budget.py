"""A search's budget in device-hours: what was taken, what is promised, what a trial will take."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from robustray.runtime.attempts import Attempt, list_attempts
from robustray.store import ObjectStore
from robustray.sweeps.mending import for_each
from robustray.sweeps.plan import Plan
from robustray.sweeps.records import last_sign

_HOUR_MS = 3.6e6


class Budget:
    """Keeps account of a study's device-hours.

    Taken is what the attempts in the store took. A trial that has begun is promised all that it is
    expected to take, so a new one begins only where the rest of the budget pays for it. A price is
    the plan's, times what finished trials of this study took for what the plan says of them. While
    nothing was measured and no trial is finished, prices are unknown and count as nothing.

    Parameters
    ----------
    plan : Plan
        Of the study. If speeds are known, that of the fastest device prices trials: which one they
        will get is not known, and a price that is too high would end a search before it began.
    store : ObjectStore
        Where the attempts are.
    hours : float or None
        The budget; None is without end.
    """

    def __init__(self, plan: Plan, store: ObjectStore, hours: float | None) -> None:
        self._plan, self._store, self._hours = plan, store, hours
        self._share = min(1.0, plan.study.manifest.resources.gpus or 1.0)
        self._taken: dict[str, float] = {}
        self._finished: set[str] = set()
        self._speed = min(plan.throughputs, key=plan.device_hours, default=None)
        self._factor = 1.0 if self._speed else 0.0

    @property
    def taken(self) -> float:
        """Device-hours of all attempts that have ended."""
        return sum(self._taken.values())

    def read(self, names: Iterable[str]) -> None:
        """Read again what these trials have taken."""
        names = list(names)
        self._taken |= dict(zip(names, for_each(self._read, names), strict=True))

    def finish(self, names: Iterable[str]) -> None:
        """Learn prices from trials that are finished."""
        names = list(names)
        self.read(names)
        self._finished |= set(names)
        taken = sum(self._taken[name] for name in self._finished)
        if taken > 0:
            self._factor = taken / sum(map(self._planned, self._finished))

    def price(self, name: str) -> float:
        """Return the device-hours that a trial is expected to take from its start to its end."""
        return self._factor * self._planned(name)

    def choose_affordable(self, names: Iterable[str], running: Collection[str]) -> list[str]:
        """Return the trials that the budget pays for beside those that have not ended yet."""
        if self._hours is None:
            return list(names)
        ended = sum(hours for name, hours in self._taken.items() if name not in running)
        promised = sum(max(self.price(one), self._taken.get(one, 0.0)) for one in running)
        left = self._hours - ended - promised
        return [name for name in names if self.price(name) <= left] if left > 0 else []

    def _planned(self, name: str) -> float:
        """Return the plan's device-hours; MACs, which are as good to compare, without a speed."""
        if self._speed is None:
            return float(self._plan.costs[name].total_macs)
        return self._share * self._plan.seconds(name, self._speed) / 3600

    def _read(self, name: str) -> float:
        tries = list_attempts(self._store, self._plan.study.trial_prefix(name))
        spans = (self._end(name, tries, place) - one.started_ms for place, one in enumerate(tries))
        return self._share * sum(spans) / _HOUR_MS

    def _end(self, name: str, tries: Sequence[Attempt], place: int) -> int:
        """Return when an attempt ended: one that nobody closed, with its last committed epoch."""
        one = tries[place]
        if one.ended_ms is not None:
            return one.ended_ms
        following = tries[place + 1].started_ms if place + 1 < len(tries) else math.inf
        return last_sign(self._store, self._plan.study, name, one.started_ms, following)
