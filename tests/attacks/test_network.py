"""Searching in low precision: what is reported broken is broken in float32."""

import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel, evaluate
from robustray.attacks.engine.network import Network
from tests.helpers.public_networks import CHECKPOINTS, load_images, load_network
from tests.helpers.slot_engine import conv_images, convnet

SUITE = [
    AttackSpec("apgd-ce", options={"n_iter": 15}),
    AttackSpec("fab-t", options={"n_iter": 8, "n_targets": 2}),
    AttackSpec("square", options={"n_queries": 50}),
]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_claim_of_a_bfloat16_search_is_confirmed_in_float32(norm):
    model, x, y = convnet(), *conv_images()
    threat = ThreatModel(norm, 0.02 if norm == "linf" else 0.2)
    result = evaluate(model, x, y, threat, SUITE, search_dtype="bfloat16", compute_shape=32)
    assert 0 < result.robust_accuracy < 1
    assert torch.equal(model(result.x_adv).argmax(1) == y, result.robust)
    assert threat.contains(result.x_adv, x).all()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    again = evaluate(
        model, x[order], y[order], threat, SUITE, batch_size=7, index=order,
        search_dtype="bfloat16", compute_shape=32,
    )  # fmt: skip
    assert torch.equal(again.x_adv, result.x_adv[order])
    assert torch.equal(again.forwards, result.forwards[order])


class Coarse(nn.Module):
    """In bfloat16 every changed image looks misclassified; in truth none is."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        total = x.flatten(1).sum(1) * self.weight
        sure = torch.full_like(total, 3.0)
        if self.weight.dtype == torch.bfloat16:
            sure = torch.where(x.flatten(1)[:, 0] == 0.5, sure, -sure)
        return torch.stack([sure + 0 * total, 1e-3 * total], dim=1)


def test_claims_that_are_not_confirmed_do_not_end_the_search():
    x, y = torch.full((20, 1, 4, 4), 0.5), torch.zeros(20, dtype=torch.int64)
    result = evaluate(Coarse(), x, y, ThreatModel("linf", 0.1), [SUITE[0]], search_dtype="bfloat16")
    assert result.clean_accuracy == result.robust_accuracy == 1
    assert result.backwards.tolist() == [16] * 20
    # The clean pass, 16 points of the search, and the verdicts that refuted it.
    assert result.forwards.tolist() == [1 + 16 + 16] * 20


def test_a_bfloat16_search_is_about_as_strong(shared_data):
    checkpoint = CHECKPOINTS["cnn_a_adv4"]
    x, y = load_images(shared_data, checkpoint.data)
    model, threat = load_network(shared_data, "cnn_a_adv4"), ThreatModel("linf", checkpoint.eps)
    robust = [
        evaluate(model, x[:128], y[:128], threat, SUITE[:1], search_dtype=dtype).robust.sum()
        for dtype in ("float32", "bfloat16")
    ]
    assert abs(robust[0] - robust[1]) <= 2


def test_channels_last_changes_rounding_alone():
    model, x, y = convnet(), *conv_images()
    threat = ThreatModel("linf", 0.02)
    plain, strided = (
        evaluate(model, x, y, threat, "sweep-quick", channels_last=flag) for flag in (False, True)
    )
    assert (plain.robust != strided.robust).sum() <= 2
    assert all(p.is_contiguous() for p in model.parameters())


def test_the_search_copy_is_frozen_and_the_model_is_not():
    model = convnet()
    network = Network(model, torch.device("cpu"), search_dtype="bfloat16")
    x = torch.rand(8, 2, 10, 10)
    assert network.search_path(x).dtype == torch.bfloat16
    assert not network.search_path(x).requires_grad
    assert network(x).dtype == torch.float32
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_searches_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="search_dtype is one of float32, bfloat16"):
        Network(convnet(), torch.device("cpu"), search_dtype="float16")
    with pytest.raises(ValueError, match="not a function"):
        Network(lambda x: x, torch.device("cpu"), channels_last=True)
