"""Rules of mixing against their formulas, on networks whose gradients are known."""

import pytest
import torch
from torch import nn

from robustray.attacks import ThreatModel, evaluate
from robustray.smoothing.multipliers import RULES, RuleMixture


class Linear(nn.Module):
    def __init__(self, seed, scale=1.0):
        super().__init__()
        chance = torch.Generator().manual_seed(seed)
        self.register_buffer("w", scale * torch.randn(12, 3, generator=chance, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.w.to(x.dtype)


X = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
G, H = Linear(1, 2.0), Linear(2, 0.5)


def softmax_gradient(model, x):
    """Gradient of the largest probability of a linear network, in closed form."""
    p = model(x).softmax(1)
    top = p.argmax(1)
    rows = torch.arange(len(x))
    jacobian = p[rows, top, None, None] * (torch.eye(3, dtype=x.dtype)[top][:, None] - p[:, None])
    return (jacobian @ model.w.T)[:, 0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_their_formulas(rule, norm):
    a, g, h = 0.7, G(X), H(X)
    mixed = RuleMixture(G, H, rule, a, norm)
    with torch.no_grad():
        found = mixed(X)
    if rule == "logits":
        assert torch.allclose(found, (g + a * h) / (1 + a))
        return
    norms = [softmax_gradient(m, X).norm(p=1 if norm == "linf" else 2, dim=1) for m in (G, H)]
    ratio = {
        "softmax": torch.full((5,), a, dtype=X.dtype),
        "gradient": a * norms[0],
        "gradient-ratio": a * norms[0] / norms[1],
    }[rule][:, None]
    expected = (g.softmax(1) + ratio * h.softmax(1)) / (1 + ratio)
    assert torch.allclose(found.exp(), expected, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_go_through_the_multiplier(rule):
    x = X[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(RuleMixture(G, H, rule, 0.7), (x,), atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_no_trade_off_is_the_accurate_network(rule):
    mixed = RuleMixture(G, H, rule, 0.0)
    assert torch.allclose(mixed(X).softmax(1), G(X).softmax(1))


def test_mixtures_by_gradients_can_be_attacked():
    x = X.float()
    mixed = RuleMixture(G, H, "gradient-ratio", 0.5).eval()
    y = mixed(x).argmax(1)
    found = evaluate(mixed, x, y, ThreatModel("linf", 0.5), suite="pgd-10")
    assert found.clean_accuracy == 1.0
    assert found.robust_accuracy < 0.5


def test_impossible_rules_are_refused():
    with pytest.raises(ValueError, match="softmax"):
        RuleMixture(G, H, "sum", 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="trade_off"):
        RuleMixture(G, H, "softmax", -1.0)
