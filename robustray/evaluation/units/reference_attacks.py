"""Calls into the attack classes of the reference implementation of AutoAttack.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020). An installed package ``autoattack`` (their own repository) is used
where there is one, else ``pyautoattack``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from robustray.attacks import AttackSpec, ThreatModel
from robustray.attacks.engine import Examples
from robustray.attacks.engine.network import Model
from robustray.attacks.engine.watch import Watched
from robustray.attacks.losses import dlr, targeted_dlr
from robustray.errors import UserError

_PACKAGES = ("autoattack", "pyautoattack")
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}

# Module, class, and what makes it this attack.
_ATTACKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "apgd-ce": ("autopgd_base", "APGDAttack", {"loss": "ce"}),
    "apgd-dlr": ("autopgd_base", "APGDAttack", {"loss": "dlr"}),
    "apgd-t": ("autopgd_base", "APGDAttack_targeted", {}),
    "fab": ("fab_pt", "FABAttack_PT", {"targeted": False}),
    "fab-t": ("fab_pt", "FABAttack_PT", {"targeted": True}),
    "square": ("square", "SquareAttack", {}),
}

# What our options are called there.
_OPTIONS = {
    "n_iter": "n_iter",
    "n_restarts": "n_restarts",
    "n_targets": "n_target_classes",
    "eot": "eot_iter",
    "l1_stages": "use_largereps",
    "n_queries": "n_queries",
    "p_init": "p_init",
    "rescale": "resc_schedule",
}


@dataclass(frozen=True)
class Package:
    """An installed reference implementation: the name it is imported by, and its version."""

    name: str
    version: str


@cache
def find_package() -> Package:
    """Return the reference implementation that is used here.

    Raises
    ------
    UserError
        If there is none.
    """
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            continue  # a script of that name in the current folder is no package
        if importlib.util.find_spec(f"{name}.autopgd_base") is not None:
            return Package(name, importlib.metadata.version(name))
    raise UserError("engine: the reference is a package of its own: pip install pyautoattack")


@dataclass(frozen=True)
class ReferenceCall:
    """One attack of the reference with its budget.

    Parameters
    ----------
    attack : str
        Our name for it.
    arguments : dict
        Those of its class, but for the model, the seed and the device.
    """

    attack: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, spec: AttackSpec, threat: ThreatModel) -> ReferenceCall:
        """Translate an attack of a suite.

        Raises
        ------
        UserError
            For an attack or an option that the reference does not have.
        """
        if spec.attack not in _ATTACKS:
            known = ", ".join(_ATTACKS)
            raise UserError(f"suite: the reference has {known}; it has no {spec.attack}")
        arguments = {"norm": _NORMS[threat.norm], "eps": threat.eps, **_ATTACKS[spec.attack][2]}
        for option, value in spec.describe()["options"].items():
            if option not in _OPTIONS:
                raise UserError(f"suite: {spec.attack} of the reference has no option {option}")
            arguments[_OPTIONS[option]] = value
        if threat.norm != "l1" and "use_largereps" in arguments:
            arguments["use_largereps"] = False
        return cls(spec.attack, arguments)

    def run(self, model: Metered, part: Examples, classes: int, seed: int) -> Tensor:
        """Attack one batch; return its points, wherever the reference has left them."""
        module, name, _ = _ATTACKS[self.attack]
        make = getattr(importlib.import_module(f"{find_package().name}.{module}"), name)
        arguments = dict(self.arguments)
        if "n_target_classes" in arguments:
            arguments["n_target_classes"] = min(arguments["n_target_classes"], classes - 1)
        attack = make(model, seed=seed, device=part.x.device, **arguments)
        _stand_in(attack, self.attack, classes)
        return attack.perturb(part.x.clone(), part.y_N.clone()).detach()


def _stand_in(attack: Any, name: str, classes: int) -> None:
    """Give losses that need more classes than there are our definitions for few classes."""
    if name == "apgd-dlr" and classes < 3:
        attack.dlr_loss = dlr
    elif name == "apgd-t" and classes < 4:
        attack.dlr_loss_targeted = lambda logits, y: targeted_dlr(logits, y, attack.y_target)


class Metered:
    """A model as the reference calls it, with its passes counted.

    Gradients that are not finite are taken as zero there, and counted. Where the model offers
    ``surrogate``, logits are its own and gradients those of the surrogate (unless the model says
    that losses are the surrogate's too: ``loss_from_surrogate``).

    Parameters
    ----------
    model : callable
        Images (B, ...) to logits (B, K).
    """

    def __init__(self, model: Model) -> None:
        surrogate = getattr(model, "surrogate", None)
        self._model = _Apart(Watched(model))
        self._surrogate = _Apart(Watched(surrogate)) if callable(surrogate) else None
        self._own_loss = not getattr(model, "loss_from_surrogate", False)
        self._extra = int(getattr(model, "surrogate_forwards", 1)) if self._surrogate else 0
        self.forwards = self.backwards = 0
        self._flawed = torch.zeros((), dtype=torch.int64)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits."""
        searching = torch.is_grad_enabled() and x.requires_grad
        self.forwards += len(x) * (1 + (self._extra if searching else 0))
        if not searching:
            return _single(self._model(x))
        x = x.view_as(x)  # so that each pass has a hook of its own
        x.register_hook(self._went_back)
        if self._surrogate is None:
            return _single(self._model(x))
        stand_in = _single(self._surrogate(x))
        if not self._own_loss:
            return stand_in
        return _single(self._model(x.detach())) + (stand_in - stand_in.detach())

    def counts(self) -> Tensor:
        """Return forwards, backwards and flawed gradients, summed over images: int64 (3,)."""
        return torch.tensor([self.forwards, self.backwards, int(self._flawed)])

    def _went_back(self, grad: Tensor) -> Tensor:
        self.backwards += len(grad)
        finite = grad.isfinite()
        self._flawed = self._flawed.to(grad.device) + (~finite.flatten(1).all(1)).sum()
        return torch.where(finite, grad, 0.0)


class _Apart:
    """A model whose random numbers come from a stream of their own, once it draws any.

    The reference draws from torch's own generator. A model that seeds it in forward would give
    the attack the same proposal again and again.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._stream: list[Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        before = _generators(x.device)
        if self._stream is not None:
            _set_generators(x.device, self._stream)
        answer = self._watched(x)
        if self._watched.draws_random:
            self._stream = _generators(x.device)
            _set_generators(x.device, before)
        return answer


def _generators(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def _set_generators(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def undisturbed(model: Model, device: torch.device) -> Iterator[None]:
    """Let the reference run, and leave random state, gradients of parameters and warnings alone."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    before = [parameter.grad for parameter in parameters]
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(torch.no_grad())
        warnings.simplefilter("ignore")
        try:
            for parameter in parameters:
                parameter.grad = None
            yield
        finally:
            for parameter, grad in zip(parameters, before, strict=True):
                parameter.grad = grad


def _single(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
