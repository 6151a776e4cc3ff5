"""Square attack: bounds on linear models, windows and patterns, the reference's verdicts."""

import math

import pytest
import torch

from robustray.attacks import AttackSpec, ThreatModel
from robustray.attacks.catalogue.square import Square, square
from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import Shapes
from robustray.attacks.engine.network import Network
from robustray.attacks.engine.oracle import Oracle
from robustray.attacks.engine.steppers import ExampleNoise
from robustray.attacks.losses import margin
from robustray.attacks.steps.square_moves import plan_moves, plan_squares
from robustray.attacks.steps.square_patterns import Windows, pattern, share_of_pixels, window_sides
from robustray.random import ExampleRandom
from tests.helpers.linear_networks import Linear, interior
from tests.helpers.public_networks import CHECKPOINTS, load_images, load_network
from tests.helpers.reference_flags import our_flags, reference_flags
from tests.helpers.slot_engine import assert_independent, conv_images, convnet

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.05, "l2": 0.4, "l1": 4.0}


class Sturdy(Linear):
    """A linear model of two classes whose first class never loses."""

    def forward(self, x):
        return super().forward(x.double()) + torch.tensor([1e4, 0.0], dtype=torch.float64)


def search(model, x, y, attack):
    """Yield the states of one run."""
    oracle = Oracle(Network(model, x.device), Shapes(len(x)))
    zero_B = torch.zeros_like(y)
    state = attack.begin(Examples(x, y, torch.arange(len(x))), zero_B, model(x).detach())
    while not state.spent_B.all():
        state = attack.step(oracle, state)
        yield state


def noise(seed=0):
    return ExampleNoise(ExampleRandom(seed, "square"))


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.999), ("l2", 0.65), ("l1", 0.55)])
def test_linear_models_are_searched_nearly_to_the_optimum(norm, share):
    model, x = Sturdy((1, 6, 6), 2), interior((1, 6, 6), 24).float()
    y = torch.zeros(24, dtype=torch.int64)
    found = square(model, x, y, ThreatModel(norm, 0.1), n_queries=1000)
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    best = 0.1 * torch.linalg.vector_norm(model.weight_KD[1] - model.weight_KD[0], dual)
    gain_B = model.margin(found.x_adv, y) - model.margin(x, y)
    assert (gain_B >= share * best).all()
    assert (gain_B <= best * (1 + 1e-6)).all()
    assert not found.success_B.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_what_is_easily_broken_is_broken_at_once(norm, classes):
    model = Linear((3, 6, 6), classes).float()
    model.weight_KD, model.bias_K = model.weight_KD.float(), model.bias_K.float()
    x = interior((3, 6, 6), 20).float()
    y = model(x).argmax(1)
    threat = ThreatModel(norm, {"linf": 0.3, "l2": 3.0, "l1": 40.0}[norm])
    found = square(model, x, y, threat, n_queries=100)
    assert found.success_B.float().mean() > 0.9
    assert (model(found.x_adv).argmax(1) != y)[found.success_B].all()
    assert threat.contains(found.x_adv, x).all()
    assert (found.forwards_B[found.success_B] < 103).any()
    assert (found.forwards_B[~found.success_B] == 1 + 101 + 1).all()
    assert (found.backwards_B == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_inside_and_margins_only_fall(norm):
    model, (x, y) = convnet(), conv_images()
    x = (x * 4).round() / 4  # many pixels at the walls
    threat = ThreatModel(norm, EPS[norm])
    last_B = torch.full((len(x),), torch.inf)
    for state in search(model, x, y, Square(n_queries=40).stepper(threat, noise())):
        assert (state.margin_B <= last_B).logical_or(state.margin_B <= 0).all()
        torch.testing.assert_close(-margin(model(state.x_adv), y), state.margin_B)
        assert state.x_adv.min() >= 0
        assert state.x_adv.max() <= 1
        assert (threat.distance(state.x_adv, x) <= threat.eps * (1 + 1e-6)).all()
        last_B = state.margin_B
        done_B = state.claimed_B | state.spent_B
        assert threat.contains(state.x_adv, x)[done_B].all()
    assert (last_B < 0).any()


@pytest.mark.parametrize("norm", NORMS)
def test_results_belong_to_the_example(norm):
    model, (x, y) = convnet(), conv_images()
    threat = ThreatModel(norm, EPS[norm] / 3)
    result = assert_independent(Square(n_queries=90, n_restarts=2), model, x, y, threat)
    assert 0 < result.success_B.sum() < len(x)


def test_examples_have_their_own_windows_and_seeds_matter():
    model, (x, y) = convnet(), conv_images()
    x, y = x[:1].expand(6, -1, -1, -1).clone(), y[:1].expand(6).clone()
    ends = [
        list(
            search(
                model, x, y, Square(n_queries=20).stepper(ThreatModel("linf", 1e-3), noise(seed))
            )
        )[-1]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(ends[0].x_adv, ends[1].x_adv)
    assert not torch.equal(ends[0].x_adv, ends[2].x_adv)
    assert len(ends[0].x_adv.flatten(1).unique(dim=0)) == 6


def test_no_gradient_is_asked_for():
    model, (x, y) = convnet(), conv_images()

    def blind(x):
        assert not torch.is_grad_enabled()
        return (model(x) * 50).round() / 50

    network = Network(blind, x.device)
    oracle = Oracle(network, Shapes(len(x)))
    attack, zero_B = Square().stepper(ThreatModel("linf", 0.1), noise()), torch.zeros_like(y)
    with judging(model), torch.no_grad():
        state = attack.begin(Examples(x, y, torch.arange(len(x))), zero_B, blind(x))
        for _ in range(60):
            state = attack.step(oracle, state)
    assert (state.margin_B <= 0).float().mean() > 0.2
    assert (state.backwards_B == 0).all()
    assert (state.forwards_B == 60).all()


def test_nan_counts_as_broken():
    def fragile(x):
        logits = torch.stack([x.new_full((len(x),), 5.0), x.mean((1, 2, 3))], dim=1)
        return torch.where(x.amax((1, 2, 3))[:, None] > 0.7, torch.nan, logits)

    x = torch.full((4, 3, 8, 8), 0.5)
    x[0] = 0.1
    found = square(
        fragile, x, torch.zeros(4, dtype=torch.int64), ThreatModel("linf", 0.25), n_queries=10
    )
    assert found.success_B.tolist() == [False, True, True, True]


def test_windows_shrink_as_published():
    shares = {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 200: 4, 201: 8, 1000: 16, 1001: 32, 4001: 128}
    for proposal, divisor in shares.items():
        assert share_of_pixels(proposal, 0.8) == 0.8 / divisor
    assert share_of_pixels(8001, 0.8) == 0.8 / 512
    sides = window_sides(Windows(5000, 0.8, False, 32, 32, "linf"))
    assert len(sides) == 5001
    assert sides[0] == 0
    expected = [round(math.sqrt(0.8 / 2**k * 1024)) for k in range(8)]
    assert sorted(set(sides[1:]), reverse=True) == expected == [29, 20, 14, 10, 7, 5, 4, 3]
    odd = window_sides(Windows(5000, 0.8, False, 28, 28, "l2"))
    assert all(side % 2 == 1 and 3 <= side <= 28 for side in odd[1:])
    stretched = window_sides(Windows(100, 0.8, True, 32, 32, "linf"))
    assert stretched[1] == 29
    assert stretched[-1] == round(math.sqrt(0.8 / 512 * 1024))
    assert set(window_sides(Windows(50, 0.8, False, 2, 7, "linf"))[1:]) <= {1, 2}


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("side", [3, 4, 7, 13])
def test_patterns_are_two_pyramids(norm, side):
    drawn, order = pattern(side, norm), 2 if norm == "l2" else 1
    assert torch.linalg.vector_norm(drawn, order).item() == pytest.approx(1, abs=1e-5)
    upper, lower = drawn[: side // 2], drawn[side // 2 :]
    assert (upper > 0).all()
    assert (lower < 0).all()
    peak = (upper == upper.max()).nonzero()[0].tolist()
    assert peak == [(side // 2) // 2, side // 2]
    sizes = [torch.linalg.vector_norm(part, order).item() for part in (upper, lower)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)
    if side == 3:
        ring = 1 / 2 ** (2 if norm == "l2" else 4)
        expected = torch.tensor([ring, 1 + ring, ring]) / (1 + ring)
        torch.testing.assert_close(upper[0] / upper.max(), expected)


@pytest.mark.parametrize("last_too", [True, False])
def test_windows_lie_in_the_image_and_reach_its_last_row_unless_upstream(last_too):
    side_BT = torch.tensor([[1, 2, 5, 8]]).expand(4000, 4)
    u = torch.rand(4000, 4, 8, generator=torch.Generator().manual_seed(0))
    plan = plan_squares(u[..., :5], side_BT, (8, 9), last_too, 0.1)
    first = plan[..., :2] - (side_BT[..., None] - 1) / 2
    last = first + side_BT[..., None] - 1
    assert (first >= 0).all()
    assert last[..., 0].amax(0).tolist() == ([7] * 4 if last_too else [6, 6, 6, 7])
    assert last[..., 1].amax(0).tolist() == ([8] * 4 if last_too else [7, 7, 7, 7])
    assert set(plan[..., 3:].unique().tolist()) == set(torch.tensor([-0.2, 0.2]).tolist())
    moves = plan_moves(u, side_BT, (8, 9), last_too)
    assert torch.equal(moves[..., :2], plan[..., :2])
    assert torch.equal(moves[..., 5:7], first)
    assert torch.equal(moves[..., 7], side_BT.float())


@pytest.mark.parametrize(
    ("norm", "eps", "queries"), [("linf", 8 / 255, 120), ("l2", 0.5, 80), ("l1", 10.0, 8)]
)
def test_verdicts_are_those_of_the_reference(shared_data, norm, eps, queries):
    compare_with_reference(shared_data, "cnn_a_adv4", norm, eps, 40, queries)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "norm", "eps"),
    [
        ("cnn_a_adv4", "linf", 8 / 255),
        pytest.param("cnn_a_adv4", "l2", 0.5, marks=pytest.mark.long),
    ],
)
def test_verdicts_are_those_of_the_reference_at_full_budget(shared_data, network, norm, eps):
    compare_with_reference(shared_data, network, norm, eps, 12, 5000)


def compare_with_reference(shared_data, network, norm, eps, count, queries):
    model, checkpoint = load_network(shared_data, network), CHECKPOINTS[network]
    images, y = load_images(shared_data, checkpoint.data)
    x, y = images[:count].float() / 255, y[:count]
    threat = ThreatModel(norm, eps)
    expected, expected_adv = reference_flags(
        model, x, y, threat, "square", batch=24, n_queries=queries
    )
    spec = AttackSpec("square", options={"n_queries": queries})
    robust, x_adv = our_flags(model, x, y, threat, spec, batch=24)
    assert torch.equal(robust, expected)
    assert 0 < robust.sum() < (model(x).argmax(1) == y).sum()
    broken = (model(x).argmax(1) == y) & ~robust
    if norm != "l2":
        assert torch.equal(x_adv[broken], expected_adv[broken])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_queries": 0}, "at least 1"),
        ({"n_restarts": 0}, "at least 1"),
        ({"p_init": 0.0}, r"in \(0, 1\]"),
        ({"p_init": 1.1}, r"in \(0, 1\]"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Square(**options)


@pytest.mark.parametrize(("norm", "shape"), [("linf", (4, 12)), ("l2", (4, 1, 4, 9))])
def test_images_without_room_for_windows_are_refused(norm, shape):
    x, y = torch.rand(shape), torch.zeros(4, dtype=torch.int64)
    runs = Examples(x, y, torch.arange(4)), y, torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"takes images \(B, C, H, W\) of at least"):
        Square().stepper(ThreatModel(norm, 0.1), noise()).begin(*runs)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("count", "rows"), [(1, 8), (3, 16), (2, 96)])
def test_leaps_are_so_many_steps(norm, count, rows):
    model, (x, y) = convnet(), conv_images()
    x, y = x[:count], y[:count]
    attack = Square(n_queries=150).stepper(ThreatModel(norm, EPS[norm]), noise())
    oracle = Oracle(Network(model, x.device), Shapes(rows))
    with judging(model):
        index_B, zero_B = torch.arange(count), torch.zeros_like(y)
        begun = attack.begin(Examples(x, y, index_B), zero_B, model(x).detach())
        padded = torch.arange(rows).clamp(max=count - 1)
        step_by_step, state = [begun.take(padded)], begun
        for _ in range(150 + 1):
            step_by_step.append(attack.step(oracle, step_by_step[-1]))
        leaps = 0
        while not state.spent_B.any() and leaps < 40:
            state, leaps = attack.leap(oracle, state, rows), leaps + 1
            for row, query in enumerate(state.query_B.tolist()):
                for name in ("x_adv", "margin_B", "claimed_B", "spent_B", "forwards_B"):
                    expected = getattr(step_by_step[query], name)[row]
                    assert torch.equal(getattr(state, name)[row], expected), (name, query)
    assert state.query_B.sum() > 1.1 * leaps * count
