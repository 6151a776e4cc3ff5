import pytest
import torch
from torch import nn

from robustray.attacks.engine.network import input_gradient, is_correct, predict_logits


class Rounded(nn.Module):
    """Rounds its input, which has no useful gradient; the surrogate leaves the rounding out."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear((x * 4).round() / 4)

    def surrogate(self, x):
        return self.linear(x)


def total(logits_BK):
    return logits_BK[:, 0]


@pytest.mark.parametrize("trainable", [True, False])
def test_gradients_are_of_the_images_only(trainable):
    model = nn.Linear(4, 3).requires_grad_(trainable)
    x = torch.rand(5, 4)
    with torch.no_grad():
        found = input_gradient(model, x, total)
    assert torch.equal(found.grad, model.weight[0].detach().expand(5, 4))
    assert torch.equal(found.loss_B, found.logits_BK[:, 0])
    assert all(p.grad is None and p.requires_grad == trainable for p in model.parameters())
    assert not any(tensor.requires_grad for tensor in (x, found.grad, found.logits_BK))


def test_weight_gradients_are_not_even_computed():
    computed = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(weight)
            return x @ weight

        @staticmethod
        def backward(ctx, grad):
            computed.append(ctx.needs_input_grad)
            return grad @ ctx.saved_tensors[0].T, None

    weight = torch.rand(4, 3, requires_grad=True)
    weight.register_hook(lambda grad: computed.append("weight"))
    input_gradient(lambda x: Spy.apply(x, weight * 2), torch.rand(2, 4), total)
    assert "weight" not in computed


def test_gradients_come_from_the_surrogate_and_verdicts_from_the_model():
    model, x = Rounded(), torch.rand(6, 4)
    found = input_gradient(model, x, total)
    assert torch.equal(found.grad, model.linear.weight[0].detach().expand(6, 4))
    assert torch.equal(found.logits_BK, model.surrogate(x).detach())
    assert torch.equal(predict_logits(model, x), model(x).detach())


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.detach() @ torch.ones(4, 3),
        lambda x: torch.ones(len(x), 3) * torch.ones((), requires_grad=True),
    ],
)
def test_models_without_a_gradient_are_named(model):
    with pytest.raises(ValueError, match=r"no gradient .* surrogate"):
        input_gradient(model, torch.rand(2, 4), total)


def test_half_precision_logits_are_judged_in_float32():
    model = nn.Linear(4, 3).bfloat16()
    x = torch.rand(2, 4)
    found = input_gradient(lambda x: model(x.bfloat16()), x, total)
    assert found.grad.dtype == found.logits_BK.dtype == torch.float32


def test_nan_logits_are_never_correct():
    nan = float("nan")
    logits = torch.tensor([[1.0, 0.0], [nan, 0.0], [1.0, nan], [0.0, 1.0]])
    assert is_correct(logits, torch.tensor([0, 0, 0, 0])).tolist() == [True, False, False, False]
