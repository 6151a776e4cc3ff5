"""Which units next: what is ready, in bundles, longest chain first; retries; stragglers twice.

Pure scheduling code, told the time by its caller. A unit is ready as soon as those it continues
from are committed; nothing waits for the rest of an attack.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from statistics import median

from robustray.manifest import Retries
from robustray.runtime.failures import Budget, Failure
from robustray.runtime.progress.units import UnitsDone
from robustray.runtime.queue import Node, ReadyUnits

# A call is slow when it takes this many times what it should, and at least so many seconds.
_SLOW_FACTOR, _SLOW_SECONDS, _UNKNOWN_SECONDS = 1.5, 2.0, 30.0
_MOST_REDONE = 3


@dataclass
class Call:
    """Units that a worker has been given together."""

    names: tuple[str, ...]
    started: float
    again: bool = False


@dataclass
class _State:
    node: Node
    missing: set[str]
    budget: Budget
    followers: list[str] = field(default_factory=list[str])
    remaining: float = 0.0
    attempts: int = 0
    running: int = 0
    done: bool = False
    redone: int = 0
    alone: bool = False


class UnitQueue:
    """Hands out units and decides on retries.

    Parameters
    ----------
    nodes : iterable of Node
        All units, each with all that it waits for.
    retries : Retries
        Budgets and back-off, for each unit.
    bundle : int
        Units that a worker is given at once, at most.
    slots : int
        A bundle is large enough once it has this many images to work on.
    fill : int
        Fewer images than this cost as much as this many, so they are not shared out.
    done : collection of str
        Names of the units that are committed.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        retries: Retries,
        *,
        bundle: int = 16,
        slots: int = 256,
        fill: int = 1,
        done: Collection[str] = (),
    ) -> None:
        self._retries = retries
        self._states = {node.name: _State(node, set(node.after), Budget(retries)) for node in nodes}
        for state in self._states.values():
            for name in state.node.after:
                self._states[name].followers.append(state.node.name)
        for name in reversed(self._in_order()):
            state = self._states[name]
            later = [self._states[follower].remaining for follower in state.followers]
            state.remaining = state.node.work + max(later, default=0.0)
        self._ready = ReadyUnits(bundle=bundle, slots=slots, fill=fill)
        self._waiting: list[tuple[float, str]] = []
        self._calls: list[Call] = []
        self._rates: dict[str, list[float]] = defaultdict(list)
        self._spent_s = self._worked = 0.0  # of finished units: all seconds, all work
        self.given_up: dict[str, Failure] = {}
        for state in self._states.values():
            state.done = state.node.name in done
            state.missing -= set(done)
            if not state.missing and not state.done:
                self._make_ready(state)

    def pop(self, now: float, *, group: str | None = None, workers: int = 1) -> Call | None:
        """Return what a worker should do next, or None if nothing is ready at ``now`` (seconds).

        Parameters
        ----------
        now : float
            The time.
        group : str, optional
            What the worker has loaded; preferred.
        workers : int
            Among how many workers what is ready should be shared out.
        """
        while self._waiting and self._waiting[0][0] <= now:
            _, name = heapq.heappop(self._waiting)
            if not self._states[name].done:
                self._make_ready(self._states[name])
        names = self._ready.take(group, workers)
        return self._start(names, now, again=False) if names else None

    def straggler(self, now: float) -> Call | None:
        """Return a unit of the slowest overdue call, to be computed a second time; or None."""
        if self._ready:
            return None
        overdue = [(now - call.started, call) for call in self._calls if self._is_slow(call, now)]
        for _, call in sorted(overdue, key=lambda entry: -entry[0]):
            for name in call.names:
                state = self._states[name]
                if not state.done and state.running == 1:
                    return self._start((name,), now, again=True)
        return None

    def finish(self, name: str, followers_examples: float, seconds: float | None = None) -> bool:
        """Record that a unit is committed.

        Parameters
        ----------
        name : str
            The unit; whoever computed it.
        followers_examples : float
            How many images the next units have to work on.
        seconds : float, optional
            What it took.

        Returns
        -------
        bool
            False if that was known.
        """
        state = self._states[name]
        if seconds is not None:
            self._rates[state.node.group].append(seconds / state.node.work)
            self._spent_s += seconds
            self._worked += state.node.work
        if state.done:
            return False
        state.done = True
        for follower in state.followers:
            after = self._states[follower]
            after.missing.discard(name)
            after.node.examples = followers_examples
            if not after.missing and not after.done:
                self._make_ready(after)
        return True

    def end(self, call: Call) -> None:
        """Record that a worker no longer works on a call, however it ended."""
        self._calls.remove(call)
        for name in call.names:
            self._states[name].running -= 1

    def fail(self, name: str, kind: Failure, now: float) -> float | None:
        """Record a failure of a unit whose call has ended.

        Returns
        -------
        float or None
            Seconds until it may start again (0 if it is done or runs elsewhere); None when its
            budget is spent.
        """
        state = self._states[name]
        if state.done or state.running:
            return 0.0
        wait = state.budget.charge(kind)
        if wait is None:
            self._give_up(name, kind)
            return None
        heapq.heappush(self._waiting, (now + wait, name))
        return wait

    def isolate(self, name: str, kind: Failure) -> bool:
        """Have a unit that failed together with others done again by itself, uncharged.

        One of them may have failed for all. A lost worker is lost for them all, too, so it is the
        second loss that counts; a store that is away has nothing to do with company.

        Returns
        -------
        bool
            False where that tells nothing.
        """
        state = self._states[name]
        if kind is Failure.STORAGE or state.done or state.running or state.alone:
            return False
        is_first = not state.budget.has_failed(kind)
        if kind is Failure.PREEMPTION and is_first and self._retries.preemption:
            return False
        state.alone = True
        state.node.batch = name
        self._make_ready(state)
        return True

    def redo(self, name: str) -> bool:
        """Have a unit that was committed computed again: what the store holds is damaged.

        Returns
        -------
        bool
            False where that has happened too often to go on.
        """
        state = self._states[name]
        if not state.done:
            return True
        state.done = False
        state.redone += 1
        for follower in state.followers:
            after = self._states[follower]
            if not after.done:
                after.missing.add(name)
        if not state.running:
            self._make_ready(state)
        return state.redone <= _MOST_REDONE

    def again(self, name: str) -> None:
        """Have a unit whose call has ended handed out again, once it is ready."""
        state = self._states[name]
        if not state.done and not state.running and not state.missing:
            self._make_ready(state)

    def drop(self, group: str) -> None:
        """Forget what is not done of a group: it is not wanted any more."""
        self._ready.drop(group)
        for state in self._states.values():
            if state.node.group == group:
                state.done = True

    def attempt(self, name: str) -> int:
        """Return how often a unit was handed out."""
        return self._states[name].attempts

    def node(self, name: str) -> Node:
        """Return a unit."""
        return self._states[name].node

    def is_done(self, name: str) -> bool:
        """Whether a unit is committed."""
        return self._states[name].done

    @property
    def unfinished(self) -> int:
        """Units that are neither done nor given up."""
        states = self._states.items()
        return sum(not state.done and name not in self.given_up for name, state in states)

    @property
    def counts(self) -> UnitsDone:
        """How many units are where."""
        states = self._states.values()
        open_ = [s for name, s in self._states.items() if not s.done and name not in self.given_up]
        return UnitsDone(
            total=len(states),
            done=sum(state.done for state in states),
            running=sum(state.running > 0 for state in open_),
            given_up=sum(not self._states[name].done for name in self.given_up),
        )

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.unfinished == 0

    def seconds_left(self, workers: int) -> float | None:
        """Return how long the rest will take, or None while nothing was measured.

        All work was as fast as all seconds say: small units cost more for their work, and most
        units that end first are small.
        """
        if not self._worked:
            return None
        work = sum(s.node.work for s in self._states.values() if not s.done)
        return work * self._spent_s / self._worked / max(workers, 1)

    def _in_order(self) -> list[str]:
        """Return all names so that each stands after those it waits for."""
        missing = {name: len(state.missing) for name, state in self._states.items()}
        order = [name for name, count in missing.items() if count == 0]
        for name in order:
            for follower in self._states[name].followers:
                missing[follower] -= 1
                if missing[follower] == 0:
                    order.append(follower)
        assert len(order) == len(missing), "units wait for each other"
        return order

    def _make_ready(self, state: _State) -> None:
        self._ready.add(state.node, state.remaining)

    def _start(self, names: tuple[str, ...], now: float, *, again: bool) -> Call:
        call = Call(names, now, again)
        self._calls.append(call)
        for name in names:
            state = self._states[name]
            state.running += 1
            state.attempts += 1
        return call

    def _is_slow(self, call: Call, now: float) -> bool:
        nodes = [self._states[name].node for name in call.names]
        rates = self._rates.get(nodes[0].group)
        if not rates:
            return now - call.started > _UNKNOWN_SECONDS
        expected = sum(node.work for node in nodes) * median(rates)
        return now - call.started > max(_SLOW_SECONDS, _SLOW_FACTOR * expected)

    def _give_up(self, name: str, kind: Failure) -> None:
        """Give a unit up, and with it all that continue from it."""
        self.given_up[name] = kind
        for follower in self._states[name].followers:
            if follower not in self.given_up and not self._states[follower].done:
                self._give_up(follower, kind)
