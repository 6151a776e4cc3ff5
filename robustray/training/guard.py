"""Noticing catastrophic overfitting: a network that withstands one step, and nothing stronger.

Wong, Rice and Kolter, "Fast is better than free: revisiting adversarial training" (2020,
arXiv:2001.03994), section 5.4, who stop where PGD accuracy on a batch of training images falls by
more than 0.2 between two epochs. Here it is compared with the best check so far, so that a fall
over several epochs counts too; and FGSM accuracy must not fall with it, so that a training that
merely diverges, or has too large a step, is not called overfitting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from robustray.attacks import AttackSpec, Suite, ThreatModel
from robustray.data.dataset import Split, smallest_hashes
from robustray.manifest.recipe import Guard, ThreatConfig
from robustray.random import derive_seed
from robustray.training.selection import accuracies
from robustray.training.step import Trainer


class Look(NamedTuple):
    """Accuracies in [0, 1] on the guard's images."""

    fgsm: float
    pgd: float


@dataclass(frozen=True)
class Watch:
    """What a guard has seen so far, as JSON keeps it.

    Attributes
    ----------
    pgd, fgsm : float or None
        The best accuracy under PGD, and that under FGSM at that time.
    overfits : bool
        Whether the network overfitted at the last look.
    overfitted : int or None
        The first epoch in which it did.
    """

    pgd: float | None = None
    fgsm: float | None = None
    overfits: bool = False
    overfitted: int | None = None

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> Watch:
        """Return what a state of training keeps of it."""
        return cls(**(kept or {}))

    def see(self, epoch: int, found: Look, guard: Guard) -> tuple[Watch, str | None]:
        """Return what is known after a look, and what to say where overfitting begins."""
        if self.pgd is None or self.fgsm is None or found.pgd >= self.pgd:
            return Watch(found.pgd, found.fgsm, overfitted=self.overfitted), None
        lost = self.pgd - found.pgd
        if lost <= guard.drop or self.fgsm - found.fgsm >= lost / 2:
            return replace(self, overfits=False), None
        now = replace(self, overfits=True, overfitted=self.overfitted or epoch)
        if self.overfits:
            return now, None
        after = "training ends here" if guard.action == "stop" else "training goes on"
        return now, (
            f"catastrophic overfitting in epoch {epoch}: PGD-{guard.steps} accuracy on training "
            f"images fell from {self.pgd:.3f} to {found.pgd:.3f}, FGSM accuracy went from "
            f"{self.fgsm:.3f} to {found.fgsm:.3f}; {after}"
        )

    def ends(self, guard: Guard | None) -> bool:
        """Whether training is over because of what was seen."""
        return guard is not None and guard.action == "stop" and self.overfitted is not None


def guard_attacks(guard: Guard, threat: ThreatConfig) -> tuple[AttackSpec, AttackSpec]:
    """Return the two attacks that a guard compares: one step, and several."""
    options = {"steps": guard.steps, "step_size": threat.eps / 4}
    return AttackSpec("fgsm", "fgsm"), AttackSpec("pgd", "pgd", options)


def look(trainer: Trainer, split: Split, guard: Guard) -> Look:
    """Attack the network in training, in evaluation mode, on some images of a split.

    They are drawn once for all epochs, so of all classes whatever the order of the files, and not
    augmented; the attacks' random starts are the same after every epoch too.
    """
    wanted = trainer.recipe.threat
    threat = ThreatModel(norm=wanted.norm, eps=wanted.eps)
    chosen_N = smallest_hashes(split.index_N.cpu(), guard.images, "guard").nonzero()[:, 0]
    images = split.select(chosen_N).to(trainer.precision.device)
    trainer.model.eval()
    fgsm, pgd = (
        accuracies(
            trainer.model,
            images,
            threat,
            suite=Suite(attack.name, (attack,)),
            seed=derive_seed(trainer.seed, "guard"),
            batch_size=trainer.recipe.batch_size,
            world=trainer.world,
        )[1]
        for attack in guard_attacks(guard, wanted)
    )
    return Look(fgsm, pgd)
