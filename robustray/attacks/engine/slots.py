"""The slot engine: a device batch of fixed shape whose slots are refilled as examples leave.

A slot holds one run of one example (see ``steppers``). Every few steps the host looks which runs
have claimed success or spent their budget, takes them out and puts others in. Candidates are
collected and judged in full batches, in float32; a run whose claim is not confirmed goes back to
a slot and on with its search. When no run is due, idle slots get runs ahead of their turn (other
targets, other restarts); when there is nothing for them either, the batch shrinks to a shape
that gives the same bits, and slots that stay idle there make later steps of attacks that can leap.
None of that scheduling changes a verdict, an adversarial example or a count of passes.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.inputs import Shapes
from robustray.attacks.engine.network import Network
from robustray.attacks.engine.oracle import Oracle, judge
from robustray.attacks.engine.runs import Run, RunBook, Spent, Verdict
from robustray.attacks.engine.steppers import (
    ReplayedStep,
    SlotState,
    Stepper,
    keep_rows,
)
from robustray.attacks.result import AttackResult

_PATIENCE = 8  # steps after which a run is likely to last, and between tidyings of the batch
_LONGEST = 64  # steps between two looks at a device
_ENOUGH = 8  # runs that are worth an interruption
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
_KEPT, _FROM_HEAP = 512 * 1024**2, 32 * 1024**2
_LANES = 32  # vector units: runs begin in numbers that leave them no remainder


class SlotEngine:
    """Runs one attack on any number of examples.

    Parameters
    ----------
    stepper : Stepper
        The attack.
    network : Network
        The model; the caller has put it into evaluation mode and true float32.
    examples : Examples
        Correctly classified images, on any device.
    logits_NK : Tensor
        What the model says of them.
    shapes : Shapes
        The physical batches of passes.
    slots : int
        How many slots there are at most; rounded up to full batches.
    graphs : bool
        Replay steps as CUDA graphs, on devices that have them.
    """

    def __init__(
        self,
        stepper: Stepper[Any],
        network: Network,
        examples: Examples,
        logits_NK: Tensor,
        shapes: Shapes,
        slots: int,
        graphs: bool = True,
    ) -> None:
        self._stepper, self._network, self._examples = stepper, network, examples
        self._logits_NK, self._shapes = logits_NK, shapes
        self._most = -(-slots // shapes.full) * shapes.full
        self._oracle = Oracle(network, shapes, stepper.eot)
        self._every = 1 if network.device.type == "cpu" else _PATIENCE
        self._leaps = self._every == 1 and stepper.attack.leaps
        self._advance = ReplayedStep(self._step_runs) if graphs else self._step_runs
        runs = stepper.attack.runs(logits_NK.shape[1])
        self._book: RunBook[Tensor] = RunBook(range(len(examples)), runs)
        self._state: SlotState | None = None
        self._runs: list[Run | None] = []  # who is in which slot
        self._since: list[int] = []  # the step at which they came
        self._occupied = 0
        self._judging: list[tuple[list[Run], SlotState]] = []
        self._returning: list[tuple[list[Run], SlotState]] = []
        self._result = AttackResult.begin(examples.x, torch.zeros_like(examples.y_N) > 0)
        self._steps = self._changed = 0  # steps made, and when a run last left or came

    def run(self) -> AttackResult:
        """Return a result for each example, on its device."""
        if self._network.device.type == "cpu":
            _keep_freed_memory()
        while True:
            self._fill()
            if not self._occupied:
                if not self._judging:
                    return self._result
                self._judge()
                continue
            for _ in range(self._count_steps()):
                self._step()
            self._collect()

    def _count_steps(self) -> int:
        """Return how many steps to make before the host looks: more where little happens."""
        if self._every == 1:
            return 1
        quiet = (self._steps - self._changed) // _PATIENCE
        return min(max(self._every, quiet // _PATIENCE * _PATIENCE), _LONGEST)

    def _step(self) -> None:
        assert self._state is not None
        idle = 2 * self._occupied <= len(self._runs) and not self._book.waiting
        leap = self._leaps and idle and not self._returning
        self._state = self._leap(self._state) if leap else self._advance(self._state)
        self._steps += 1

    def _leap(self, state: SlotState) -> SlotState:
        """Use idle slots for later steps of the runs that there are."""
        taken = [slot for slot, run in enumerate(self._runs) if run is not None]
        rows = torch.tensor(taken, device=state.y_B.device)
        after = self._stepper.leap(self._oracle, state.take(rows), len(self._runs))
        return state.put(rows, after)

    def _step_runs(self, state: SlotState) -> SlotState:
        after = self._stepper.step(self._oracle, state)
        if self._every > 1:
            after = keep_rows(state.claimed_B | state.spent_B, state, after)
        return after

    def _collect(self) -> None:
        """Take out who is done, and judge when there is a full batch of candidates."""
        state = self._state
        assert state is not None
        done = (state.claimed_B | state.spent_B).nonzero()[:, 0].tolist()
        leaving = {slot: run for slot in done if (run := self._runs[slot]) is not None}
        if leaving:
            self._changed = self._steps
            rows = torch.tensor(list(leaving), device=state.y_B.device)
            self._judging.append((list(leaving.values()), state.take(rows)))
            self._free(leaving)
        waiting = sum(len(runs) for runs, _ in self._judging)
        tidy = self._steps % _PATIENCE == 0 and not self._book.waiting
        if waiting >= self._shapes.full or (waiting and tidy):
            self._judge()

    def _free(self, slots: Iterable[int]) -> None:
        for slot in list(slots):
            self._runs[slot] = None
            self._occupied -= 1

    def _judge(self) -> None:
        """Judge all candidates; enter what is decided, send the others back."""
        runs = [run for part, _ in self._judging for run in part]
        state = SlotState.cat([part for _, part in self._judging])
        self._judging = []
        state = replace(state, x_adv=self._stepper.threat.project(state.x_adv, state.x))
        votes = self._stepper.eot
        wrong_B = judge(self._network, state.x_adv, state.y_B, self._shapes, votes)
        state = replace(
            state, claimed_B=state.claimed_B & wrong_B, forwards_B=state.forwards_B + votes
        )
        broken, over = wrong_B.tolist(), (state.spent_B | wrong_B).tolist()
        spent = zip(
            state.forwards_B.tolist(), state.backwards_B.tolist(), state.flawed_B.tolist(),
            strict=True,
        )  # fmt: skip
        x_adv = state.x_adv.to(self._examples.x.device)
        verdicts = []
        for at, (run, passes) in enumerate(zip(runs, spent, strict=True)):
            if over[at]:
                verdicts.append(self._book.enter(run, broken[at], Spent(*passes), x_adv[at]))
        _enter(self._result, [verdict for verdict in verdicts if verdict is not None])
        back = [at for at in range(len(runs)) if not over[at]]
        if back:
            rows = torch.tensor(back, device=state.y_B.device)
            self._returning.append(([runs[at] for at in back], state.take(rows)))
        self._free(
            slot
            for slot, run in enumerate(self._runs)
            if run is not None and self._book.pointless(run)
        )

    def _fill(self) -> None:
        """Put runs into free slots, when that is worth it, and fit the batch to what there is."""
        due = self._book.waiting + sum(len(runs) for runs, _ in self._returning)
        free = self._most - self._occupied
        tidy = self._steps % _PATIENCE == 0 or self._occupied == 0
        if due and free and (tidy or min(due, free) >= _ENOUGH):
            self._place(self._choose_entering(min(due, free)))
        elif not due and tidy and 0 < self._occupied < len(self._runs):
            ahead = self._book.ahead(self._find_lasting(), len(self._runs) - self._occupied)
            self._place([(ahead, self._begin(ahead))] if ahead else [])

    def _find_lasting(self) -> list[int]:
        """Return the examples whose runs have been going for a while."""
        return [
            run.row
            for run, since in zip(self._runs, self._since, strict=True)
            if run is not None and self._steps - since >= _PATIENCE
        ]

    def _choose_entering(self, most: int) -> list[tuple[list[Run], SlotState]]:
        """Return runs that come back, and new ones."""
        entering, room = [], most
        while self._returning and room:
            runs, state = self._returning.pop()
            if len(runs) > room:
                rows = torch.arange(len(runs), device=state.y_B.device)
                self._returning.append((runs[room:], state.take(rows[room:])))
                runs, state = runs[:room], state.take(rows[:room])
            entering.append((runs, state))
            room -= len(runs)
        fresh = self._book.next(room)
        return entering + ([(fresh, self._begin(fresh))] if fresh else [])

    def _begin(self, runs: list[Run]) -> SlotState:
        examples, device = self._examples, self._network.device
        unit = max(8, _LANES // math.gcd(_LANES, examples.x[0].numel()))
        padded = runs + [runs[-1]] * (-len(runs) % unit)
        rows = torch.tensor([run.row for run in padded], device=examples.y_N.device)
        run_B = torch.tensor([run.number for run in padded], device=device)
        chosen, logits_BK = examples.take(rows).to(device), self._logits_NK[rows].to(device)
        chosen = replace(chosen, x=chosen.x.contiguous())
        state = self._stepper.begin(chosen, run_B, logits_BK)
        return state.take(torch.arange(len(runs), device=device))

    def _place(self, entering: list[tuple[list[Run], SlotState]]) -> None:
        """Put runs into slots; rebuild the batch where its size no longer fits."""
        runs = [run for part, _ in entering for run in part]
        self._changed = self._steps if runs else self._changed
        self._occupied += len(runs)
        kept = [slot for slot, run in enumerate(self._runs) if run is not None]
        size = self._shapes.padded(len(kept) + len(runs))
        if self._state is not None and size == len(self._runs):
            if not runs:
                return
            free = [slot for slot, run in enumerate(self._runs) if run is None][: len(runs)]
            rows = torch.tensor(free, device=self._state.y_B.device)
            self._state = self._state.put(rows, SlotState.cat([part for _, part in entering]))
            for slot, run in zip(free, runs, strict=True):
                self._runs[slot], self._since[slot] = run, self._steps
            return
        parts = [part for _, part in entering]
        if self._state is not None and kept:
            parts.insert(0, self._state.take(torch.tensor(kept, device=self._network.device)))
        whole = SlotState.cat(parts)
        rows = torch.arange(size, device=whole.y_B.device).clamp(max=len(whole.y_B) - 1)
        self._state = whole.take(rows)
        padding = size - len(kept) - len(runs)
        self._since = [self._since[slot] for slot in kept]
        self._since += [self._steps] * (len(runs) + padding)
        self._runs = [self._runs[slot] for slot in kept] + runs + [None] * padding


def _enter(result: AttackResult, verdicts: list[Verdict[Tensor]]) -> None:
    """Write verdicts into the rows of their examples."""
    if not verdicts:
        return
    device = result.success_B.device
    rows = torch.tensor([verdict.row for verdict in verdicts], device=device)
    broken_B = torch.tensor([verdict.broken for verdict in verdicts], device=device)
    spent = torch.tensor([verdict.spent for verdict in verdicts], device=device)
    fresh = AttackResult(
        torch.stack([verdict.proof for verdict in verdicts]), broken_B, *spent.unbind(1)
    )
    for name, new in fresh.columns().items():
        result.columns()[name][rows] = new


@cache
def _keep_freed_memory() -> None:
    """Let the process keep up to 512 MB of freed memory instead of returning it at once.

    An attack's step frees and asks for the same few megabytes again and again. By default the GNU
    C library gives them back to the system in between, and each step pays for getting them
    cleared and mapped anew: up to half of the time of small networks. Nothing but memory use and
    time changes; where there is no such library nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        library.mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP)
