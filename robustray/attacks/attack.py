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

from abc import ABC, abstractmethod
from dataclasses import dataclass

from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.gradients import Model
from robustray.attacks.result import AttackResult, Passes
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack with its budget: what `BatchAttack` and ``steppers.SlotAttack`` have in common.

    Fields are the options, each with a default: a number, a word, true or false; None stands for a
    number that follows from the threat model. ``__post_init__`` refuses what is out of range.
    """

    def check(self, threat: ThreatModel) -> None:
        """Refuse a threat model that the attack is not made for.

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


@dataclass(frozen=True, kw_only=True)
class BatchAttack(Attack):
    """An attack that is made on a whole batch at once."""

    @abstractmethod
    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        """Attack a batch, under a threat model that `check` has let pass.

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
