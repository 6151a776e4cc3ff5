"""Attacks as steppers: one run of an attack, cut into steps of about one model evaluation.

The engine keeps a device batch of slots. Each slot holds one *run*: one example attacked once,
with one restart number and, for targeted attacks, one target. Runs know nothing of each other:
each is at its own iteration, and leaves when it claims success or has spent its budget.

An attack is a frozen dataclass of its budget (`SlotAttack`). For a threat model and a source of
noise it makes a *stepper*: a frozen dataclass with two methods, ``begin`` and ``step``, and a
state, a frozen dataclass of tensors that extends ``SlotState``. What an author must keep:

* Every tensor of a state has the slots as its first dimension. So the engine can put rows of a
  fresh state into freed slots, take rows out and put them back, for any attack.
* Row b of what ``begin`` and ``step`` return depends on row b of what they are given, and on
  nothing else. No loop over slots, no ``.item()``, no boolean indexing: ``torch.where`` on masks.
  A mask may be read only through ``affects``, to leave out work that would change nothing.
* They never write into the tensors they are given. Fields that do not change are passed on as
  they are (``dataclasses.replace``), so that the engine sees at once that they are the same.
* Random numbers come from ``noise`` alone, keyed by index, run and iteration.
* ``begin`` evaluates no model; ``logits_BK`` of the clean images are given, and a run begins only
  for images that are classified correctly.
* A step calls ``oracle.gradient`` or ``oracle.logits`` about once, for all rows, and adds the cost
  to ``forwards_B`` and ``backwards_B`` of all rows.
* ``claimed_B`` says that ``x_adv`` is inside the threat model, up to rounding, and was
  misclassified as the search sees it. The engine then projects ``x_adv`` into the threat model and
  judges it in float32. Where that does not confirm the claim, ``claimed_B`` is set to False again
  and the run goes on from the state that it had.
* ``spent_B`` says that the budget is used up. ``x_adv`` is then the best point known, inside the
  threat model; it is judged too. A row may be claimed and spent at once.
* Rows with ``claimed_B`` or ``spent_B`` may be stepped on: the engine throws the result away. They
  must not raise, nor need to stay as they are.

Two kinds of noise give two modes. ``ExampleNoise`` is ours: numbers belong to the example. With
``BatchNoise`` they are drawn for the whole batch from one generator in the order of the calls, as
the reference implementation of AutoAttack does; then a run never leaves early (unless the reference
stops evaluating what it has broken, ``upstream_leaves``), all slots are at the same run and
iteration, and ``upstream=True`` asks a stepper for the reference's quirks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from robustray.attacks.attack import Attack
from robustray.attacks.engine.batches import Examples, Rowwise
from robustray.attacks.engine.oracle import Oracle
from robustray.attacks.threat import ThreatModel
from robustray.cuda_graphs import CudaGraphs, Tensors
from robustray.random import ExampleRandom


@dataclass(frozen=True)
class SlotState(Rowwise):
    """What the engine reads in every attack's state. Attacks extend it with their own tensors.

    Attributes
    ----------
    x, y_B, index_B, run_B : Tensor
        Images, labels, indices and run numbers; they do not change during a run.
    x_adv : Tensor
        The candidate, shaped as the images, inside the threat model.
    claimed_B : Tensor
        Bool (B,): the search saw ``x_adv`` misclassified.
    spent_B : Tensor
        Bool (B,): the budget of the run is used up.
    forwards_B, backwards_B : Tensor
        Int64 (B,): passes of this run so far, the engine's own verdicts not included.
    flawed_B : Tensor
        Int64 (B,): gradients so far that were not finite (and were taken as zero there).
    """

    x: Tensor
    y_B: Tensor
    index_B: Tensor
    run_B: Tensor
    x_adv: Tensor
    claimed_B: Tensor
    spent_B: Tensor
    forwards_B: Tensor
    backwards_B: Tensor
    flawed_B: Tensor


StateT = TypeVar("StateT", bound=SlotState)


@dataclass(frozen=True, kw_only=True)
class SlotAttack(Attack):
    """An attack that runs example by example in the slots of the engine, through its stepper."""

    uses_gradients: ClassVar[bool] = True  # Square does not: any function of images will do
    upstream_leaves: ClassVar[bool] = False  # the reference stops evaluating what it has broken
    leaps: ClassVar[bool] = False  # the stepper can make several steps of a run in one pass

    @abstractmethod
    def runs(self, classes: int) -> int:
        """Return how many runs an example gets at most: restarts x targets."""

    @abstractmethod
    def stepper(self, threat: ThreatModel, noise: Noise, *, upstream: bool = False) -> Stepper[Any]:
        """Return what makes the runs, under a threat model that `admit` has let pass.

        Parameters
        ----------
        threat : ThreatModel
            What is allowed.
        noise : Noise
            Where random numbers come from.
        upstream : bool
            Follow the reference implementation in what it does differently.
        """


@dataclass(frozen=True)
class Stepper(ABC, Generic[StateT]):
    """One run of an attack in steps. Parameters are those of `SlotAttack.stepper`."""

    attack: SlotAttack
    threat: ThreatModel
    noise: Noise
    upstream: bool = False

    @property
    def eot(self) -> int:
        """Passes that the oracle averages each gradient over, 1 for deterministic models."""
        return getattr(self.attack, "eot", 1)

    @abstractmethod
    def begin(self, examples: Examples, run_B: Tensor, logits_BK: Tensor) -> StateT:
        """Return the state of runs before their first step.

        Parameters
        ----------
        examples : Examples
            The clean images, float32 (B, ...), with labels and indices.
        run_B : Tensor
            Run numbers, int64 (B,), from 0 to ``attack.runs(K) - 1``: the first run in this order
            that succeeds gives the verdict.
        logits_BK : Tensor
            Logits of the clean images, float32 (B, K).
        """

    @abstractmethod
    def step(self, oracle: Oracle, state: StateT) -> StateT:
        """Return the state after one more step of each run."""

    def leap(self, oracle: Oracle, state: StateT, rows: int) -> StateT:
        """Return what some steps of each run give, in one pass of ``rows`` rows.

        Asked where slots are idle, of attacks that say that they can (``leaps``). How many steps it
        is may differ from run to run; state and counts are as if they were made one by one.
        """
        raise NotImplementedError


class Noise(ABC):
    """Where attacks take random numbers from.

    ``keys`` are ``(index_B, run_B)`` or ``(index_B, run_B, iteration_B)``; ``purpose`` tells draws
    of one iteration apart. ``shared`` draws are one for the whole batch in the reference's order
    of draws, and one for each example in ours. All return (B, *shape), where ``keys`` are.
    """

    @abstractmethod
    def uniform(
        self, keys: tuple[Tensor, ...], shape: tuple[int, ...], purpose: int, shared: bool = False
    ) -> Tensor:
        """Draw float32 from U[0, 1)."""

    @abstractmethod
    def normal(self, keys: tuple[Tensor, ...], shape: tuple[int, ...], purpose: int) -> Tensor:
        """Draw float32 from N(0, 1)."""


@dataclass(frozen=True)
class ExampleNoise(Noise):
    """Numbers that belong to the example: independent of slots, batches and order."""

    rng: ExampleRandom

    @override
    def uniform(
        self, keys: tuple[Tensor, ...], shape: tuple[int, ...], purpose: int, shared: bool = False
    ) -> Tensor:
        return self.rng.uniform(keys[0], shape, purpose, *keys[1:])

    @override
    def normal(self, keys: tuple[Tensor, ...], shape: tuple[int, ...], purpose: int) -> Tensor:
        return self.rng.normal(keys[0], shape, purpose, *keys[1:])


@dataclass(frozen=True)
class BatchNoise(Noise):
    """Numbers in the order of the calls, from one CPU generator, whatever they are for."""

    generator: torch.Generator

    @override
    def uniform(
        self, keys: tuple[Tensor, ...], shape: tuple[int, ...], purpose: int, shared: bool = False
    ) -> Tensor:
        count, device = len(keys[0]), keys[0].device
        drawn = torch.rand(1 if shared else count, *shape, generator=self.generator)
        return drawn.to(device).expand(count, *shape)

    @override
    def normal(self, keys: tuple[Tensor, ...], shape: tuple[int, ...], purpose: int) -> Tensor:
        return torch.randn(len(keys[0]), *shape, generator=self.generator).to(keys[0].device)


def begin_fields(examples: Examples, run_B: Tensor) -> dict[str, Any]:
    """Return the fields of ``SlotState`` at the beginning of runs, the image as the candidate."""
    no_B, zero_B = torch.zeros_like(run_B, dtype=torch.bool), torch.zeros_like(run_B)
    return {
        "x": examples.x,
        "y_B": examples.y_N,
        "index_B": examples.index_N,
        "run_B": run_B,
        "x_adv": examples.x,
        "claimed_B": no_B,
        "spent_B": no_B,
        "forwards_B": zero_B,
        "backwards_B": zero_B,
        "flawed_B": zero_B,
    }


def select(mask_B: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose whole rows: ``yes`` where the mask is set, else ``no``, both (B, ...).

    One of them is returned as it is where no row, or every row, is set on a CPU.
    """
    if mask_B.device.type != "cpu":
        return torch.where(mask_B.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
    # torch.where asks the mask for every pixel; copying rows is several times faster.
    rows = mask_B.nonzero()[:, 0]
    if len(rows) == 0:
        return no
    if len(rows) == len(mask_B):
        return yes
    return no.clone().index_copy_(0, rows, yes.index_select(0, rows))


def affects(mask_B: Tensor) -> bool:
    """Return whether work on the rows of a mask may be needed.

    On a CPU that is whether any row is set. Elsewhere reading it would stall the device: True.
    """
    return mask_B.device.type != "cpu" or bool(mask_B.any())


def keep_rows(mask_B: Tensor, before: StateT, after: StateT) -> StateT:
    """Return ``after`` with the rows of ``mask_B`` as they were ``before``."""
    new = after.columns()
    changes = {
        name: old if new[name] is old else select(mask_B, old, new[name])
        for name, old in before.columns().items()
    }
    return replace(after, **changes)


def find_target(logits_BK: Tensor, rank_B: Tensor) -> Tensor:
    """Return the class that comes ``rank_B`` places after the first in the clean logits: (B,).

    Rank 1 is the runner-up of a correctly classified image. Ranks run from 1 to K - 1. An image
    whose label is not on top may get its own label, as in the reference implementation.
    """
    order_BK = logits_BK.argsort(dim=1, descending=True, stable=True)
    return order_BK.gather(1, rank_B[:, None])[:, 0]


_EAGER = 15  # steps with one number of slots after which a capture pays


class ReplayedStep:
    """A step of a state, captured once for each number of slots.

    The state that is returned may be overwritten by the next call.

    Parameters
    ----------
    step : callable
        From a state to the state after one step, without asking the host.
    """

    def __init__(self, step: Callable[[Any], Any]) -> None:
        self._step = step
        self._graphs = CudaGraphs(self._step_columns, eager=_EAGER, chained=True)
        self._names: tuple[str, ...] = ()
        self._state: SlotState

    def __call__(self, state: SlotState) -> SlotState:
        """Return the state after one step."""
        columns = state.columns()
        self._names, self._state = tuple(columns), state
        return self._of(self._graphs(*columns.values()))

    def _step_columns(self, *columns: Tensor) -> Tensors:
        return tuple(self._step(self._of(columns)).columns().values())

    def _of(self, columns: Tensors) -> SlotState:
        return replace(self._state, **dict(zip(self._names, columns, strict=True)))
