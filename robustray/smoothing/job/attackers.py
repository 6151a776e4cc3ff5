"""Processes that attack training images while the mixing network is trained on earlier ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError
from torch import Tensor

from robustray.cluster import pick_device
from robustray.errors import MachineError
from robustray.manifest import Resources
from robustray.models.architectures.composite import Composite
from robustray.smoothing.manifest import TrainingAttack
from robustray.smoothing.train import AttackTask, MixingTraining, run_task
from robustray.smoothing.training_data import AttackedImages


class _Attacker:
    """One process with a mixture of its own, which follows the one that is trained."""

    def __init__(self, mixture: Composite, resources: Resources) -> None:
        self.device = pick_device(resources.cpus, resources.gpus)
        self.mixture = mixture.to(self.device)
        self.version = -1

    def ready(self) -> bool:
        return True

    def attack(
        self, version: int, state: dict[str, Tensor], task: AttackTask, attack: TrainingAttack
    ) -> tuple[Tensor, Tensor]:
        if version != self.version:
            self.mixture.load_state_dict(state, strict=False)
            self.version = version
        made = run_task(self.mixture, task.to(self.device), attack)
        return made.x.cpu(), made.fooled.cpu()


class Attackers:
    """Attackers that take tasks in turn.

    Parameters
    ----------
    mixture : Composite
        As it is before training, with the constants of training.
    resources : Resources
        Of each attacker.
    count : int
        How many; 0 starts nothing.

    Raises
    ------
    MachineError
        If the cluster has no room for them within ``resources.wait_minutes``.
    """

    def __init__(self, mixture: Composite, resources: Resources, count: int) -> None:
        self._actors: list[Any] = []
        self._turn = 0
        self._sent: tuple[tuple[int, int], int, Any] | None = None
        if not count:
            return
        remote: Any = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(_Attacker)
        # A copy, so that the training's device and mode stay its own.
        shipped = ray.put(copy.deepcopy(mixture).to(torch.device("cpu")))
        self._actors = [remote.remote(shipped, resources) for _ in range(count)]
        try:
            ready = [one.ready.remote() for one in self._actors]
            ray.get(ready, timeout=60 * resources.wait_minutes)
        except GetTimeoutError as error:
            self.close()
            raise MachineError(
                f"no room for {count} attackers in {resources.wait_minutes:g} minutes; ask for "
                "fewer with resources.workers"
            ) from error

    def begin(self, training: MixingTraining, task: AttackTask) -> Callable[[], AttackedImages]:
        """Hand a task to the next attacker; what is returned waits for it."""
        key = (task.epoch, task.batch)
        if self._sent is None or self._sent[0] != key:
            version = 0 if self._sent is None else self._sent[1] + 1
            self._sent = key, version, ray.put(training.state().files["mixing"])
        actor = self._actors[self._turn % len(self._actors)]
        self._turn += 1
        _, version, state = self._sent
        asked = actor.attack.remote(version, state, task.to("cpu"), training.settings.attack)
        device = task.x.device

        def wait() -> AttackedImages:
            try:
                x, fooled = ray.get(asked)
            except RayActorError as error:
                raise MachineError(f"an attacker is lost: {error}") from error
            return AttackedImages(x.to(device), fooled.to(device))

        return wait

    def close(self) -> None:
        """End the attackers."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
