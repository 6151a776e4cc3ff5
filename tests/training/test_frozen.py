"""The frozen copy computes what the original does in evaluation mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from robustray.manifest.recipe import Recipe
from robustray.models import create_model
from robustray.training.frozen import FrozenCopy
from robustray.training.precision import Precision
from tests.helpers.small_training import Linear, tiny

FLOAT32 = Precision.of(Recipe(channels_last=False), "cpu")


def stir(model: nn.Module) -> nn.Module:
    """Give every normalization statistics and weights of its own, of both signs."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model


def both(model: nn.Module, frozen: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Logits and input gradients of the original in evaluation mode and of the copy."""
    results = []
    for module in (copy.deepcopy(model).eval(), frozen):
        leaf = x.clone().requires_grad_()
        logits = module(leaf)
        results.append((logits, torch.autograd.grad(logits.square().sum(), leaf)[0]))
    return list(zip(*results, strict=True))


MODELS = {
    "tiny": (tiny, 1),
    "basic": (lambda: create_model("preact_resnet", depths=(2, 1), channels=(8, 8, 16)), 3),
    "robust": (lambda: create_model("preact_resnet", depths=(2, 1, 1), block="robust"), 3),
    "silu": (
        lambda: create_model(
            "preact_resnet", depths=(1, 1, 1), channels=(8, 8, 8, 8), activations="SiLU"
        ),
        3,
    ),
    "group": (
        lambda: create_model(
            "preact_resnet", depths=(1, 1, 1), channels=(8, 8, 8, 8), normalizations="GroupNorm"
        ),
        3,
    ),
}


@pytest.mark.parametrize("name", ["tiny", "basic", "robust", "silu", "group"])
def test_same_function_in_float64(name: str) -> None:
    torch.manual_seed(0)
    build, channels = MODELS[name]
    model = stir(build()).double()
    frozen = FrozenCopy(model, FLOAT32)
    for _ in range(2):
        for mine, theirs in both(model, frozen.module, torch.rand(3, channels, 8, 8).double()):
            assert (mine - theirs).norm() <= 1e-10 * mine.norm()
        stir(model)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        frozen.refresh()


def test_folds_what_it_can_and_only_that() -> None:
    frozen = FrozenCopy(tiny(), FLOAT32)
    kinds = [type(module) for module in frozen.module.modules()]
    assert kinds.count(nn.BatchNorm2d) == 2, "bn2 is folded; bn1 and bn3 follow sums and skips"


class Awkward(nn.Module):
    """A convolution that is read twice, one that is used twice, and a shared normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.n1, self.n2, self.n3 = (nn.BatchNorm2d(2) for _ in range(3))
        self.gate, self.relu = nn.Conv2d(2, 2, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        x = self.relu(self.n1(a)) + a
        x = self.relu(x) + x
        x = self.n2(self.b(x)) + self.n2(self.b(self.relu(x)))
        gate = self.gate(x.mean((2, 3), keepdim=True))
        x = gate + x
        return (self.relu(self.n3(self.gate(x))) + self.gate(x)).flatten(1)


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return (x if x.sum() > 0 else 2 * x).flatten(1)


def test_models_that_leave_little_to_rewrite() -> None:
    torch.manual_seed(1)
    for model in (Awkward(), DataDependent()):
        stir(model.double())
        frozen = FrozenCopy(model, FLOAT32)
        for mine, theirs in both(model, frozen.module, torch.rand(4, 2, 5, 5).double()):
            assert (mine - theirs).norm() <= 1e-10 * mine.norm()


def test_hooks_are_kept() -> None:
    model = Linear()
    model.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    frozen = FrozenCopy(model, FLOAT32)
    x = torch.rand(2, 3, 2, 2)
    assert torch.equal(frozen.module(x), model.fc(2 * x.flatten(1)))


def test_original_is_left_alone() -> None:
    model = tiny().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = FrozenCopy(model, FLOAT32)
    frozen.module(torch.rand(4, 1, 6, 6))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.module.parameters())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_bfloat16_is_close() -> None:
    torch.manual_seed(2)
    model = stir(create_model("preact_resnet", depths=(1, 1, 1), channels=(8, 8, 16, 16)))
    precision = Precision.of(Recipe(precision="bfloat16"), "cpu")
    x = precision.images(torch.rand(4, 3, 16, 16))
    frozen = FrozenCopy(model, precision)
    with precision.autocast():
        low = frozen.module(x).float()
    exact = copy.deepcopy(model).eval()(x)
    assert (low - exact).norm() < 0.03 * exact.norm()
    rounded = [p for p in frozen.module.parameters() if p.ndim > 1]
    assert {p.dtype for p in rounded} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
