"""Fixed weights from stored passes are those of the mixtures themselves."""

import pytest
import torch

from robustray.smoothing import Constants
from robustray.smoothing.multipliers import Stored, above_the_line, stored, trade_off
from tests.smoothing.test_composite import X, composite


def test_one_pass_of_each_base_gives_every_mixture():
    y = torch.tensor([0, 1, 2, 3, 4])
    model = composite(constants=Constants(gamma=0.0, std_scale=2))
    found = stored(model, X, y, batch_size=2)
    for alpha in (0.1, 0.5, 0.9):
        gamma = float(torch.logit(torch.tensor(alpha)))
        direct = model.with_constants(gamma=gamma)(X).argmax(1)
        mixed = (1 - alpha) * found.accurate_NK + alpha * found.robust_NK
        assert torch.equal(mixed.argmax(1), direct)
        assert found.accuracy(alpha) == (direct == y).double().mean()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        found.accuracy(1.5)


def test_the_curve_takes_the_strongest_attack():
    y = torch.tensor([0, 0])
    sure, wrong = torch.tensor([[0.9, 0.1]] * 2), torch.tensor([[0.2, 0.8]] * 2)
    points = trade_off(
        Stored(sure, sure, y), [Stored(sure, sure, y), Stored(wrong, sure, y)], [0.0, 1.0]
    )
    assert [(p.clean, p.attacked) for p in points] == [(1.0, 0.0), (1.0, 1.0)]


def test_above_the_line_between_both_bases():
    assert above_the_line((0.8, 0.4), (0.9, 0.0), (0.7, 0.5)) == pytest.approx(0.15)
    assert above_the_line((0.7, 0.5), (0.9, 0.0), (0.7, 0.5)) == pytest.approx(0.0)
