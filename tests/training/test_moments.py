"""Optimisers go on with the same bits from their copied state."""

import pytest
import torch
from torch import nn

from robustray.training.moments import optimizer_state, restore_optimizer_state

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.0, 0.9)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def train(model, optimizer, steps, start):
    for step in range(start, start + steps):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_equals_never_stopping(name):
    whole, first, second = network(), network(), network()
    train(whole, OPTIMIZERS[name](whole.parameters()), 7, 0)
    optimizer = OPTIMIZERS[name](first.parameters())
    train(first, optimizer, 4, 0)
    state = optimizer_state(first.named_parameters(), optimizer)
    second.load_state_dict(first.state_dict())
    resumed = OPTIMIZERS[name](second.parameters())
    restore_optimizer_state(second.named_parameters(), resumed, state)
    train(second, resumed, 3, 4)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_other_parameters_is_refused():
    model = network()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train(model, optimizer, 1, 0)
    state = optimizer_state(model.named_parameters(), optimizer)
    with pytest.raises(ValueError, match=r"0\.bias"):
        restore_optimizer_state([], OPTIMIZERS["adam"](model.parameters()), state)
