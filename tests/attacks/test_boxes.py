"""Attacks in other boxes than [0, 1], and at their optima on linear networks."""

import pytest
import torch

from robustray.attacks import (
    AttackSpec,
    ThreatModel,
    carlini_wagner,
    cw_l2,
    evaluate,
    fgsm,
    pgd,
    square,
    stadv,
)
from robustray.attacks.catalogue.apgd import apgd_ce
from robustray.attacks.catalogue.fab import fab
from robustray.attacks.catalogue.stadv import roughness, warp
from tests.helpers.linear_networks import Linear

SIGNED = (-1.0, 1.0)
SHAPE = (1, 6, 6)


class Signed(Linear):
    """A linear network whose logits are 0 in the middle of [-1, 1]."""

    def __init__(self, classes=2, seed=0):
        super().__init__(SHAPE, classes, seed)
        self.bias_K = torch.zeros(classes, dtype=torch.float64)


def signed_images(count=8, scale=0.3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return scale * (2 * torch.rand(count, *SHAPE, dtype=torch.float64, generator=generator) - 1)


@pytest.mark.parametrize("box", [SIGNED, None])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_attacks_reach_the_optimum_in_any_box(box, norm, eps):
    model, x = Signed(), signed_images()
    y, threat = torch.zeros(8, dtype=torch.int64), ThreatModel(norm, eps, box)
    w = (model.weight_KD[1] - model.weight_KD[0]).reshape(SHAPE)
    step = w.sign() if norm == "linf" else w / w.norm()
    best = x + eps * step
    single = fgsm(model, x, y, threat)
    torch.testing.assert_close(single.x_adv, best, atol=1e-5, rtol=0)
    many = pgd(model, x, y, threat, steps=40, step_size=eps / 10, loss="margin")
    gain = model.margin(many.x_adv, y) - model.margin(x, y)
    assert (gain >= 0.995 * (model.margin(best, y) - model.margin(x, y))).all()
    assert threat.contains(many.x_adv, x).all()
    assert (many.x_adv < 0).any()


def test_published_pgd_stays_in_the_signed_box():
    model, x = Signed(), torch.full((4, *SHAPE), 0.95, dtype=torch.float64)
    y, threat = torch.zeros(4, dtype=torch.int64), ThreatModel("linf", 0.3, SIGNED)
    found = pgd(model, x, y, threat, steps=40, step_size=0.02, loss="margin")
    w = (model.weight_KD[1] - model.weight_KD[0]).reshape(SHAPE)
    torch.testing.assert_close(found.x_adv, torch.where(w > 0, 1.0, 0.65).double().expand_as(x))


def test_pixels_outside_the_box_end_at_its_wall():
    model, y = Signed(), torch.zeros(1, dtype=torch.int64)
    x = torch.full((1, *SHAPE), 3.0, dtype=torch.float64)
    for start, wall in ((x, 1.0), (-x, -1.0)):
        found = pgd(model, start, y, ThreatModel("linf", 0.1, SIGNED), steps=2)
        assert (found.x_adv == wall).all()


@pytest.mark.parametrize("attack", [apgd_ce, square])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.3)])
def test_attacks_of_the_ensemble_in_the_signed_box(attack, norm, eps):
    model, x = Signed(), signed_images(6, 0.9).float()
    model.weight_KD, model.bias_K = model.weight_KD.float(), model.bias_K.float()
    y, threat = model(x).argmax(1), ThreatModel(norm, eps, SIGNED)
    budget = {"n_queries": 300} if attack is square else {"n_iter": 20}
    found = attack(model, x, y, threat, **budget)
    assert threat.contains(found.x_adv, x).all()
    assert (model.margin(found.x_adv, y) >= model.margin(x, y)).all()
    # The same as in [0, 1] with the model's input mapped: both see the same random numbers.
    mapped = attack(
        lambda u: model(2 * u - 1), (x + 1) / 2, y, ThreatModel(norm, eps / 2), **budget
    )
    assert (found.success_B == mapped.success_B).all()


def test_what_knows_no_other_box_says_so():
    model, x, y = Signed(), signed_images(2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"FAB works in the box \(0, 1\) only"):
        fab(model, x, y, ThreatModel("linf", 0.1, SIGNED))
    with pytest.raises(ValueError, match="l1 works in"):
        ThreatModel("l1", 0.1, SIGNED)
    for box in ((1, 1), (0, float("inf")), (0,), "ab"):
        with pytest.raises(ValueError, match="box is"):
            ThreatModel("l2", 0.1, box)
    with pytest.raises(ValueError, match="wider than"):
        ThreatModel("linf", 2.1, SIGNED)
    assert ThreatModel("linf", 2.1, None).high == float("inf")
    with pytest.raises(ValueError, match=r"instead of \[0, 1\]"):
        evaluate(model, x, y, ThreatModel("linf", 0.1), suite="pgd-20")
    found = evaluate(model, x, y, ThreatModel("linf", 0.1, SIGNED), suite="pgd-20")
    assert found.robust_accuracy <= found.clean_accuracy


@pytest.mark.parametrize("box", [SIGNED, None])
def test_carlini_and_wagner_find_the_distance_to_a_plane(box):
    model, x = Signed(), signed_images(8, 0.5)
    logits = model(x)
    y = logits.argmax(1)
    w = model.weight_KD[1] - model.weight_KD[0]
    distance = (logits[:, 1] - logits[:, 0]).abs() / w.norm()
    found = carlini_wagner(model, x, y, box=box, n_iter=400)
    assert ((found.distance_B / distance - 1) < 0.015).all()
    assert ((found.distance_B / distance - 1) > -1e-9).all()
    assert (model(found.nearest).argmax(1) != y).all()
    torch.testing.assert_close((found.nearest - x).flatten(1).norm(dim=1), found.distance_B)


def test_carlini_and_wagner_as_an_attack():
    model, x = Signed(classes=3), signed_images(12, 0.6)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    distance = carlini_wagner(model, x, y, box=SIGNED, n_iter=200).distance_B
    assert distance[0] == 0
    eps = float(distance.median())
    threat = ThreatModel("l2", eps * 1.0001, SIGNED)
    found = cw_l2(model, x, y, threat, n_iter=200)
    assert torch.equal(found.success_B, distance <= threat.eps)
    assert torch.equal(found.x_adv[0], x[0])
    assert threat.contains(found.x_adv, x).all()
    alone = cw_l2(model, x[3:4], y[3:4], threat, n_iter=200)
    torch.testing.assert_close(alone.x_adv[0], found.x_adv[3])
    with pytest.raises(ValueError, match="not linf"):
        cw_l2(model, x, y, ThreatModel("linf", 0.1, SIGNED))


def test_warp_moves_pixels_and_zero_flow_changes_nothing():
    x = torch.rand(2, 3, 8, 8)
    flow = torch.zeros(2, 8, 8, 2)
    for corners in (False, True):
        torch.testing.assert_close(warp(x, flow, align_corners=corners), x)
    flow[..., 0] = 2 / 8  # one pixel from the right
    torch.testing.assert_close(warp(x, flow)[..., :-1], x[..., 1:])
    assert (warp(x, flow)[..., -1] == 0).all()
    assert roughness(flow).max() < 1e-4


class Shifted(torch.nn.Module):
    """Class 1 where the right half is brighter: bending alone can change that."""

    def forward(self, x):
        gap = (x[..., 4:].mean((1, 2, 3)) - x[..., :4].mean((1, 2, 3)))[:, None]
        return torch.cat([-5 * gap, 5 * gap], dim=1)


def test_stadv_bends_images_and_gives_up_on_uniform_ones():
    x = torch.full((3, 1, 8, 8), -1.0)
    x[0, ..., 3], x[1, ..., 4] = 1.0, 1.0
    x[2] = 0.0
    y = torch.tensor([0, 1, 0])
    whole = ThreatModel("linf", 2.0, SIGNED)
    found = stadv(Shifted(), x, y, whole, smoothness=0.01, n_iter=60)
    assert found.success_B.tolist() == [True, True, False]
    assert torch.equal(found.x_adv[2], x[2])
    assert (Shifted()(found.x_adv).argmax(1)[:2] != y[:2]).all()
    alone = stadv(Shifted(), x[1:2], y[1:2], whole, smoothness=0.01, n_iter=60)
    torch.testing.assert_close(alone.x_adv[0], found.x_adv[1])
    errors = [
        int(stadv(Shifted(), x, y, whole, smoothness=tau, n_iter=60).success_B.sum())
        for tau in (1e4, 10.0, 0.001)
    ]
    assert (errors[0], errors[-1]) == (0, 2)
    assert errors == sorted(errors)
    narrow = ThreatModel("linf", 0.01, SIGNED)
    assert narrow.contains(stadv(Shifted(), x, y, narrow, n_iter=20).x_adv, x).all()


@pytest.mark.parametrize("suite", ["cw-l2", "stadv"])
def test_suites_know_both(suite):
    model, x = Signed(), (signed_images(6, 0.5) + 1) / 2
    y = model(x).argmax(1)
    threat = ThreatModel("l2", 2.0)
    result = evaluate(model, x, y, threat, suite=[AttackSpec(suite, options={"n_iter": 40})])
    assert 0 <= result.robust_accuracy <= result.clean_accuracy == 1


def test_suites_refuse_what_an_attack_cannot_do_before_it_runs():
    for spec, threat in (
        (AttackSpec("cw-l2"), ThreatModel("linf", 0.1)),
        (AttackSpec("cw-l2", options={"lr": 0.0}), ThreatModel("l2", 0.1)),
        (AttackSpec("stadv", options={"smoothness": -1.0}), ThreatModel("l2", 0.1)),
        (AttackSpec("fab"), ThreatModel("l2", 0.1, SIGNED)),
    ):
        with pytest.raises(ValueError, match=f"attack {spec.name}: "):
            spec.check(threat)
