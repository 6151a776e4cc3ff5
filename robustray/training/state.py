"""All that must be kept to continue training as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robustray.training.moments import (
    group_numbers,
    optimizer_state,
    restore_group_numbers,
    restore_optimizer_state,
)
from robustray.training.step import Trainer

# Momentum is kept by its parameter's name alone, as it was before there were other optimisers.
_MOMENTUM = "/momentum_buffer"


@dataclass(frozen=True)
class TrainingState:
    """Training between two epochs; other trainings than ``fit`` have other files and info.

    Randomness is keyed by seed, epoch and step, and the learning rate follows from the epoch:
    neither needs a state of its own.

    Attributes
    ----------
    files : dict of str to dict of str to Tensor
        ``weights``: the model's state dict; ``optimizer``: momentum by parameter name, and what
        other optimisers keep as "<parameter>/<entry>"; with averaging ``ema``: the state dict of
        the averaged model. Contiguous CPU tensors, copies.
    info : dict
        JSON-able: ``epoch`` (epochs done), ``best_epoch``, ``best_accuracy``, ``seed``,
        ``data`` (digest), ``recipe``, ``ema_updates``, ``guard`` (what it has seen), and
        ``standardisation`` of a network that has any
        (`robustray.models.weights.files.constants_of`).
    """

    files: dict[str, dict[str, Tensor]]
    info: dict[str, Any]

    @property
    def selected(self) -> dict[str, Tensor]:
        """The state dict that is validated and used: the averaged one where there is one."""
        return self.files.get("ema", self.files["weights"])

    def save(self, folder: Path) -> None:
        """Write ``<name>.safetensors`` for each file, and ``info.json`` last."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, tensors in self.files.items():
            save_file(tensors, folder / f"{name}.safetensors")
        (folder / "info.json").write_text(json.dumps(self.info, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> TrainingState:
        """Read what ``save`` wrote."""
        info = json.loads((folder / "info.json").read_text())
        files = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        return cls(files, info)


def capture(trainer: Trainer, info: dict[str, Any]) -> TrainingState:
    """Copy a trainer's state of now; ``info`` is what the trainer doesn't know."""
    files = {"weights": copied_weights(trainer.model), "optimizer": _moments(trainer)}
    if trainer.average:
        files["ema"] = selected_weights(trainer)
        info = {**info, "ema_updates": trainer.average.updates}
    if (numbers := group_numbers(trainer.optimizer)) != trainer.first_numbers:
        info = {**info, "groups": numbers}
    return TrainingState(files, info)


def restore(trainer: Trainer, state: TrainingState) -> None:
    """Put a captured state into a trainer of the same recipe, in place."""
    trainer.model.load_state_dict(state.files["weights"])
    kept = state.files["optimizer"]
    moments = {name if "/" in name else name + _MOMENTUM: kept[name] for name in kept}
    restore_optimizer_state(trainer.model.named_parameters(), trainer.optimizer, moments)
    if "groups" in state.info:
        restore_group_numbers(trainer.optimizer, state.info["groups"])
    if trainer.average:
        trainer.average.load(state.files["ema"], state.info["ema_updates"])


def selected_weights(trainer: Trainer) -> dict[str, Tensor]:
    """Copy the state dict that is validated and used: averaged weights where there are any."""
    if trainer.average is None:
        return copied_weights(trainer.model)
    with trainer.average.applied():
        return copied_weights(trainer.model)


def copied_weights(network: nn.Module) -> dict[str, Tensor]:
    """Copy a network's state dict to the CPU, contiguous whatever its layout is."""
    return {name: _contiguous(tensor) for name, tensor in network.state_dict().items()}


@dataclass
class Learner:
    """A network with its optimiser, as plain tensors and back.

    Attributes
    ----------
    network : nn.Module
        The network.
    optimizer : torch.optim.Optimizer
        The one that moves its parameters.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer

    def files(self, name: str) -> dict[str, dict[str, Tensor]]:
        """Copy the state to the CPU: payloads ``name`` and ``name-optimizer``."""
        return {
            name: copied_weights(self.network),
            f"{name}-optimizer": optimizer_state(self.network.named_parameters(), self.optimizer),
        }

    def restore(self, name: str, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put a copied state back."""
        self.network.load_state_dict(dict(files[name]))
        moments = files[f"{name}-optimizer"]
        restore_optimizer_state(self.network.named_parameters(), self.optimizer, moments)


def _moments(trainer: Trainer) -> dict[str, Tensor]:
    kept = optimizer_state(trainer.model.named_parameters(), trainer.optimizer)
    return {name.removesuffix(_MOMENTUM): tensor for name, tensor in kept.items()}


def _contiguous(tensor: Tensor) -> Tensor:
    """Copy to the CPU, with memory of its own."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
