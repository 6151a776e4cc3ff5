"""The inner maximisation's rewritten copies compute what the networks of the catalogue compute."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from robustray.manifest.recipe import Recipe
from robustray.models import create_model
from robustray.models.architectures.cell_network import GENOTYPES, CellNetwork, CellNetworkConfig
from robustray.models.options import SE_POSITIONS
from robustray.training.frozen import FrozenCopy
from robustray.training.precision import Precision

ROBUST = {"depths": (1, 2), "channels": (16, 16, 16), "block": "robust"}


def cells(genotype: str) -> nn.Module:
    return CellNetwork(CellNetworkConfig(genotype, channels=4, layers=4))


def robust(**options) -> nn.Module:
    return create_model("preact_resnet", **ROBUST, **options)


NETWORKS = {
    **{f"cells {name}": partial(cells, name) for name in GENOTYPES},
    **{f"se {se}": partial(robust, se=se) for se in SE_POSITIONS},
    "one scale": partial(robust, scales=1, base_width=160),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_copy_gives_the_same_logits_and_gradients(name):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    model = model.double()
    frozen = FrozenCopy(model, Precision.of(Recipe(channels_last=False), "cpu")).module
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    results = []
    for network in (copy.deepcopy(model).eval(), frozen):
        leaf = x.clone().requires_grad_()
        logits = network(leaf)
        results.append((logits, torch.autograd.grad(logits.square().sum(), leaf)[0]))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
