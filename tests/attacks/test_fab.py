"""FAB: distances on linear models are a formula; on real networks verdicts are the reference's."""

import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel
from robustray.attacks.catalogue.fab import Fab, fab, fab_t, minimum_norms
from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import Network
from robustray.attacks.engine.steppers import BatchNoise, ExampleNoise
from robustray.attacks.engine.upstream import run_attack_upstream
from robustray.attacks.steps.hyperplane import step_to_hyperplane
from robustray.attacks.steps.projections import norm_per_example
from robustray.random import ExampleRandom
from tests.helpers.linear_networks import Linear, interior
from tests.helpers.public_networks import CHECKPOINTS, load_images, load_network
from tests.helpers.reference_flags import our_flags, reference_flags
from tests.helpers.slot_engine import assert_independent, conv_images, convnet

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


def boundary_distances(model, x, y, norm):
    """The distance to the nearest boundary, the pixel box aside (B,)."""
    logits_BK, rows = model(x), torch.arange(len(x))
    lead_BK = logits_BK[rows, y, None] - logits_BK
    apart_BKD = model.weight_KD[None] - model.weight_KD[y][:, None]
    distance_BK = lead_BK / torch.linalg.vector_norm(apart_BKD, DUAL[norm], dim=2)
    distance_BK[rows, y] = torch.inf
    return distance_BK.amin(1)


class Linear32(Linear):
    """Takes float32 images, as evaluations give them, and computes in float64."""

    def forward(self, x):
        return super().forward(x.double())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("targets", [0, 9])
def test_distances_on_linear_models_are_the_formula(norm, classes, targets):
    for count, shape in ((1, (24,)), (33, (1, 2, 3, 4))):
        model, x = Linear(shape, classes), interior(shape, count)
        y = model(x).argmax(1)
        found = minimum_norms(model, x, y, norm, n_iter=15, n_targets=targets)
        ratio_B = found.distance_B / boundary_distances(model, x, y, norm)
        assert ratio_B.min() >= 1 - 1e-9
        assert ratio_B.max() <= 1.01
        assert (model(found.nearest).argmax(1) != y).all()
        reached_B = norm_per_example(found.nearest - x, norm)
        torch.testing.assert_close(reached_B, found.distance_B)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [fab, fab_t])
def test_examples_are_broken_exactly_where_the_boundary_is_within_eps(norm, attack):
    model, x = Linear32((2, 4, 4), 5), interior((2, 4, 4), 64).float()
    y = model(x).argmax(1)
    distance_B = boundary_distances(model, x, y, norm)
    threat = ThreatModel(norm, distance_B.median().item())
    found = attack(model, x, y, threat, n_iter=30)
    assert found.success_B[distance_B < threat.eps * 0.99].all()
    assert not found.success_B[distance_B > threat.eps].any()
    assert threat.contains(found.x_adv, x).all()
    assert torch.equal(model(found.x_adv).argmax(1) != y, found.success_B)
    assert torch.equal(found.x_adv[~found.success_B], x[~found.success_B])


@pytest.mark.parametrize("norm", NORMS)
def test_the_pixel_box_is_taken_into_account(norm):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(64, 30, dtype=torch.float64, generator=generator).round(decimals=1)
    model = Linear((30,), 2)
    y = model(x).argmax(1)
    logits = model(x)
    excess_B = logits.gather(1, 1 - y[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
    normal_BD = model.weight_KD[1 - y] - model.weight_KD[y]
    least_B = norm_per_example(step_to_hyperplane(x, normal_BD, excess_B, norm), norm)
    found = minimum_norms(model, x, y, norm, n_iter=60)
    assert (boundary_distances(model, x, y, norm) < 0.99 * least_B).double().mean() > 0.2
    assert (found.distance_B >= least_B * (1 - 1e-9)).all()
    assert (found.distance_B <= least_B * 1.05).all()
    assert found.nearest.min() >= 0
    assert found.nearest.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_results_belong_to_the_example(norm):
    model, x, y = convnet(), *conv_images()
    threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.2, "l1": 0.8}[norm])
    for attack in (Fab(n_iter=8, n_targets=3), Fab(n_iter=4, n_restarts=2, n_targets=0)):
        result = assert_independent(attack, model, x, y, threat)
        assert 0 < result.success_B.sum() < len(x)


def test_one_restart_is_deterministic_and_more_are_random():
    model, x, y = convnet(), *conv_images()
    threat = ThreatModel("linf", 0.01)
    first, other = (
        fab_t(model, x, y, threat, rng=ExampleRandom(seed, "a"), n_iter=5, n_targets=2)
        for seed in (0, 1)
    )
    assert torch.equal(first.x_adv, other.x_adv)
    noise = ExampleNoise(ExampleRandom(0, "a"))
    attack, zero_B = Fab(n_restarts=3).stepper(threat, noise), torch.zeros_like(y)
    logits = model(x).detach()
    points = [
        attack.begin(Examples(x, y, torch.arange(len(x))), zero_B + run, logits).point
        for run in range(3)
    ]
    assert torch.equal(points[0], x)
    assert not torch.equal(points[1], points[2])
    apart_B = norm_per_example(points[1] - x, "linf")
    assert (apart_B <= threat.eps / 2 * (1 + 1e-4)).all()
    assert (apart_B > threat.eps / 4).all()


def test_passes_are_counted_and_runs_end_at_success():
    model, x = Linear32((24,), 4), interior((24,), 32).float()
    y = model(x).argmax(1)
    distance_B = boundary_distances(model, x, y, "l2")
    threat = ThreatModel("l2", distance_B.median().item())
    found = fab_t(model, x, y, threat, n_iter=10, n_targets=9)
    robust_B = ~found.success_B
    assert 0 < robust_B.sum() < 32
    # The clean pass, three targets of ten steps, and a verdict on each run's last point.
    assert (found.forwards_B[robust_B] == 1 + 3 * (2 * 10 + 1)).all()
    assert (found.backwards_B[robust_B] == 3 * 10).all()
    assert (found.backwards_B[found.success_B] < 30).all()
    untargeted = fab(model, x, y, threat, n_iter=10)
    robust_B = ~untargeted.success_B
    assert (untargeted.forwards_B[robust_B] == 1 + 10 * 4 + 1).all()
    assert (untargeted.backwards_B[robust_B] == 10 * 3).all()


def test_flat_models_keep_their_images():
    x = interior((3, 4, 4), 4).float()
    y = torch.zeros(4, dtype=torch.int64)
    weight = torch.tensor([[1.0, 0.0, -1.0]])
    found = fab_t(lambda x: weight + 0 * x.sum((1, 2, 3))[:, None], x, y, ThreatModel("l2", 1.0))
    assert not found.success_B.any()
    assert torch.equal(found.x_adv, x)


def test_broken_arithmetic_counts_as_broken_and_does_not_spread():
    model = Linear32((12,), 3)
    x = interior((12,), 16).float()
    y = model(x).argmax(1)
    bad_B = x[:, 0] > 0.5

    def fragile(x):
        return torch.where(x[:, :1] > 0.5, torch.nan, model(x))

    x[bad_B, 0] = 0.49
    threat = ThreatModel("linf", 0.02)
    found = fab_t(fragile, x, y, threat, n_iter=10)
    expected = fab_t(model, x, y, threat, n_iter=10)
    assert (found.success_B | ~expected.success_B).all()
    assert torch.equal(found.success_B[~bad_B], expected.success_B[~bad_B])
    assert torch.isfinite(found.x_adv).all()


class Rooted(nn.Module):
    def forward(self, x):
        first = x.flatten(1)[:, :1]
        lead = 1 + first + (first - first).abs().sqrt()  # the root's slope is infinite
        return torch.cat([lead, torch.zeros_like(lead)], dim=1)


def test_gradients_that_are_not_finite_are_counted():
    x = interior((3, 2, 2), 8).float()
    y = torch.zeros(8, dtype=torch.int64)
    found = fab_t(Rooted(), x, y, ThreatModel("linf", 0.1), n_iter=5)
    assert (found.flawed_B == 5).all()
    assert not found.success_B.any()


class Overflowing(nn.Module):
    """Only the first logit's gradient is infinite: others pass a 0 back, and it stays one."""

    def forward(self, x):
        first = x.flatten(1)[:, :1]
        lead = 1 + first + (first - first.detach()) * 1e30 * 1e30
        return torch.cat([lead, torch.zeros_like(lead)], dim=1)


def test_a_broken_gradient_of_the_label_counts_in_the_compatible_mode():
    x, y = interior((3, 2, 2), 8).float(), torch.zeros(8, dtype=torch.int64)
    spec = AttackSpec("fab", options={"n_iter": 5, "n_restarts": 1})
    examples, model = Examples(x, y, torch.arange(8)), Overflowing()
    with judging(model):
        network = Network(model, x.device)
        found = run_attack_upstream(network, examples, ThreatModel("linf", 0.1), spec, 8, seed=0)
    assert (found.flawed_B == 5).all()


def test_no_gradient_reaches_the_parameters():
    model, x, y = convnet(), *conv_images()
    fab_t(model, x, y, ThreatModel("l2", 0.1), n_iter=2, n_targets=2)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_distances_do_not_depend_on_the_batch():
    model, x, y = convnet(), *conv_images()
    y = y.clone()
    y[3] = (y[3] + 1) % 5
    whole = minimum_norms(model, x, y, "l2", n_iter=6, n_targets=2)
    part = minimum_norms(model, x[2:9], y[2:9], "l2", n_iter=6, n_targets=2)
    assert torch.equal(part.nearest, whole.nearest[2:9])
    assert torch.equal(part.distance_B, whole.distance_B[2:9])
    assert whole.distance_B[3] == 0
    assert torch.equal(whole.nearest[3], x[3])


def compare_with_reference(shared_data, network, name, norm, eps, count, steps, **changes):
    model, checkpoint = load_network(shared_data, network), CHECKPOINTS[network]
    images, y = load_images(shared_data, checkpoint.data)
    x, y = images[:count].float() / 255, y[:count]
    threat = ThreatModel(norm, eps)
    expected, _ = reference_flags(model, x, y, threat, name, batch=20, n_iter=steps, **changes)
    names = {"n_target_classes": "n_targets"}
    budget = {names.get(key, key): value for key, value in changes.items()}
    spec = AttackSpec(name, options={"n_iter": steps, **budget})
    robust, _ = our_flags(model, x, y, threat, spec, batch=20)
    assert torch.equal(robust, expected)
    assert 0 < robust.sum() < (model(x).argmax(1) == y).sum()


@pytest.mark.parametrize(
    ("name", "norm", "eps", "changes"),
    [
        ("fab-t", "linf", 8 / 255, {"n_target_classes": 2}),
        ("fab-t", "l2", 0.5, {"n_target_classes": 2}),
        ("fab-t", "l1", 8.0, {"n_target_classes": 1}),
        ("fab", "linf", 6 / 255, {"n_restarts": 2}),
        ("fab", "l2", 0.4, {"n_restarts": 2}),
    ],
)
def test_verdicts_are_those_of_the_reference(shared_data, name, norm, eps, changes):
    steps = 20 if name == "fab-t" else 5
    compare_with_reference(shared_data, "cnn_a_adv4", name, norm, eps, 30, steps, **changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "name", "norm", "eps"),
    [
        ("cnn_a_adv4", "fab-t", "linf", 8 / 255),
        ("cnn_a_adv4", "fab", "linf", 8 / 255),
        pytest.param("trades_mnist", "fab-t", "l2", 1.5, marks=pytest.mark.long),
    ],
)
def test_verdicts_are_those_of_the_reference_at_full_budget(shared_data, network, name, norm, eps):
    # Up to 900 steps amplify any rounding error.
    compare_with_reference(shared_data, network, name, norm, eps, 10, 100, n_restarts=1)


def test_upstream_draws_are_its_own():
    x = interior((3, 4, 4), 6).float()
    examples = Examples(x, torch.zeros(6).long(), torch.arange(6))
    run_B, logits_BK = torch.ones(6).long(), x[:, 0, 0]
    for norm in NORMS:
        noise = BatchNoise(torch.Generator().manual_seed(5))
        attack = Fab(n_restarts=2).stepper(ThreatModel(norm, 0.1), noise, upstream=True)
        torch.manual_seed(5)
        drawn = torch.rand(x.shape) * 2 - 1 if norm == "linf" else torch.randn(x.shape)
        size_B = norm_per_example(drawn, norm).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(
            attack.begin(examples, run_B, logits_BK).point, x + 0.05 * drawn / size_B
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_iter": 0}, "at least 1"),
        ({"n_restarts": 0}, "at least 1"),
        ({"n_targets": -1}, "at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Fab(**options)
