import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.autopgd_base import L1_projection
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf

from robustray.attacks.steps.hyperplane import step_sorted
from robustray.attacks.steps.projections import project_l1, sorted_l1_correction, value_of_rank


def nearest(delta, x, radius):
    """The projection by bisection, in float64."""
    size, room = delta.abs(), torch.where(delta > 0, 1 - x, x)
    low, high = torch.zeros(len(x), 1).double(), size.amax(1, keepdim=True)

    def norm(cut):
        return (size - cut).clamp(min=0).minimum(room).sum(1, keepdim=True)

    inside = norm(low) <= radius
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            torch.where(norm(middle) > radius, middle, low),
            torch.where(norm(middle) > radius, high, middle),
        )
    cut = torch.where(inside, 0 * high, high)
    return delta.sign() * (size - cut).clamp(min=0).minimum(room)


@settings(max_examples=80, deadline=None)
@given(
    count=st.sampled_from([1, 8, 33]),
    size=st.sampled_from([1, 7, 96, 768]),
    radius=st.sampled_from([1e-3, 0.3, 2.0, 12.0, 1e4]),
    reach=st.sampled_from([1e-3, 0.3, 5.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_l1_projections_are_the_nearest_points(count, size, radius, reach, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (255 * torch.rand(count, size, generator=generator)).round().div(255).to(dtype)
    delta = reach * torch.randn(count, size, generator=generator).to(dtype)
    found = project_l1(delta, x, torch.full((count,), radius, dtype=dtype))
    expected = nearest(delta.double(), x.double(), radius)
    tolerance = 3e-6 * min(radius, 10) + 2e-6 * reach
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    assert (found.double().abs().sum(1) <= radius * (1 + 1e-6)).all()
    assert ((x + found).clamp(0, 1) - (x + found)).abs().max() < 1e-6
    alone = project_l1(delta[:1], x[:1], torch.full((1,), radius, dtype=dtype))
    torch.testing.assert_close(alone, found[:1], rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from([torch.float32, torch.float64]),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_values_are_found_by_rank(dtype, ties, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(9, 3, 7, dtype=dtype, generator=generator).abs() * 1e-3
    values = (values * 2000).round() / 2000 if ties else values
    rank_B = torch.randint(0, 21, (9,), generator=generator)
    expected = values.flatten(1).sort(1).values.gather(1, rank_B[:, None])[:, 0]
    assert torch.equal(value_of_rank(values, rank_B), expected)


def coarse(count, size, levels, seed):
    """Images of a few grey levels, walls included, and normal numbers of a few sizes."""
    generator = torch.Generator().manual_seed(seed)
    x = (levels * torch.rand(count, size, generator=generator)).round() / levels
    drawn = torch.randn(count, size, generator=generator)
    drawn[::3] = (drawn[::3] * 4).round() / 4
    drawn[1] = 0
    return x, drawn


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([6, 64, 100, 768]),
    levels=st.sampled_from([1, 16, 255]),
    radius=st.sampled_from([0.1, 1.5, 12.0]),
    reach=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_sorted_l1_corrections_are_the_reference_s_and_project(size, levels, radius, reach, seed):
    x, delta = coarse(24, size, levels, seed)
    delta = reach * delta
    found = sorted_l1_correction(delta, x, torch.full((24,), radius))
    expected = L1_projection(x, delta, radius)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    if size >= 64:  # sums over all events lose digits
        exact = nearest(delta.double(), x.double(), radius)
        close = (delta + found - exact).abs() < 1e-5 * size**0.5 * max(reach, 1)
        assert close.all()


REFERENCE = {"linf": projection_linf, "l2": projection_l2, "l1": projection_l1}


@pytest.mark.parametrize("norm", REFERENCE)
@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([2, 6, 64, 100, 768]),
    levels=st.sampled_from([1, 16, 255]),
    excess=st.sampled_from([0.0, 0.01, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_sorted_steps_are_the_reference_s(norm, size, levels, excess, seed):
    x, normal = coarse(24, size, levels, seed)
    offset_N = (normal * x).sum(1) - excess * torch.linspace(-1, 1, 24)
    found = step_sorted(x, normal, (normal * x).sum(1) - offset_N, norm)
    expected = REFERENCE[norm](x, normal, offset_N)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
