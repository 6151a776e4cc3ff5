"""On linear models the best perturbation is a formula; attacks must reach it."""

import pytest
import torch

from robustray.attacks import ThreatModel, fgsm, pgd
from tests.helpers.linear_networks import Linear, interior

SHAPES = [(24,), (4, 6), (2, 3, 4), (1, 2, 3, 4)]
COUNTS = [1, 7, 64]
THREAT = ThreatModel("linf", 0.1)
EPS = {"linf": 0.1, "l2": 0.25}


def run(attack, model, x, y, norm):
    threat = ThreatModel(norm, EPS[norm])
    if attack == "fgsm":
        return threat, fgsm(model, x, y, threat)
    step = threat.eps / (10 if norm == "linf" else 0.5)
    return threat, pgd(model, x, y, threat, steps=20, step_size=step, loss=attack)


@pytest.mark.parametrize("attack", ["fgsm", "cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", COUNTS)
def test_two_classes(attack, norm, shape, count):
    model, x = Linear(shape, 2), interior(shape, count)
    y = torch.arange(count) % 2
    threat, found = run(attack, model, x, y, norm)
    best = model.best_margins(x, y, norm, threat.eps).amax(1)
    torch.testing.assert_close(model.margin(found.x_adv, y), best, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.success_B, model.margin(found.x_adv, y) > 0)
    assert threat.contains(found.x_adv, x).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", COUNTS)
def test_many_classes(norm, shape, count):
    model, x = Linear(shape, 5), interior(shape, count)
    y = model(x).argmax(1)
    eps = EPS[norm]
    best_BK = model.best_margins(x, y, norm, eps)
    # Ascent of the margin goes for the runner-up: the optimum where that class wins in the end.
    simple_B = best_BK.argmax(1) == model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    found = pgd(model, x, y, ThreatModel(norm, eps), loss="margin", step_size=eps, start="none")
    reached_B, best_B = model.margin(found.x_adv, y), best_BK.amax(1)
    assert (reached_B <= best_B + 1e-9).all()
    torch.testing.assert_close(reached_B[simple_B], best_B[simple_B], rtol=1e-4, atol=1e-4)
    assert simple_B.double().mean() > 0.4 or count < 64


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_find_the_optimum_over_all_classes(norm):
    shape, count = (24,), 64
    model, x = Linear(shape, 5), interior(shape, count)
    y = model(x).argmax(1)
    eps = EPS[norm] / 8
    breakable_B = model.best_margins(x, y, norm, eps).amax(1) > 1e-3
    threat = ThreatModel(norm, eps)
    once, often = (
        pgd(model, x, y, threat, loss="margin", step_size=eps, restarts=n) for n in (1, 12)
    )
    assert (often.success_B | ~once.success_B).all()
    assert (breakable_B | ~often.success_B).all()
    assert often.success_B.sum() >= 0.9 * breakable_B.sum()
    assert 0 < breakable_B.sum() < count


def test_the_pixel_box_binds_exactly():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(16, 24, dtype=torch.float64, generator=generator)
    model, y, threat = (
        Linear((24,), 2),
        torch.zeros(16, dtype=torch.int64),
        ThreatModel("linf", 0.4),
    )
    direction = torch.sign(model.weight_KD[1] - model.weight_KD[0])
    best = model.margin((x + 0.4 * direction).clamp(0, 1), y)
    for found in (fgsm(model, x, y, threat), pgd(model, x, y, threat, steps=25)):
        torch.testing.assert_close(model.margin(found.x_adv, y), best, rtol=1e-9, atol=1e-9)


def best_in_l1(model, x, y, eps):
    """Fill the steepest pixels up to the wall: the optimum for two classes."""
    gain_D = model.weight_KD[1] - model.weight_KD[0]
    best = []
    for x_D in x.flatten(1):
        left, moved_D = eps, x_D.clone()
        for pixel in gain_D.abs().argsort(descending=True).tolist():
            room = float(1 - x_D[pixel] if gain_D[pixel] > 0 else x_D[pixel])
            moved_D[pixel] += gain_D[pixel].sign() * min(room, left)
            left = max(0.0, left - room)
        best.append(moved_D)
    return model.margin(torch.stack(best), y)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [0.2, 4.0])
def test_l1_goes_on_where_a_pixel_is_at_the_wall(shape, eps):
    model, x = Linear(shape, 2), interior(shape, 16)
    y, threat = torch.zeros(16, dtype=torch.int64), ThreatModel("l1", eps)
    clean, best = model.margin(x, y), best_in_l1(model, x, y, eps)
    single = fgsm(model, x, y, threat)
    torch.testing.assert_close(model.margin(single.x_adv, y), best, rtol=1e-4, atol=1e-4)
    found = pgd(model, x, y, threat, steps=100, step_size=eps / 50)
    assert (model.margin(found.x_adv, y) - clean >= 0.98 * (best - clean)).all()
    assert threat.contains(found.x_adv, x).all()


def test_averaging_over_passes_finds_what_noise_hides():
    model, x = Linear((24,), 2), interior((24,), 64)
    y, threat = model(x).argmax(1), ThreatModel("linf", 0.02)
    torch.manual_seed(0)

    def noisy(x):
        return model(x * (1 + 3 * torch.randn_like(x)))

    gains = []
    for eot in (1, 40):
        found = fgsm(noisy, x, y, threat, eot=eot)
        gains.append((model.margin(found.x_adv, y) - model.margin(x, y)).mean())
        assert found.forwards_B.tolist() == [2 * eot] * 64
        found = pgd(noisy, x, y, threat, steps=3, restarts=1, eot=eot)
        assert found.backwards_B.tolist() == [3 * eot] * 64
        assert found.forwards_B.tolist() == [4 * eot] * 64
    assert gains[1] > 1.2 * gains[0]


def test_cw_stops_as_soon_as_the_label_is_lost():
    model, x = Linear((24,), 2), interior((24,), 32)
    y = model(x).argmax(1)
    threat = ThreatModel("linf", 0.1)
    found = pgd(model, x, y, threat, steps=40, loss="cw_margin", start="none", step_size=0.004)
    broken_B = found.success_B
    step_gain = 0.004 * (model.weight_KD[1] - model.weight_KD[0]).abs().sum()
    assert broken_B.any()
    assert (model.margin(found.x_adv, y)[broken_B] <= step_gain).all()
    already = pgd(model, x, 1 - y, threat, loss="cw_margin", start="none")
    assert torch.equal(already.x_adv, x)


def test_kl_moves_away_from_the_clean_prediction():
    model, x = Linear((24,), 4), interior((24,), 16)
    y = model(x).argmax(1)
    found = pgd(model, x, y, ThreatModel("linf", 0.1), loss="kl", steps=10)
    moved_B = (model(found.x_adv).softmax(1) - model(x).softmax(1)).abs().sum(1)
    assert (moved_B > 0.5).all()
    assert found.forwards_B.tolist() == [12] * 16
    assert found.backwards_B.tolist() == [10] * 16


def test_counts_are_of_the_passes_that_each_example_needed():
    model, x = Linear((24,), 2), interior((24,), 32)
    y = model(x).argmax(1)
    threat = ThreatModel("linf", 0.01)
    single = fgsm(model, x, y, threat)
    assert single.forwards_B.tolist() == [2] * 32
    assert single.backwards_B.tolist() == [1] * 32
    found = pgd(model, x, y, threat, steps=5, step_size=0.005, restarts=3)
    runs_B = torch.where(found.success_B, 1, 3)
    assert 0 < found.success_B.sum() < 32
    assert torch.equal(found.forwards_B, 6 * runs_B)
    assert torch.equal(found.backwards_B, 5 * runs_B)


def test_restarts_keep_what_an_earlier_run_found():
    model, x = Linear((24,), 2), interior((24,), 64)
    y = model(x).argmax(1)
    threat = ThreatModel("linf", 0.05)
    noise = {"steps": 1, "step_size": 1e-6}
    once, often = (pgd(model, x, y, threat, restarts=n, **noise) for n in (1, 6))
    assert once.success_B.any()
    assert once.success_B.sum() < often.success_B.sum() < 64
    assert torch.equal(often.success_B, model.margin(often.x_adv, y) > 0)
    assert torch.equal(often.x_adv[once.success_B], once.x_adv[once.success_B])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("start", "least"), [("none", 0.0), ("uniform", 0.0), ("study", -EPS["linf"])]
)
def test_only_the_study_start_leaves_the_pixel_box(norm, start, least):
    seen = []
    model = Linear((24,), 2)

    def watched(x):
        seen.append(x.detach())
        return model(x)

    x, y = torch.zeros(32, 24, dtype=torch.float64), torch.zeros(32, dtype=torch.int64)
    pgd(watched, x, y, ThreatModel(norm, EPS[norm]), steps=2, start=start)
    first, *later = (point.min().item() for point in seen)
    assert (first < 0) == (least < 0)
    assert norm == "l2" or first == pytest.approx(least, abs=0.002)
    assert min(later) == 0
    assert torch.equal(seen[0], x) == (start == "none")


def test_gradients_that_are_nan_move_nothing():
    x = interior((24,), 4)
    y = torch.zeros(4, dtype=torch.int64)
    found = pgd(lambda x: (x - x) / (x - x), x, y, ThreatModel("linf", 0.1), start="none", steps=3)
    assert torch.equal(found.x_adv, x)
    assert found.success_B.all()
    assert found.flawed_B.tolist() == [3] * 4
    assert fgsm(lambda x: (x - x) / (x - x), x, y, THREAT).flawed_B.tolist() == [1] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"restarts": 0}, "at least 1"),
        ({"eot": 0}, "at least 1"),
        ({"step_size": 0.0}, "positive"),
        ({"step_size": float("nan")}, "positive"),
        ({"start": "zero"}, "start is one of uniform, study, none"),
        ({"start": "none", "restarts": 2}, "all be the same"),
        ({"loss": "hinge"}, "loss is one of"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    model, x = Linear((24,), 2), interior((24,), 2)
    with pytest.raises(ValueError, match=message):
        pgd(model, x, torch.tensor([0, 1]), ThreatModel("linf", 0.1), **options)
