from __future__ import annotations

import pytest
import torch

from robustray.manifest.recipe import Ema
from robustray.training.averaging import AveragedWeights
from tests.helpers.small_training import Linear, tiny


def test_ramps_to_the_decay() -> None:
    model = Linear().double()
    expected = model.fc.weight.detach().clone()
    average = AveragedWeights(model, Ema(decay=0.5))
    for n in range(1, 15):
        torch.nn.init.normal_(model.fc.weight)
        average.update(0)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * model.fc.weight.detach()
    assert average.updates == 14
    assert (1 + 8) / (10 + 8) == 0.5, "the ramp ends inside the test"
    with average.applied():
        assert torch.allclose(model.fc.weight, expected, atol=1e-14)


def test_weights_come_back_bit_for_bit_even_after_an_error() -> None:
    model = tiny()
    average = AveragedWeights(model, Ema(decay=0.9))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    average.update(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.applied():
        assert not torch.equal(model.fc.weight, before["fc.weight"])
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_buffers_are_the_live_ones() -> None:
    model = tiny()
    average = AveragedWeights(model, Ema(decay=0.9))
    model.bn1.running_mean.fill_(3.0)
    average.update(0)
    with average.applied():
        assert (model.bn1.running_mean == 3.0).all()


def test_warm_up_copies_and_the_ramp_begins_after_it() -> None:
    model, late = Linear().double(), Linear().double()
    average = AveragedWeights(model, Ema(decay=0.999, warmup_epochs=2))
    for epoch in (0, 0, 1):
        torch.nn.init.normal_(model.fc.weight)
        average.update(epoch)
        now = model.fc.weight.detach().clone()
        with average.applied():
            assert torch.equal(model.fc.weight, now)
    assert average.updates == 0
    late.load_state_dict(model.state_dict())
    fresh = AveragedWeights(late, Ema(decay=0.999))
    torch.nn.init.normal_(model.fc.weight)
    late.load_state_dict(model.state_dict())
    average.update(2)
    fresh.update(0)
    with average.applied(), fresh.applied():
        assert torch.equal(model.fc.weight, late.fc.weight)


def test_without_a_ramp_the_decay_is_constant() -> None:
    model = Linear().double()
    start = model.fc.weight.detach().clone()
    average = AveragedWeights(model, Ema(decay=0.9, ramp=False))
    torch.nn.init.normal_(model.fc.weight)
    expected = 0.9 * start + 0.1 * model.fc.weight.detach()
    average.update(0)
    with average.applied():
        assert torch.allclose(model.fc.weight, expected, atol=1e-15)
