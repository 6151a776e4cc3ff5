"""Defences that hide their gradient are broken through surrogates; verdicts stay the model's."""

import pytest
import torch
from torch import nn

from robustray.attacks import (
    Bpda,
    ThreatModel,
    WithSurrogate,
    evaluate,
    input_gradient,
    soft_round,
    straight_through,
)

THREAT = ThreatModel("linf", 0.15)
LEVELS = 8


def rounded(x):
    return (x * LEVELS).round() / LEVELS


@pytest.fixture
def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5)).eval()
    x = torch.rand(24, 3, 4, 4)
    return network, x, network(rounded(x)).argmax(1)


def accuracy(model, x, y, **settings):
    result = evaluate(model, x, y, THREAT, ["apgd-ce"], **settings)
    assert result.clean_accuracy == 1
    assert torch.equal(result.robust, model(result.x_adv).argmax(1) == y)
    return result.robust_accuracy


def test_surrogates_break_what_hides_its_gradient(problem):
    network, x, y = problem
    hidden = accuracy(lambda x: network(rounded(x) + 0 * x), x, y)
    found = {
        "identity": accuracy(Bpda(network, rounded), x, y),
        "smooth": accuracy(Bpda(network, rounded, soft_round(LEVELS)), x, y),
        "own": accuracy(WithSurrogate(Bpda(network, rounded), network), x, y),
        "bfloat16": accuracy(Bpda(network, rounded), x, y, search_dtype="bfloat16"),
    }
    assert max(found.values()) < hidden - 0.3, (found, hidden)


def test_values_are_the_defence_s_and_gradients_the_approximation_s(problem):
    network, x, _ = problem
    model = Bpda(network, rounded)
    torch.testing.assert_close(model.surrogate(x), model(x))

    def loss(logits):
        return logits[:, 0]

    expected = input_gradient(network, rounded(x), loss).grad
    torch.testing.assert_close(input_gradient(model, x, loss).grad, expected)
    half = Bpda(network, rounded, lambda x: x / 2)
    torch.testing.assert_close(input_gradient(half, x, loss).grad, expected / 2)


def test_soft_rounding_lies_between_identity_and_rounding():
    x = torch.linspace(0, 1, 301, dtype=torch.float64, requires_grad=True)
    for sharpness, other in ((1e-4, x), (1e4, rounded(x))):
        far = ((x * LEVELS) % 1 - 0.5).abs() > 0.01  # from where a level ends
        torch.testing.assert_close(soft_round(LEVELS, sharpness)(x)[far], other[far])
    (slope,) = torch.autograd.grad(soft_round(LEVELS)(x).sum(), x)
    assert (slope > 0).all()
    for wrong in ((0, 1.0), (8, 0.0), (8, float("nan"))):
        with pytest.raises(ValueError, match="levels is at least 1 and sharpness positive"):
            soft_round(*wrong)


def test_an_approximation_of_another_shape_is_refused():
    function = straight_through(lambda x: x[:, :1])
    with pytest.raises(ValueError, match=r"returns \(2, 1\) and its approximation \(2, 3\)"):
        function(torch.rand(2, 3))
