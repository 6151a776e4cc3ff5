"""An attack is declared once: a frozen dataclass of its budget, with its checks, cost and work.

    @dataclass(frozen=True, kw_only=True)
    class Jump(BatchAttack):
        '''Jump by eps in random directions; the first that misleads the model counts.

Parameters
----------
        tries : int
            How many jumps, at least 1.
        '''

        tries: int = 10

        def passes(self, classes=10): ...
        def run(self, model, examples, threat, rng): ...

    jump = register_attack("jump", Jump)

Suites then take ``AttackSpec("jump", options={"tries": 20})``, and ``jump`` is a function
``jump(model, x, y, threat, *, rng=None, index=None, tries=10)`` with the class's documentation.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from inspect import Parameter, cleandoc, signature
from typing import Any, ClassVar

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.network import Model
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack with its budget: what `BatchAttack` and ``steppers.SlotAttack`` have in common.

    Fields are the options, each with a default: a number, a word, true or false; None stands for a
    number that follows from the threat model. ``__post_init__`` refuses what is out of range.

    ``norms`` are those that it is made for. ``minimum_norm`` says that ``x_adv`` is the nearest
    misclassified point of its whole search, if that is within eps: then distances mean something.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    minimum_norm: ClassVar[bool] = False

    def admit(self, threat: ThreatModel) -> None:
        """Refuse a threat model of another norm, or that `check` refuses.

        Raises
        ------
        ValueError
            Saying what the attack is made for.
        """
        if threat.norm not in self.norms:
            raise ValueError(f"it is made for {', '.join(self.norms)}, not {threat.norm}")
        self.check(threat)

    def check(self, threat: ThreatModel) -> None:
        """Refuse a threat model of one of its norms that the attack is not made for.

        Raises
        ------
        ValueError
            Saying what it is made for.
        """
        del threat

    @abstractmethod
    def passes(self, classes: int = 10) -> Passes:
        """Return what an image takes that is never broken, verdicts included.

        Parameters
        ----------
        classes : int
            How many the network has. Its pass on the clean image is not counted.
        """

    def confirmations(self) -> int:
        """Return the forward passes beyond `passes` of a search in another precision or layout."""
        return 0


@dataclass(frozen=True, kw_only=True)
class BatchAttack(Attack):
    """An attack that is made on a whole batch at once."""

    @abstractmethod
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        """Attack a batch, under a threat model that `admit` has let pass.

        Parameters
        ----------
        model : callable
            Images to logits (B, K); see ``gradients`` for surrogates.
        examples : Examples
            Images (B, ...) in the threat model's box, labels and indices.
        threat : ThreatModel
            What is allowed.
        rng : ExampleRandom
            Where random numbers come from.

        Returns
        -------
        AttackResult
            No image's result may depend on the other images.
        """


_SECTION = re.compile(r"\n\n(?=[A-Z]\w+\n-+\n)")
_PARAMETERS = "Parameters\n----------\n"


def takes_options(
    attack: type[Attack], doc: str | None = None, **fixed: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn ``function(attack, ...)`` into one that is given the attack's options instead of it.

    Parameters
    ----------
    attack : class
        Whose fields are the options. They become keywords, in their order, after the function's own
        parameters: in its signature and in its documentation.
    doc : str, optional
        What the function does, returns and raises; that of the function when not given.
    **fixed
        Options that can't be set, with their values.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        defaults = default_options(attack, fixed)

        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            options = {name: keywords.pop(name) for name in defaults if name in keywords}
            return function(attack(**fixed, **options), *arguments, **keywords)

        own = signature(function)
        kinds = {field.name: field.type for field in fields(attack)}
        parameters = list(own.parameters.values())[1:] + [
            Parameter(name, Parameter.KEYWORD_ONLY, default=value, annotation=kinds[name])
            for name, value in defaults.items()
        ]
        shown = own.replace(parameters=parameters)
        vars(call)["__signature__"] = shown
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        call.__annotations__["return"] = own.return_annotation
        call.__doc__ = _join_docs(doc or function.__doc__, function.__doc__, attack, defaults)
        return call

    return decorate


def default_options(attack: type[Attack], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that may be set, with their defaults, in their order.

    Raises
    ------
    ValueError
        For an option without a default, or a fixed one that the attack lacks.
    """
    defaults = {field.name: field.default for field in fields(attack)}
    bare = [name for name in defaults if defaults[name] is MISSING and name not in fixed]
    strange = [name for name in fixed if name not in defaults]
    if bare or strange:
        wrong = f"{bare[0]} has no default" if bare else f"it has no option {strange[0]}"
        raise ValueError(f"attack {attack.__name__}: {wrong}")
    return {name: value for name, value in defaults.items() if name not in fixed}


def _join_docs(
    body: str | None, function: str | None, attack: type[Attack], wanted: Mapping[str, Any]
) -> str:
    """Return the body's text, with the parameters of the function and the wanted options."""
    before, _, after = _split_doc(body)
    entries = re.split(r"\n(?=\w)", _split_doc(attack.__doc__)[1])
    told = [entry for entry in entries if entry.partition(" ")[0] in wanted]
    parameters = "\n".join([_split_doc(function)[1], *told])
    return "\n\n".join([before, f"{_PARAMETERS}{parameters}", *after])


def _split_doc(doc: str | None) -> tuple[str, str, list[str]]:
    """Return what stands before the parameters, their description, and the sections after it."""
    before, *sections = _SECTION.split(cleandoc(doc or ""))
    described = ""
    if sections and sections[0].startswith(_PARAMETERS):
        described = sections.pop(0).removeprefix(_PARAMETERS)
    return before, described, sections
