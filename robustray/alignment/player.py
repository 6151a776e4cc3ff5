"""A network with its optimiser, as plain tensors and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustray.training.optimizer import optimizer_state, restore_optimizer_state

Files = dict[str, dict[str, Tensor]]


@dataclass
class Player:
    """One of the two networks of an adversarial training, with its optimiser.

    Attributes
    ----------
    network : nn.Module
        The network.
    optimizer : torch.optim.Optimizer
        The one that moves its parameters.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer

    def files(self, name: str) -> Files:
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


def copied_weights(network: nn.Module) -> dict[str, Tensor]:
    """Copy a network's state to the CPU, dense whatever its layout was."""
    state = network.state_dict().items()
    dense = torch.contiguous_format
    return {name: value.detach().cpu().clone(memory_format=dense) for name, value in state}
