"""Networks of searched cells: their equations, their names, their costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustray.models import ModelError, create_model
from robustray.models.architectures.cell_network import (
    GENOTYPES,
    Cell,
    CellNetwork,
    CellNetworkConfig,
)
from robustray.models.architectures.cell_operations import OPERATIONS, FactorizedReduce


def small(genotype: str, **options) -> CellNetwork:
    torch.manual_seed(0)
    return CellNetwork(CellNetworkConfig(genotype, channels=4, layers=3, **options))


def randomised(module: nn.Module) -> nn.Module:
    """Give every tensor, statistics included, values that show; in double precision."""
    generator = torch.Generator().manual_seed(3)
    module.double()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.3
            if name.endswith("running_var"):
                tensor += 0.5
    return module.eval()


def norm(x, state, name):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    x = (x - mean.view(-1, 1, 1)) / (var.view(-1, 1, 1) + 1e-5).sqrt()
    if f"{name}.weight" in state:
        x = x * state[f"{name}.weight"].view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)
    return x


def conv(x, weight, stride=1, dilation=1):
    groups = x.shape[1] // weight.shape[1]
    padding = dilation * (weight.shape[-1] // 2)
    return nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups)


def part(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def slow_reduce(x, state):
    x = x.clamp(min=0)
    halves = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
    mixed = [conv(half, state[f"conv_{i}.weight"]) for i, half in enumerate(halves, 1)]
    return norm(torch.cat(mixed, 1), state, "bn")


def slow_depthwise(x, state, first, stride, dilation=1):
    x = conv(x.clamp(min=0), state[f"op.{first}.weight"], stride, dilation)
    return norm(conv(x, state[f"op.{first + 1}.weight"]), state, f"op.{first + 2}")


def slow_operation(name, x, state, stride):
    """An operation on images of even sides, written out."""
    if name.startswith("sep"):
        return slow_depthwise(slow_depthwise(x, state, 1, stride), state, 5, 1)
    if name.startswith("dil"):
        return slow_depthwise(x, state, 1, stride, dilation=2)
    if name == "skip":
        return x if stride == 1 else slow_reduce(x, state)
    if name == "res_sep3":
        left = slow_operation("sep3", x, part(state, "conv."), stride)
        return left + slow_operation("skip", x, part(state, "res."), stride)
    if name == "zero":
        return 0 * x[:, :, ::stride, ::stride]
    windows = nn.functional.pad(x, (1,) * 4, value=torch.nan).unfold(2, 3, stride)
    windows = windows.unfold(3, 3, stride).flatten(-2)
    return windows.nanmean(-1) if name == "avg3" else windows.nan_to_num(-torch.inf).amax(-1)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_operations_are_their_formulas(name, stride, affine):
    operation = randomised(OPERATIONS[name](6, stride, affine))
    x = torch.rand(2, 6, 8, 6, dtype=torch.float64) - 0.5
    kept = x.clone()
    expected = slow_operation(name, x, operation.state_dict(), stride)
    torch.testing.assert_close(operation(x), expected)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_agree_on_the_size_of_odd_images(name):
    operation = OPERATIONS[name](6, 2, True).eval()
    assert operation(torch.rand(1, 6, 7, 5)).shape == (1, 6, 4, 3)


@pytest.mark.parametrize("genotype", GENOTYPES)
@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_cell_is_the_sum_that_its_genotype_says(genotype, reduction, after):
    found = GENOTYPES[genotype]
    cell = randomised(Cell(found, (10, 12), 6, reduction=reduction, after_reduction=after))
    older = torch.rand(2, 10, *((16, 16) if after else (8, 8)), dtype=torch.float64) - 0.5
    newer = torch.rand(2, 12, 8, 8, dtype=torch.float64) - 0.5
    state = cell.state_dict()

    def adapt(x, which, reduce):
        inner = part(state, f"preprocess{which}.")
        if reduce:
            return slow_reduce(x, inner)
        return norm(conv(x.clamp(min=0), inner["op.1.weight"]), inner, "op.2")

    states = [adapt(older, 0, after), adapt(newer, 1, False)]
    number = 0
    for node in found.reduction if reduction else found.normal:
        total = 0
        for name, source in node:
            inner = part(state, f"_ops.{number}.op." if found.nested else f"_ops.{number}.")
            stride = 2 if reduction and source < 2 else 1
            total = total + slow_operation(name, states[source], inner, stride)
            number += 1
        states.append(total)
    torch.testing.assert_close(cell(older, newer), torch.cat(states[2:], 1))


def test_genotypes_read_states_that_exist():
    for genotype in GENOTYPES.values():
        for cell in (genotype.normal, genotype.reduction):
            assert len(cell) == 4
            for position, node in enumerate(cell):
                assert all(name in OPERATIONS for name, _ in node)
                assert all(0 <= state < position + 2 for _, state in node)


@pytest.mark.parametrize(
    ("name", "entries"), [("robnet_large_v2", 4624), ("advrush", 2456), ("racl", 1924)]
)
def test_number_of_entries(name, entries):
    with torch.device("meta"):
        assert len(create_model(name).state_dict()) == entries


def test_names_of_published_weights():
    with torch.device("meta"):
        robnet = set(create_model("robnet_large_v2").state_dict())
        advrush = create_model("advrush").state_dict()
    separable = {f"cells.0._ops.5.op.op.{i}.weight" for i in (1, 2, 5, 6)}
    residual = {f"cells.0._ops.0.op.conv.op.{i}.weight" for i in (1, 2, 5, 6)}
    reduced = {f"cells.11._ops.0.op.res.{name}" for name in ("conv_1.weight", "bn.running_var")}
    assert separable | residual | reduced <= robnet
    assert {"cells.12.preprocess0.conv_2.weight", "cells.0.preprocess1.op.2.running_mean"} <= robnet
    assert {name for name in robnet if name.endswith("bias")} == {"stem.1.bias", "classifier.bias"}
    assert advrush["cells.0._ops.2.op.1.weight"].shape == (96, 1, 5, 5)
    assert advrush["cells.7._ops.2.conv_1.weight"].shape == (96, 192, 1, 1)
    assert advrush["cells.8.preprocess0.bn.bias"].shape == (192,)
    assert advrush["classifier.weight"].shape == (10, 1536)


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_logits_and_input_gradients_with_frozen_weights(genotype):
    model = small(genotype, num_classes=7).eval().requires_grad_(False)
    x = torch.rand(3, 3, 16, 16, requires_grad=True)
    logits = model(x)
    assert logits.shape == (3, 7)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any(dim=(1, 2, 3)).all()
    other = torch.cat((torch.rand(2, 3, 16, 16), x[2:].detach()))
    assert torch.equal(model(other)[2:], logits[2:])


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_every_parameter_learns(genotype):
    model = small(genotype).train()
    model(torch.rand(4, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_compiles_into_one_graph():
    model = small("advrush").eval()
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_pre_process_and_other_images():
    plain, standard = small("racl").eval(), small("racl", pre_process=True).eval()
    assert list(plain.state_dict()) == list(standard.state_dict())
    x = torch.rand(2, 3, 9, 9)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2471, 0.2435, 0.2616]).view(3, 1, 1)
    assert torch.equal(standard(x), plain((x - mean) / std))
    assert small("racl", in_channels=1)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"genotype": "darts"}, "unknown genotype 'darts'"),
        ({"channels": 5}, "5 is not an even number"),
        ({"layers": 2}, "at least 3"),
        ({"pre_process": True, "in_channels": 1}, "3 channels, not 1"),
    ],
)
def test_wrong_options_say_what_is_allowed(options, message):
    given = {"genotype": "racl", "channels": 4, "layers": 3, **options}
    with pytest.raises(ModelError, match=message):
        CellNetworkConfig(**given)


def test_factorized_reduce_sees_zero_beyond_an_odd_side():
    layer = randomised(FactorizedReduce(2, 4, affine=False))
    x = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    torch.testing.assert_close(layer(x), layer(padded))
