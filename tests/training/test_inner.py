"""The inner maximisation on models whose best answer is a formula."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustray.manifest.recipe import InnerAttack, ThreatConfig
from robustray.training import Trainer, fit
from robustray.training.inner import Uphill, first_stretch, maximise, start_point, uphill_of
from robustray.training.objectives import Forward
from tests.helpers.small_training import Linear, tiny, toy_data, toy_recipe

EPS = 0.1
LINF = ThreatConfig(eps=EPS)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def climb(
    forward: Forward,
    x: Tensor,
    uphill: Uphill,
    attack: InnerAttack,
    threat: ThreatConfig,
    generator: torch.Generator,
    stretch: float = 1.0,
) -> Tensor:
    """Draw a first point and ascend from it."""
    start = start_point(x, attack, threat, generator)
    return maximise(forward, x, uphill, attack, threat, start, stretch)


def kl_from(model: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    """KL(p(x) || p(x_adv)) of each image."""
    with torch.no_grad():
        log_p, log_q = F.log_softmax(model(x), 1), F.log_softmax(model(x_adv), 1)
        return (log_p.exp() * (log_p - log_q)).sum(1)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    batch=st.integers(1, 5),
    steps=st.integers(1, 5),
    step_size=st.floats(0.001, 0.3),
    start=st.sampled_from(["normal", "uniform"]),
    ascent=st.sampled_from(["kl", "ce"]),
)
def test_stays_inside_the_ball_and_the_box(
    seed: int, batch: int, steps: int, step_size: float, start: str, ascent: str
) -> None:
    torch.manual_seed(seed)
    model = Linear().requires_grad_(False)
    x = torch.rand(batch, 3, 2, 2).round(decimals=1)
    attack = InnerAttack(steps=steps, step_size=step_size, start=start, start_scale=0.5)
    uphill = uphill_of(model, x, torch.zeros(batch, dtype=torch.int64), ascent)
    x_adv = climb(model, x, uphill, attack, LINF, noise(seed))
    assert x_adv.shape == x.shape
    assert not x_adv.requires_grad
    assert ((x_adv - x).abs() <= EPS + 1e-6).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_two_classes_reach_the_corner_that_is_optimal() -> None:
    """With two classes both losses grow along one direction: the best corner is known."""
    torch.manual_seed(1)
    model = Linear(classes=2).requires_grad_(False)
    x = 0.3 + 0.4 * torch.rand(6, 3, 2, 2)
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    direction = (model.fc.weight[1] - model.fc.weight[0]).sign().view(3, 2, 2)
    away = torch.where(y[:, None, None, None] == 0, direction, -direction)
    attack = InnerAttack(steps=5, step_size=0.05)
    x_adv = climb(model, x, uphill_of(model, x, y, "ce"), attack, LINF, noise())
    assert torch.allclose(x_adv, x + EPS * away, atol=1e-6)

    x_adv = climb(model, x, uphill_of(model, x, y, "kl"), attack, LINF, noise())
    corners = torch.stack([kl_from(model, x, x + s * EPS * direction) for s in (1, -1)])
    reached = kl_from(model, x, x_adv)
    assert torch.isclose(reached[:, None], corners.T, rtol=1e-4).any(1).all()
    assert (reached >= 0.5 * corners.amax(0)).all()


@pytest.mark.parametrize("ascent", ["kl", "ce"])
def test_grows_with_every_step_on_a_linear_model(ascent: str) -> None:
    torch.manual_seed(2)
    model = Linear(classes=4).requires_grad_(False)
    x, y = 0.4 + 0.2 * torch.rand(16, 3, 2, 2), torch.arange(16) % 4

    def reached(steps: int) -> Tensor:
        attack = InnerAttack(steps=steps, step_size=0.01)
        x_adv = climb(
            model, x, uphill_of(model, x, y, ascent), attack, ThreatConfig(eps=0.3), noise()
        )
        if ascent == "kl":
            return kl_from(model, x, x_adv).mean()
        return F.cross_entropy(model(x_adv), y)

    values = [reached(steps).item() for steps in (1, 2, 4, 8, 16)]
    assert values == sorted(values)
    assert values[-1] > 1.1 * values[0]


def test_uphill_is_the_derivative_of_the_losses() -> None:
    torch.manual_seed(3)
    model, x, y = Linear().double(), torch.rand(4, 3, 2, 2).double(), torch.tensor([0, 2, 1, 1])
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        p = model(x).softmax(1)
    (by_ce,) = torch.autograd.grad(F.cross_entropy(z, y, reduction="sum"), z)
    (by_kl,) = torch.autograd.grad(F.kl_div(z.log_softmax(1), p, reduction="sum"), z)
    assert torch.allclose(uphill_of(model, x, y, "ce")(z.detach()), by_ce, atol=1e-14)
    assert torch.allclose(uphill_of(model, x, y, "kl")(z.detach()), by_kl, atol=1e-14)


def test_equals_a_plain_loop_on_a_network() -> None:
    model = tiny().eval().requires_grad_(False)
    x, eps, step = torch.rand(8, 1, 6, 6, generator=noise(5)), 0.1, 0.03
    attack = InnerAttack(steps=4, step_size=step, start_scale=0.01)
    x_adv = climb(model, x, uphill_of(model, x, x, "kl"), attack, ThreatConfig(eps=eps), noise())

    p = model(x).softmax(1)
    expected = x + 0.01 * torch.empty(x.shape).normal_(generator=noise())
    for _ in range(4):
        expected.requires_grad_()
        loss = F.kl_div(model(expected).log_softmax(1), p, reduction="sum")
        (grad,) = torch.autograd.grad(loss, expected)
        expected = (expected.detach() + step * grad.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    assert (x_adv - expected).abs().max() < 1e-5


def test_starts() -> None:
    x = torch.rand(64, 3, 8, 8, generator=noise(1))
    normal = start_point(x, InnerAttack(start_scale=0.02), LINF, noise())
    assert (normal - x).std().item() == pytest.approx(0.02, rel=0.03)
    assert normal.min() < 0, "unclipped before the first gradient"
    uniform = start_point(x, InnerAttack(start="uniform"), LINF, noise())
    assert ((uniform >= 0) & (uniform <= 1)).all()
    assert 0.09 < (uniform - x).abs().max() <= EPS + 1e-6
    assert torch.equal(normal, start_point(x, InnerAttack(start_scale=0.02), LINF, noise()))
    assert not torch.equal(normal, start_point(x, InnerAttack(start_scale=0.02), LINF, noise(1)))


def test_layout_does_not_change_the_noise() -> None:
    x = torch.rand(4, 3, 8, 8)
    rows = start_point(x, InnerAttack(), LINF, noise())
    last = start_point(
        x.contiguous(memory_format=torch.channels_last), InnerAttack(), LINF, noise()
    )
    assert torch.equal(rows, last)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_first_gradient_is_taken_further_out_in_bfloat16_only() -> None:
    def stretch(attack: InnerAttack, ascent: str, low: bool, norm: str = "linf") -> float:
        return first_stretch(attack, ThreatConfig(norm=norm, eps=0.03), ascent, 400, low=low)

    attack = InnerAttack(start_scale=0.001)
    assert stretch(attack, "kl", low=False) == 1
    assert stretch(attack, "ce", low=True) == 1
    assert stretch(InnerAttack(start="uniform"), "kl", low=True) == 1
    assert stretch(InnerAttack(start_scale=0.5), "kl", low=True) == 1
    assert stretch(attack, "kl", low=True) == pytest.approx(15)
    assert stretch(InnerAttack(start_scale=1e-4), "kl", True, "l2") == pytest.approx(7.5)

    seen: list[Tensor] = []
    model = Linear().requires_grad_(False)

    def forward(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return model(x)

    x = torch.rand(4, 3, 2, 2)
    uphill = uphill_of(model, x, torch.zeros(4, dtype=torch.int64), "ce")
    attack = InnerAttack(steps=2, step_size=0.01)
    plain = climb(forward, x, uphill, attack, LINF, noise())
    stretched = climb(forward, x, uphill, attack, LINF, noise(), 20.0)
    assert torch.allclose(seen[2] - x, 20 * (seen[0] - x), atol=1e-5)
    assert torch.equal(seen[1], seen[3]), "the path itself starts where the recipe says"
    assert torch.equal(plain, stretched)


def test_bfloat16_attack_is_as_strong_as_float32() -> None:
    """Rounding must not turn the first step into a random one: compare the divergence reached."""
    model, data = tiny(), toy_data(128)
    fit(model, data, toy_recipe(epochs=2, objective="natural"), seed=0)
    x, y = data.train.x_NCHW.float() / 255, data.train.y_N
    judge = copy.deepcopy(model).eval()
    reached = {}
    for precision in ("float32", "bfloat16"):
        recipe = toy_recipe(precision=precision, inner=InnerAttack(steps=4, step_size=0.03))
        x_adv = Trainer(copy.deepcopy(model), recipe, seed=0).attack(x, y, epoch=0, step=0)
        reached[precision] = kl_from(judge, x, x_adv).mean()
    assert reached["bfloat16"] > 0.9 * reached["float32"]


def l2(eps: float) -> ThreatConfig:
    return ThreatConfig(norm="l2", eps=eps)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    eps=st.floats(0.01, 2.0),
    step_size=st.floats(0.01, 1.0),
    start=st.sampled_from(["normal", "uniform"]),
)
def test_l2_stays_inside_the_ball_and_the_box(
    seed: int, eps: float, step_size: float, start: str
) -> None:
    torch.manual_seed(seed)
    model = Linear().requires_grad_(False)
    x = torch.rand(4, 3, 2, 2).round(decimals=1)
    attack = InnerAttack(steps=3, step_size=step_size, start=start, start_scale=0.5)
    x_adv = climb(
        model, x, uphill_of(model, x, torch.zeros(4).long(), "ce"), attack, l2(eps), noise(seed)
    )
    assert ((x_adv - x).flatten(1).norm(dim=1) <= eps * (1 + 1e-5)).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_l2_reaches_the_optimum_of_two_classes() -> None:
    """Away from the walls of the box the best point is eps along the difference of weights."""
    torch.manual_seed(4)
    model = Linear(classes=2).double().requires_grad_(False)
    x, y = 0.4 + 0.2 * torch.rand(6, 3, 2, 2).double(), torch.tensor([0, 1, 0, 1, 1, 0])
    direction = (model.fc.weight[1] - model.fc.weight[0]).view(3, 2, 2)
    direction = direction / direction.norm()
    away = torch.where(y[:, None, None, None] == 0, direction, -direction)
    attack = InnerAttack(steps=8, step_size=0.05, start_scale=1e-5)
    x_adv = climb(model, x, uphill_of(model, x, y, "ce"), attack, l2(0.2), noise())
    assert torch.allclose(x_adv, x + 0.2 * away, atol=1e-4)


def test_l2_equals_a_plain_loop_in_float64() -> None:
    model = tiny().double().eval().requires_grad_(False)
    x = torch.rand(5, 1, 6, 6, generator=noise(5), dtype=torch.float64)
    attack = InnerAttack(steps=4, step_size=0.2, start_scale=0.01)
    x_adv = climb(model, x, uphill_of(model, x, x, "kl"), attack, l2(0.5), noise())
    p = model(x).softmax(1)
    delta = 0.01 * torch.empty(x.shape, dtype=torch.float64).normal_(generator=noise())
    for _ in range(4):
        delta.requires_grad_()
        loss = F.kl_div(model(x + delta).log_softmax(1), p, reduction="sum")
        (grad,) = torch.autograd.grad(loss, delta)
        delta = delta.detach() + 0.2 * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = (x + delta).clamp(0, 1) - x
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = torch.where(length > 0.5, delta * (0.5 / length), delta)
    assert torch.allclose(x_adv, x + delta, atol=1e-10)


def test_l2_uniform_start_fills_the_ball() -> None:
    x = torch.full((4000, 1, 1, 2), 0.5)
    start = start_point(x, InnerAttack(start="uniform"), l2(0.3), noise())
    radius = (start - x).flatten(1).norm(dim=1)
    assert radius.max() <= 0.3 * (1 + 1e-5)
    inner = (radius < 0.15).float().mean().item()
    assert inner == pytest.approx(0.25, abs=0.03), "a quarter of the disc lies within half of it"


def test_late_steps_are_a_tenth() -> None:
    torch.manual_seed(5)
    model = Linear().requires_grad_(False)
    x, y = 0.4 + 0.2 * torch.rand(3, 3, 2, 2), torch.tensor([0, 1, 2])
    points = [
        climb(
            model,
            x,
            uphill_of(model, x, y, "ce"),
            InnerAttack(steps=steps, step_size=0.02, tenth_after=2),
            LINF,
            noise(),
        )
        for steps in (3, 4)
    ]
    assert torch.allclose((points[1] - points[0]).abs(), torch.tensor(0.002), atol=1e-6)


def test_mixed_classes_ascend_their_own_cross_entropy() -> None:
    torch.manual_seed(6)
    model, x = Linear().double(), torch.rand(4, 3, 2, 2).double()
    y = torch.rand(4, 3, dtype=torch.float64).softmax(1)
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(F.cross_entropy(z, y, reduction="sum"), z)
    assert torch.allclose(uphill_of(model, x, y, "ce")(z.detach()), expected, atol=1e-14)
