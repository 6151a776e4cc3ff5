"""Steps to hyperplanes: against linear and quadratic programming, and by their properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, linprog, minimize

from robustray.attacks.steps.hyperplane import step_to_hyperplane

NORMS = ("linf", "l2", "l1")


def problem(rows, size, seed, reach, dtype=torch.float64):
    """Points, normals and excesses; ``reach`` is the share of the way that the box allows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, size, generator=generator, dtype=dtype)
    x[torch.rand(rows, size, generator=generator) < 0.2] = 0
    x[torch.rand(rows, size, generator=generator) < 0.1] = 1
    normal = torch.randn(rows, size, generator=generator, dtype=dtype)
    sign = torch.where(torch.rand(rows, generator=generator) < 0.5, -1.0, 1.0).to(dtype)
    down = torch.where(sign[:, None] * normal > 0, x, 1 - x)
    return x, normal, sign * reach * (normal.abs() * down).sum(1)


def size_of(step, norm):
    return torch.linalg.vector_norm(step, {"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=-1)


def least_size(x, w, excess, norm):
    """Solve the program with scipy, for one point."""
    x, w, excess = x.numpy(), w.numpy(), float(excess)
    count = len(x)
    if norm == "l2":
        found = minimize(
            lambda d: d @ d,
            np.zeros(count),
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints=LinearConstraint(w, -excess, -excess),
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.sqrt(found.fun)
    # Step d = a - b with a, b >= 0; for linf all of them are at most the last variable.
    extra = int(norm == "linf")
    cost = np.r_[np.zeros(2 * count), 1.0] if extra else np.ones(2 * count)
    plane = np.r_[w, -w, np.zeros(extra)][None]
    below = np.hstack([np.eye(2 * count), -np.ones((2 * count, 1))]) if extra else None
    limits = [(0, 1 - v) for v in x] + [(0, v) for v in x] + [(0, None)] * extra
    found = linprog(
        cost,
        A_ub=below,
        b_ub=np.zeros(2 * count) if extra else None,
        A_eq=plane,
        b_eq=[-excess],
        bounds=limits,
    )
    return found.fun


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_steps_are_the_shortest(norm, size):
    for seed, reach in enumerate((0.02, 0.3, 0.7, 0.97)):
        x, normal, excess = problem(4, size, seed, reach)
        step = step_to_hyperplane(x, normal, excess, norm)
        expected = [least_size(*row, norm) for row in zip(x, normal, excess, strict=True)]
        assert size_of(step, norm).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    size=st.integers(1, 60),
    reach=st.one_of(st.floats(0, 2), st.sampled_from([0.0, 1.0])),
    spread=st.sampled_from([0.0, 1.0, 6.0]),
    unit=st.sampled_from([1e-12, 1.0, 1e9]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_steps_reach_the_plane_or_every_wall(norm, size, reach, spread, unit, dtype, seed):
    x, normal, _ = problem(5, size, seed, reach, dtype)
    normal = normal.sign() * normal.abs() ** (1 + spread) * unit
    down = torch.where(normal > 0, x, 1 - x)
    excess = reach * (normal.abs() * down).sum(1)
    step = step_to_hyperplane(x, normal, excess, norm)
    assert step.dtype == dtype
    assert torch.isfinite(step).all()
    assert (x + step >= 0).all()
    assert (x + step <= 1).all()
    tight = 1e-4 if dtype == torch.float32 else 1e-9
    moved = -(normal * step).sum(1)
    scale = (normal.abs() * down).sum(1)
    assert ((moved - torch.minimum(excess, scale)).abs() <= tight * scale).all()
    if reach > 1.01:
        counted = normal.abs() > 1e-6 * normal.abs().amax(1, keepdim=True)
        torch.testing.assert_close(step.abs()[counted], down[counted], rtol=1e-5, atol=1e-7)
    mirrored = step_to_hyperplane(x, -normal, -excess, norm)
    assert torch.equal(mirrored, step)
    assert (size_of(step, "linf") <= 1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_steps_have_the_form_that_the_norm_asks_for(norm):
    x, normal, excess = problem(64, 300, 3, 0.4)
    step = step_to_hyperplane(x, normal, excess, norm)
    room = torch.where(normal * excess[:, None] > 0, x, 1 - x)
    free = (step.abs() < room * (1 - 1e-9)) & (room > 0)
    if norm == "l1":
        assert (((step != 0) & free).sum(1) <= 1).all()
        weakest = torch.where((step != 0) & (room > 0), normal.abs(), torch.inf).amin(1)
        idle = torch.where((step == 0) & (room > 0), normal.abs(), 0.0).amax(1)
        assert (idle <= weakest).all()
        return
    pace = step.abs() / (normal.abs() if norm == "l2" else 1)
    fastest = torch.where(free, pace, -torch.inf).amax(1)
    slowest = torch.where(free, pace, torch.inf).amin(1)
    torch.testing.assert_close(fastest, slowest)


@pytest.mark.parametrize("norm", NORMS)
def test_far_from_the_walls_the_distance_is_the_formula(norm):
    x = torch.full((8, 40), 0.5, dtype=torch.float64)
    normal = torch.randn(8, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    excess = torch.linspace(-0.4, 0.4, 8, dtype=torch.float64)
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    step = step_to_hyperplane(x, normal, excess, norm)
    expected = excess.abs() / torch.linalg.vector_norm(normal, dual, dim=1)
    torch.testing.assert_close(size_of(step, norm), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_flat_functions_and_empty_ways_move_nothing(norm):
    x = torch.rand(3, 10, generator=torch.Generator().manual_seed(0))
    normal = torch.zeros(3, 10)
    normal[2, 4] = 1e-30
    excess = torch.tensor([0.3, 0.0, 0.0])
    step = step_to_hyperplane(x, normal, excess, norm)
    assert (step == 0).all()
    normal[0, 0], x[0, 0] = 1.0, 0.0  # the only way is closed
    assert (step_to_hyperplane(x, normal, excess, norm) == 0).all()


def test_equal_slopes_share_in_l1():
    x = torch.tensor([[0.5, 0.2, 0.9, 0.5]])
    normal = torch.tensor([[1.0, 1.0, -2.0, 0.5]])
    step = step_to_hyperplane(x, normal, torch.tensor([0.2 + 0.35]), "l1")
    torch.testing.assert_close(step, torch.tensor([[-0.25, -0.1, 0.1, 0.0]]))


@pytest.mark.parametrize("norm", NORMS)
def test_rows_do_not_know_of_each_other(norm):
    x, normal, excess = problem(64, 300, 5, 0.5, torch.float32)
    excess = excess * torch.linspace(0.01, 3, 64)
    together = step_to_hyperplane(x, normal, excess, norm)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    for rows in order.split(24):
        part = step_to_hyperplane(x[rows], normal[rows], excess[rows], norm)
        assert torch.equal(part, together[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_normals_are_shared_by_several_points(norm):
    x, normal, excess = problem(6, 30, 2, 0.3)
    points = torch.stack([x, 1 - x])
    both = step_to_hyperplane(points, normal, torch.stack([excess, excess / 2]), norm)
    assert torch.equal(both[0], step_to_hyperplane(x, normal, excess, norm))
    assert torch.equal(both[1], step_to_hyperplane(1 - x, normal, excess / 2, norm))
