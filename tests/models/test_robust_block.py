from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from robustray.models import ModelError
from robustray.models.architectures.robust_block import RobustResBlock, branch_width, gate_units
from robustray.models.options import SE_POSITIONS

SMALL = {"scales": 8, "base_width": 10, "cardinality": 4, "se_reduction": 16}


def slow_conv(x, weight, stride, groups=1):
    """Convolution as a sum over shifted images."""
    k = weight.shape[-1]
    pad = k // 2
    height, width = x.shape[2:]
    x = nn.functional.pad(x, (pad,) * 4)
    outs = []
    for xg, wg in zip(x.chunk(groups, 1), weight.chunk(groups, 0), strict=True):
        out = torch.zeros(())
        for i in range(k):
            for j in range(k):
                shifted = xg[:, :, i : i + height : stride, j : j + width : stride]
                out = out + torch.einsum("bchw,oc->bohw", shifted, wg[:, :, i, j])
        outs.append(out)
    return torch.cat(outs, 1)


def slow_norm(x, state, name):
    def of(what):
        return state[f"{name}.{what}"].view(-1, 1, 1)

    return (x - of("running_mean")) / (of("running_var") + 1e-5).sqrt() * of("weight") + of("bias")


def slow_pool(x, stride):
    height, width = x.shape[2:]
    x = nn.functional.pad(x, (1,) * 4)
    windows = [
        x[:, :, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)
    ]
    return sum(windows) / 9


def act(z):
    return z.clamp(min=0)


def slow_gate(z, state):
    """The gated tensor."""
    hidden = act(z.mean((2, 3)) @ state["se.fc.0.weight"].T)
    gate = torch.sigmoid(hidden @ state["se.fc.2.weight"].T)
    return z * gate[:, :, None, None]


def slow_block(state, x, *, stride, scales, groups, se="residual"):
    """The block's equations, one by one, from its state dict."""

    skip = x
    if "shortcut.0.weight" in state:
        skip = slow_conv(act(slow_norm(x, state, "bn1")), state["shortcut.0.weight"], stride)
    t = act(slow_norm(slow_conv(x, state["conv1.weight"], 1), state, "bn2"))
    if scales == 1:
        u = act(slow_norm(slow_conv(t, state["conv2.weight"], stride, groups), state, "bn3"))
    else:
        parts = t.split(t.shape[1] // scales, 1)
        ys = []
        for j in range(scales - 1):
            given = parts[j] if j == 0 or stride > 1 else parts[j] + ys[j - 1]
            y = slow_conv(given, state[f"conv2.{j}.weight"], stride, groups)
            ys.append(act(slow_norm(y, state, f"bn3.{j}")))
        ys.append(parts[-1] if stride == 1 else slow_pool(parts[-1], stride))
        u = torch.cat(ys, 1)
    if se == "conv3x3":
        u = slow_gate(u, state)
    o = slow_conv(u, state["conv3.weight"], 1)
    if se == "identity" and skip is x:
        return o + slow_gate(x, state)
    if se in ("residual", "standard"):
        branch = slow_gate(slow_norm(o, state, "se_bn"), state)
        return branch + skip + (o if se == "residual" else 0)
    return o + skip


def randomised(block: nn.Module) -> nn.Module:
    """Give every tensor, statistics included, values that show."""
    generator = torch.Generator().manual_seed(5)
    for tensor in (*block.parameters(), *block.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.3
    for name, buffer in block.named_buffers():
        if name.endswith("running_var"):
            buffer += 0.5
    return block.double().eval()


@pytest.mark.parametrize("scales", [1, 2, 3, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("in_channels", [64, 12])
def test_forward_is_the_published_formula(scales, stride, kernel_size, in_channels):
    options = SMALL | {"scales": scales}
    block = RobustResBlock(in_channels, 16, stride=stride, kernel_size=kernel_size, **options)
    randomised(block)
    x = torch.rand(2, in_channels, 7, 6, dtype=torch.float64) - 0.5
    expected = slow_block(block.state_dict(), x, stride=stride, scales=scales, groups=4)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("se", SE_POSITIONS)
@pytest.mark.parametrize("scales", [1, 4])
@pytest.mark.parametrize("in_channels", [64, 12])
def test_positions_of_the_gate(se, scales, in_channels):
    options = SMALL | {"scales": scales, "se": se}
    block = randomised(RobustResBlock(in_channels, 16, **options))
    x = torch.rand(2, in_channels, 5, 6, dtype=torch.float64) - 0.5
    expected = slow_block(block.state_dict(), x, stride=1, scales=scales, groups=4, se=se)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)
    block.train()(x).sum().backward()
    unused = {n.partition(".")[0] for n, p in block.named_parameters() if p.grad is None}
    assert unused == ({"bn1"} if in_channels == 64 else set())


def test_the_gate_of_the_spatial_convolution_has_as_many_units():
    block = RobustResBlock(64, 16, **SMALL, se="conv3x3")
    assert block.se.fc[0].weight.shape == (4, 32)
    assert block.se_bn is None
    assert RobustResBlock(12, 16, **SMALL, se="identity").se is None


def test_members_are_those_of_the_published_weights():
    names = [name for name, _ in RobustResBlock(16, 80, se_reduction=64).named_parameters()]
    spatial = [f"conv2.{j}.weight" for j in range(7)]
    norms = [f"bn3.{j}.{what}" for j in range(7) for what in ("weight", "bias")]
    assert names == [
        "bn1.weight", "bn1.bias", "conv1.weight", "bn2.weight", "bn2.bias", *spatial, *norms,
        "conv3.weight", "se_bn.weight", "se_bn.bias", "se.fc.0.weight", "se.fc.2.weight",
        "shortcut.0.weight",
    ]  # fmt: skip


class WithDeadNorm(RobustResBlock):
    """Computes what the published code computes and throws away."""

    def forward(self, x_BCHW):
        self.act(self.bn1(x_BCHW))
        return super().forward(x_BCHW)


@pytest.mark.parametrize("training", [False, True])
def test_unused_norm_is_not_computed_and_changes_no_bit(training):
    torch.manual_seed(0)
    block: Any = RobustResBlock(64, 16, **SMALL).train(training)
    full = copy.deepcopy(block)
    full.__class__ = WithDeadNorm
    x = torch.rand(3, 64, 8, 8)
    calls = []
    block.bn1.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(block(x), full(x))
    assert not calls
    with torch.no_grad():
        block.bn1.weight.fill_(torch.nan)
    assert torch.equal(block(x), full(x))


def test_unused_norm_gets_no_gradient_and_no_statistics():
    block = RobustResBlock(64, 16, **SMALL).train()
    before = copy.deepcopy(block.bn1.state_dict())
    block(torch.rand(2, 64, 4, 4)).sum().backward()
    assert [name for name, p in block.named_parameters() if p.grad is None] == [
        "bn1.weight",
        "bn1.bias",
    ]
    after = block.bn1.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_norm_before_a_projection_is_used():
    block = RobustResBlock(16, 16, **SMALL).train()
    block(torch.rand(2, 16, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())


@pytest.mark.parametrize(
    ("channels", "base_width", "cardinality", "width"),
    [(80, 10, 4, 20), (224, 10, 4, 56), (17, 10, 4, 4), (256, 60, 4, 384), (16, 160, 1, 16)],
)
def test_branch_width(channels, base_width, cardinality, width):
    assert branch_width(channels, base_width, cardinality) == width


def test_zero_width_branch_is_refused():
    with pytest.raises(ModelError, match="at least 160"):
        RobustResBlock(16, 15, base_width=10)


def test_empty_gate_is_refused():
    with pytest.raises(ModelError, match="se_reduction=64"):
        gate_units(63, 64)
    assert gate_units(64, 64) == 1
    assert gate_units(127, 64) == 1
