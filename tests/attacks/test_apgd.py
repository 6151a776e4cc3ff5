"""APGD: on linear models the largest margin within a ball is a formula, and it must be reached."""

from typing import Any

import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel, apgd_ce, apgd_dlr, apgd_t
from robustray.attacks.catalogue.apgd import Apgd
from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.steppers import ExampleNoise
from robustray.attacks.losses import margin
from robustray.attacks.steps.apgd_ascent import checkpoints
from robustray.random import ExampleRandom
from tests.helpers.linear_networks import Linear, interior
from tests.helpers.slot_engine import assert_independent, conv_images, convnet

NORMS = ("linf", "l2", "l1")
SHAPES = [(24,), (4, 6), (2, 3, 4), (1, 2, 3, 4)]
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


def boundary_distances(model, x, y, norm):
    """The distance to the boundary to each class, the pixel box aside (B, K)."""
    lead_BK = model(x).gather(1, y[:, None]) - model(x)
    apart_BKD = model.weight_KD[None] - model.weight_KD[y][:, None]
    distance_BK = lead_BK / torch.linalg.vector_norm(apart_BKD, DUAL[norm], dim=2)
    return distance_BK.scatter(1, y[:, None], torch.inf)


def linear_case(norm, classes, count, shape=(24,)):
    """A model with clearly classified images, and their distances."""
    model, x = Linear(shape, classes), interior(shape, 4 * count)
    y = model(x).argmax(1)
    distance_BK = boundary_distances(model, x, y, norm)
    clear = distance_BK.amin(1).argsort(descending=True)[:count]
    return model, x[clear], y[clear], distance_BK[clear]


def assert_reached(gain_B, best_B, norm):
    """Gains are the best ones. In l1 a run may end on a pixel that is not the steepest."""
    assert (gain_B <= best_B * (1 + 1e-6)).all()
    share_B = gain_B / best_B
    if norm == "l1":
        assert share_B.min() >= 0.5
        assert share_B.median() >= 1 / 1.05
    else:
        assert share_B.min() >= 1 / 1.05


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("attack", "shape"),
    [(apgd_ce, shape) for shape in SHAPES] + [(apgd_dlr, SHAPES[0]), (apgd_t, SHAPES[2])],
)
def test_the_largest_margin_of_two_classes_is_reached(attack, norm, shape):
    for count in (1, 7, 64):
        model, x, y, distance_BK = linear_case(norm, 2, count, shape)
        threat = ThreatModel(norm, 0.9 * distance_BK.amin().item())
        found = attack(model, x, y, threat, n_iter=40)
        assert not found.success_B.any()
        gain_B = model.margin(found.x_adv, y) - model.margin(x, y)
        best_B = model.best_margins(x, y, norm, threat.eps).amax(1) - model.margin(x, y)
        assert_reached(gain_B, best_B, norm)
        assert threat.contains(found.x_adv, x).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_every_image_within_eps_of_any_class_is_broken(norm, classes):
    for count in (7, 40):
        model, x, y, distance_BK = linear_case(norm, classes, count)
        least_B = distance_BK.amin(1)
        threat = ThreatModel(norm, least_B.median().item())
        restarts, slack = (3, 1.3) if norm == "l1" else (1, 1.02)
        found = apgd_t(model, x, y, threat, n_iter=30, n_restarts=restarts)
        assert found.success_B[least_B * slack < threat.eps].all()
        assert not found.success_B[least_B > threat.eps].any()
        assert torch.equal(found.success_B, model.margin(found.x_adv, y) > 0)
        assert threat.contains(found.x_adv, x).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_pixel_box_binds(norm):
    model = Linear((24,), 2)
    x = torch.rand(48, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = torch.cat([x.round(), x])
    y = model(x).argmax(1)
    threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.1, "l1": 0.3}[norm])
    found = apgd_ce(model, x, y, threat, n_iter=60)
    normal_BD = model.weight_KD[1 - y] - model.weight_KD[y]
    room_BD = torch.where(normal_BD > 0, 1 - x, x)
    size_BD = normal_BD.abs() * (room_BD > 0)
    if norm == "linf":
        best_B = (normal_BD.abs() * room_BD.clamp(max=threat.eps)).sum(1)
    elif norm == "l2":
        best_B = size_BD[:48].norm(dim=1) * threat.eps
    else:
        best_B = size_BD[:48].amax(1) * threat.eps
    gain_B = (model.margin(found.x_adv, y) - model.margin(x, y))[: len(best_B)]
    robust_B = ~found.success_B[: len(best_B)]
    assert robust_B.sum() > 10
    assert_reached(gain_B[robust_B], best_B[robust_B], norm)


@pytest.mark.parametrize("norm", NORMS)
def test_results_belong_to_the_example(norm):
    model, x, y = convnet(), *conv_images()
    threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.2, "l1": 0.8}[norm])
    budgets = [{"loss": "targeted-dlr", "n_iter": 8, "n_targets": 3, "n_restarts": 2}]
    if norm == "l1":
        budgets = [{"loss": "dlr", "n_iter": 8, "l1_stages": stages} for stages in (True, False)]
    for budget in budgets:
        result = assert_independent(Apgd(**budget), model, x, y, threat)
        assert 0 < result.success_B.sum() < len(x)


def test_passes_are_counted_and_runs_end_at_success():
    model, x, y, distance_BK = linear_case("linf", 4, 40)
    threat = ThreatModel("linf", distance_BK.amin(1).median().item())
    found = apgd_t(model, x, y, threat, n_iter=10, n_restarts=2)
    robust_B = ~found.success_B
    assert 0 < robust_B.sum() < 40
    # The clean pass, and for each of 3 x 2 runs: the start, ten steps, a verdict on the best point.
    assert (found.forwards_B[robust_B] == 1 + 6 * 12).all()
    assert (found.backwards_B[robust_B] == 6 * 11).all()
    assert (found.backwards_B[found.success_B] < 66).all()
    wide = ThreatModel("linf", 3 * distance_BK.amin(1).max().item())
    at_once = apgd_ce(model, x, y, wide)
    assert at_once.success_B.all()
    assert at_once.backwards_B.double().mean() < 8
    assert torch.equal(at_once.forwards_B, at_once.backwards_B + 2)


def test_misclassified_images_are_left_alone():
    model, x, y, _ = linear_case("linf", 3, 10)
    wrong = (y + 1) % 3
    found = apgd_ce(model, x, wrong, ThreatModel("linf", 0.1))
    assert found.success_B.all()
    assert torch.equal(found.x_adv, x)
    assert found.forwards_B.tolist() == [1] * 10
    assert found.backwards_B.tolist() == [0] * 10


@pytest.mark.parametrize("norm", NORMS)
def test_starts_are_on_the_sphere_and_belong_to_run_and_example(norm):
    x, index_B = interior((3, 4), 32).float(), torch.arange(32)
    threat = ThreatModel(norm, 0.05)
    attack = Apgd(n_restarts=2).stepper(threat, ExampleNoise(ExampleRandom(0, "a")))

    def start(index_B, run):
        zero_B = torch.zeros_like(index_B)
        examples = Examples(x[index_B], zero_B, index_B)
        return attack.begin(examples, zero_B + run, torch.rand(len(index_B), 4)).point

    first, second = start(index_B, 0), start(index_B, 1)
    assert threat.contains(first, x).all()
    assert (threat.distance(first, x) > 0.999 * threat.eps).all()
    assert (first != second).flatten(1).any(1).double().mean() > 0.9
    assert torch.equal(start(index_B[7:9], 1), second[7:9])


def test_checkpoints_are_the_published_ones():
    assert [iteration for iteration, _ in checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [(1, 1)]


class Vanishing(nn.Module):
    """Gives NaN gradients in half of the image, none elsewhere, and NaN logits if told to."""

    def __init__(self, nan_logits=False):
        super().__init__()
        self.nan_logits = nan_logits

    def forward(self, x):
        flat = x.flatten(1)
        bad = (flat[:, :4] - flat[:, :4]).abs().sqrt().sum(1)  # 0 with gradient inf * 0
        score = flat[:, 4:].sum(1) - 2 + bad
        if self.nan_logits:
            score = score.where(flat[:, 4] < 0.55, torch.nan)
        return torch.stack([torch.zeros_like(score), score, score - 9], dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_that_are_not_finite_are_counted_and_taken_as_zero(norm):
    x = torch.full((5, 8), 0.55, dtype=torch.float32)
    y = torch.ones(5, dtype=torch.int64)
    threat = ThreatModel(norm, {"linf": 0.2, "l2": 0.3, "l1": 0.6}[norm])
    found = apgd_ce(Vanishing(), x, y, threat, n_iter=20)
    assert found.success_B.all()
    assert torch.equal(found.flawed_B, found.backwards_B)
    tiny = apgd_ce(Vanishing(), x, y, ThreatModel(norm, 0.01), n_iter=20)
    assert not tiny.success_B.any()
    assert tiny.flawed_B.tolist() == [21] * 5
    assert torch.isfinite(tiny.x_adv).all()


def test_nan_logits_count_as_broken_and_do_not_spread():
    x = torch.full((6, 8), 0.53)
    x[3:] = 0.9
    found = apgd_ce(Vanishing(), x, torch.ones(6, dtype=torch.int64), ThreatModel("linf", 0.01))
    assert not found.success_B.any()
    x[3:, 4:] = 0.54
    y = torch.ones(6, dtype=torch.int64)
    found = apgd_ce(Vanishing(nan_logits=True), x, y, ThreatModel("linf", 0.02))
    assert Vanishing(nan_logits=True)(found.x_adv).isnan().any(1)[found.success_B].any()
    assert torch.isfinite(found.x_adv).all()


def test_the_model_is_left_as_it_was():
    x, y = conv_images()
    model: Any = convnet().train()
    model[1].eval()
    before = torch.get_rng_state()
    apgd_ce(model, x, y, ThreatModel("linf", 0.01), n_iter=3)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


class Noisy(nn.Module):
    """Adds to the logits what a generator draws, different in every pass."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.generator = scale, torch.Generator().manual_seed(0)
        self.linear = nn.Linear(12, 3)

    def forward(self, x):
        logits = self.linear(x.flatten(1))
        return logits + self.scale * torch.randn(logits.shape, generator=self.generator)


def test_random_models_are_judged_by_a_majority():
    torch.manual_seed(0)
    model = Noisy(0.02)
    x = torch.rand(40, 12)
    y = model.linear(x).argmax(1)
    sure_B = -margin(model.linear(x), y) > 0.3
    tiny = ThreatModel("linf", 1e-4)
    found = apgd_ce(model, x, y, tiny, n_iter=5, eot=5)
    assert not found.success_B[sure_B].any()
    counted = found.forwards_B[sure_B]
    assert counted.tolist() == [1 + 6 * 5 + 5] * len(counted)
    assert apgd_ce(model, x, y, ThreatModel("linf", 0.9), n_iter=20, eot=3).success_B.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_iter": 0}, "n_iter is at least 1, not 0"),
        ({"n_restarts": 0}, "n_restarts is at least 1"),
        ({"eot": 0}, "eot is at least 1"),
        ({"l1_stages": True}, "l1_stages is for l1, not linf"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    model, x = Linear((24,), 2), interior((24,), 2)
    with pytest.raises(ValueError, match=message):
        apgd_ce(model, x, torch.tensor([0, 1]), ThreatModel("linf", 0.1), **options)
    with pytest.raises(ValueError, match="loss is one of ce, dlr, targeted-dlr, not 'cw'"):
        Apgd(loss="cw")


def test_suites_know_the_attacks():
    for name in ("apgd-ce", "apgd-dlr", "apgd-t"):
        assert isinstance(AttackSpec(name).make(ThreatModel("linf", 0.1)), Apgd)
        assert AttackSpec(name).describe()["options"]["n_iter"] == 100
