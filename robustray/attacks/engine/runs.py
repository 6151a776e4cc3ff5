"""Which runs of which examples are still to be made, and what the finished ones say."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

ProofT = TypeVar("ProofT")


class Run(NamedTuple):
    """One run: which example, and which of its runs in order."""

    row: int
    number: int


class Spent(NamedTuple):
    """What runs took: passes, and gradients that were not finite."""

    forwards: int
    backwards: int
    flawed: int

    def plus(self, other: Spent) -> Spent:
        """Return the sum."""
        return Spent(*(a + b for a, b in zip(self, other, strict=True)))


NOTHING = Spent(0, 0, 0)


@dataclass
class _Case(Generic[ProofT]):
    """An example without a verdict."""

    begun: int = 1  # runs begun or waiting
    failed: dict[int, tuple[Spent, ProofT]] = field(default_factory=dict)
    broken: tuple[int, Spent, ProofT] | None = None  # the first run known to succeed


@dataclass(frozen=True)
class Verdict(Generic[ProofT]):
    """The verdict on one example: from its first run that succeeded, else from its last run."""

    row: int
    broken: bool
    spent: Spent
    proof: ProofT


class RunBook(Generic[ProofT]):
    """Deals out runs and derives verdicts that do not depend on how the runs were scheduled.

    An example's runs are numbered; its verdict is that of making them one after the other until
    one succeeds. They may be made at the same time: a run ahead of its turn is dropped, and its
    passes are not counted, when one before it succeeds.

    Parameters
    ----------
    rows : iterable of int
        The examples.
    runs : int
        How many runs each gets at most.
    """

    def __init__(self, rows: Iterable[int], runs: int) -> None:
        self._runs = runs
        self._waiting = deque(Run(row, 0) for row in rows)
        self._cases: dict[int, _Case[ProofT]] = {run.row: _Case() for run in self._waiting}

    @property
    def waiting(self) -> int:
        """How many runs are due and have not begun."""
        return len(self._waiting)

    def next(self, most: int) -> list[Run]:
        """Deal out runs that are due."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def ahead(self, rows: Iterable[int], most: int) -> list[Run]:
        """Deal out runs ahead of their turn, of examples that have runs going, earliest first."""
        dealt: list[Run] = []
        cases = {row: self._cases[row] for row in rows if row in self._cases}
        while len(dealt) < most:
            open_ = {r: c for r, c in cases.items() if c.begun < self._runs and c.broken is None}
            for row, case in sorted(open_.items(), key=lambda item: (item[1].begun, item[0])):
                if len(dealt) < most:
                    dealt.append(Run(row, case.begun))
                    case.begun += 1
            if not open_:
                break
        return dealt

    def pointless(self, run: Run) -> bool:
        """Return whether an earlier run of the example has succeeded."""
        case = self._cases.get(run.row)
        return case is None or (case.broken is not None and case.broken[0] < run.number)

    def enter(self, run: Run, broken: bool, spent: Spent, proof: ProofT) -> Verdict[ProofT] | None:
        """Enter how a run ended; return the example's verdict once there is one."""
        if self.pointless(run):
            return None
        case = self._cases[run.row]
        if broken:
            case.broken = (run.number, spent, proof)
        else:
            case.failed[run.number] = (spent, proof)
        return self._decide(run.row, case)

    def _decide(self, row: int, case: _Case[ProofT]) -> Verdict[ProofT] | None:
        total, number = NOTHING, 0
        while number in case.failed:
            total, number = total.plus(case.failed[number][0]), number + 1
        if case.broken is not None and case.broken[0] == number:
            verdict = Verdict(row, True, total.plus(case.broken[1]), case.broken[2])
        elif number == self._runs:
            verdict = Verdict(row, False, total, case.failed[number - 1][1])
        else:
            if number == case.begun:
                case.begun += 1
                self._waiting.append(Run(row, number))
            return None
        del self._cases[row]
        return verdict
