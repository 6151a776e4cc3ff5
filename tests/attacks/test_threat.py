from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.attacks import ThreatModel, apgd_ce, cw_l2, fab, fgsm, pgd, square
from robustray.attacks.steps.projections import add_toward, ascent_step, steepest
from robustray.random import ExampleRandom

SHAPES = [(5, 12), (3, 1, 4, 6), (64, 3, 8, 8), (1, 2, 3, 4, 5)]


def images(shape, seed=0, levels=None, dtype=torch.float32):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x if levels is None else (x * levels).round() / levels


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [0, -0.1, float("nan"), float("inf"), "big", True, None])
def test_eps_must_be_a_positive_number(norm, eps):
    with pytest.raises(ValueError, match="threat model: eps is a"):
        ThreatModel(norm, eps)


def test_wrong_threat_models_are_explained():
    with pytest.raises(ValueError, match="norm is one of linf, l2, l1, l0, not 'Linf'"):
        ThreatModel("Linf", 8 / 255)
    with pytest.raises(ValueError, match=r"8/255, not 8"):
        ThreatModel("linf", 8)


@pytest.mark.parametrize("attack", [fgsm, pgd, apgd_ce, fab, square, cw_l2])
def test_attacks_refuse_what_is_longer_than_their_images_are_wide(attack):
    x, y = images((2, 1, 4, 4)), torch.tensor([0, 1])
    words = r"^threat model: eps: 5 is longer than the l2 diameter .* 4 for 16 numbers; eps is in"
    with pytest.raises(ValueError, match=words):
        attack(lambda x: x.flatten(1)[:, :3], x, y, ThreatModel("l2", 5.0))


def test_threat_models_are_values():
    assert ThreatModel("linf", Fraction(8, 255)) == ThreatModel("linf", 8 / 255)
    assert len({ThreatModel("l2", np.float64(0.5)), ThreatModel("l2", 0.5)}) == 1
    with pytest.raises(AttributeError):
        ThreatModel("l2", 0.5).eps = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.one_of(st.sampled_from([k / 255 for k in (1, 2, 4, 8, 16)]), st.floats(1e-6, 1.0)),
    shape=st.sampled_from(SHAPES),
    levels=st.sampled_from([None, 255, 1]),
    reach=st.sampled_from([1e-9, 1e-3, 1.0, 1e6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_projected_points_are_inside_in_any_arithmetic(
    norm, eps, shape, levels, reach, dtype, seed
):
    threat = ThreatModel(norm, eps)
    x = images(shape, seed, levels, dtype)
    far = x + reach * (images(shape, seed + 1, dtype=dtype) - 0.5)
    x_adv = threat.project(far, x)
    assert x_adv.dtype == dtype
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (threat.distance(x_adv, x) <= eps).all()
    assert threat.distance(x_adv.double(), x.double()).max().item() <= eps
    assert threat.contains(x_adv, x).all()
    assert torch.equal(threat.project(x_adv, x), x_adv)


def test_linf_distance_as_users_compute_it_never_exceeds_eps():
    x = images((50, 3, 32, 32), levels=255)
    for eps in (0.3, 8 / 255, 2 / 255, 0.031):
        x_adv = ThreatModel("linf", eps).project(x + torch.sign(x - 0.4), x)
        assert (x_adv - x).abs().max() <= eps
        assert (x_adv - x).abs().max().item() <= eps
        assert (x_adv - x).abs().max().item() > 0.999 * eps


def test_linf_projection_is_the_nearest_point():
    x = torch.tensor([[0.5, 0.05, 0.98, 0.5]], dtype=torch.float64)
    far = torch.tensor([[0.9, -1.0, 2.0, 0.45]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.0, 1.0, 0.45]], dtype=torch.float64)
    torch.testing.assert_close(ThreatModel("linf", 0.1).project(far, x), expected)


def test_l2_projection_shortens_the_perturbation():
    x = torch.full((2, 4), 0.5, dtype=torch.float64)
    far = x + torch.tensor([[0.3, 0.4, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0]], dtype=torch.float64)
    moved = ThreatModel("l2", 0.25).project(far, x) - x
    expected = [[0.15, 0.2, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0]]
    torch.testing.assert_close(moved, torch.tensor(expected).double(), rtol=3e-6, atol=0)


def test_points_outside_are_not_contained():
    threat, x = ThreatModel("linf", 0.1), torch.full((4, 3), 0.95)
    x_adv = x.clone()
    x_adv[1, 0] = 1.01
    x_adv[2, 2] = 0.84
    x_adv[3, 1] = float("nan")
    assert threat.contains(x_adv, x).tolist() == [True, False, False, False]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_starts_belong_to_the_example(norm, shape):
    threat, rng = ThreatModel(norm, 0.2), ExampleRandom(7, "attack")
    x, index = images(shape), torch.arange(len(images(shape))) + 100
    start = threat.random_start(x, rng, index, 0)
    assert threat.contains(start, x).all()
    alone = threat.random_start(x[-1:], rng, index[-1:], 0)
    assert torch.equal(alone, start[-1:])
    assert not torch.equal(threat.random_start(x, rng, index, 1), start)


def test_random_starts_fill_the_ball_evenly():
    x, rng = torch.full((4000, 2), 0.5), ExampleRandom(0, "attack")
    index = torch.arange(4000)
    linf = ThreatModel("linf", 0.1).random_start(x, rng, index, 0) - 0.5
    assert linf.mean().abs() < 0.003
    assert (linf.abs() > 0.05).float().mean().sub(0.5).abs() < 0.02
    l2 = (ThreatModel("l2", 0.1).random_start(x, rng, index, 0) - 0.5).norm(dim=1)
    assert (l2 < 0.05).float().mean().sub(0.25).abs() < 0.03
    l1 = (ThreatModel("l1", 0.1).random_start(x, rng, index, 0) - 0.5).abs()
    assert (l1.sum(dim=1) < 0.05).float().mean().sub(0.25).abs() < 0.03
    assert (l1[:, 0] < 0.02).float().mean().sub(1 - 0.8**2).abs() < 0.03


def test_l1_projection_is_the_nearest_point_of_ball_and_box():
    x = torch.tensor([[0.9, 0.5, 0.5, 0.1], [0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    far = x + torch.tensor([[0.5, 0.4, -0.2, 0.0], [0.05, 0.0, 0.0, -0.05]], dtype=torch.float64)
    moved = ThreatModel("l1", 0.3).project(far, x) - x
    expected = [[0.1, 0.2, 0.0, 0.0], [0.05, 0.0, 0.0, -0.05]]
    torch.testing.assert_close(moved, torch.tensor(expected).double(), rtol=1e-5, atol=1e-9)


def test_starts_that_are_not_clipped_may_leave_the_pixel_box():
    x, rng = torch.zeros(8, 3, 4, 4), ExampleRandom(0, "attack")
    start = ThreatModel("linf", 0.1).random_start(x, rng, torch.arange(8), 0, clip=False)
    assert start.min() < 0
    assert start.abs().max() <= 0.1


def test_additions_round_towards_the_start():
    x = images((10_000,))
    for delta in (0.03, 1e-4, -0.3, 0.7):
        delta = torch.tensor(delta).item()
        moved = add_toward(x, delta).double() - x.double()
        assert moved.abs().max() <= abs(delta)
        torch.testing.assert_close(moved, torch.full_like(moved, delta), rtol=0, atol=1.3e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_directions_survive_bad_gradients(norm):
    grad = torch.tensor([[3.0, -4.0], [0.0, 0.0], [float("nan"), -2.0], [3e-40, -4e-40]])
    length = 5.0 if norm == "l2" else 1.0
    step = steepest(grad, norm) * length
    ahead = {"linf": [1.0, -1.0], "l2": [3.0, -4.0]}[norm]
    assert step[0].tolist() == pytest.approx(ahead)
    assert step[1].tolist() == [0, 0]
    assert step[2].tolist() == [0, -length]
    assert torch.isfinite(step).all()
    assert steepest(torch.tensor([[3e-30, -4e-30]]), norm)[0, 1] * length == pytest.approx(ahead[1])


def test_steps_of_l1_fill_the_steepest_pixels_up_to_the_wall():
    x = torch.tensor([[0.9, 0.5, 0.2, 0.7]] * 3, dtype=torch.float64)
    grad = torch.tensor([[3.0, 2.0, -4.0, 1.0], [3.0, 0.0, float("nan"), 0.0], [0.0] * 4]).double()
    step = ascent_step(x, grad, 0.6, "l1")
    torch.testing.assert_close(step[0], torch.tensor([0.1, 0.3, -0.2, 0.0]).double())
    torch.testing.assert_close(step[1], torch.tensor([0.1, 0.0, 0.0, 0.0]).double())
    assert step[2].tolist() == [0] * 4
    assert ascent_step(x, grad, 0.1, "l1")[0].count_nonzero() == 1
