"""Steps replayed as CUDA graphs: the same bits, and only where they are the same."""

import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel, evaluate
from tests.helpers.slot_engine import conv_images, convnet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SUITE = (
    AttackSpec("apgd-ce", options={"n_iter": 40, "n_restarts": 2}),
    AttackSpec("apgd-t", options={"n_iter": 40, "n_targets": 2}),
    AttackSpec("fab-t", options={"n_iter": 40, "n_targets": 2}),
    AttackSpec("square", options={"n_queries": 100}),
)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("search_dtype", ["float32", "bfloat16"])
def test_graphs_change_nothing(norm, search_dtype):
    x, y = conv_images()
    threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.2, "l1": 0.6}[norm])
    plain, graphed = (
        evaluate(
            convnet().cuda(), x.cuda(), y.cuda(), threat, SUITE, compute_shape=32, batch_size=64,
            search_dtype=search_dtype, graphs=graphs,
        )
        for graphs in (False, True)
    )  # fmt: skip
    assert 0 < plain.robust_accuracy < 1
    assert torch.equal(plain.x_adv, graphed.x_adv)
    assert torch.equal(plain.forwards, graphed.forwards)
    assert plain.broken_by == graphed.broken_by


class Asking(nn.Module):
    """Asks the host in every pass, which no graph can do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += int(bool((x >= 0).all()))
        return self.network(x)


def test_networks_that_ask_the_host_are_stepped_as_usual():
    x, y = conv_images()
    threat = ThreatModel("linf", 0.02)
    plain, asking = (
        evaluate(model.cuda(), x.cuda(), y.cuda(), threat, SUITE[:1])
        for model in (convnet(), Asking(convnet()))
    )
    assert torch.equal(plain.x_adv, asking.x_adv)
    assert torch.equal(plain.backwards, asking.backwards)
