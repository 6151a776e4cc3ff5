"""Certified radii: never beyond what an attack finds, never larger with bounds than without."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from robustray.random import ExampleRandom
from robustray.smoothing import (
    certified_accuracy,
    clopper_pearson,
    frequencies,
    lipschitz_radius,
    noisy_counts,
    smoothing_radius,
)


@given(st.floats(0.02, 5), st.floats(0.51, 1), st.floats(0.01, 2))
def test_on_a_linear_classifier_no_radius_exceeds_the_distance_to_its_boundary(ratio, alpha, sigma):
    """Smoothing sign(w x) gives the probability Phi(distance / sigma): the radius is known.

    From 8 sigma on the probability rounds to 1, and the radius to infinity.

    The accurate base is an adversary that gives all its weight to the wrong class: the mixture then
    changes sides where the smoothed base's margin is (1 - alpha) / alpha.
    """
    distance, p1 = ratio * sigma, stats.norm.cdf(ratio)
    boundary = distance - sigma * stats.norm.ppf(min((1 / alpha) * 0.5, 1 - 1e-16))
    for radius in (
        lipschitz_radius(p1, 1 - p1, alpha, sigma),
        smoothing_radius(p1, 1 - p1, alpha, sigma),
    ):
        assert radius <= max(boundary, 0) + 1e-6
        assert radius <= distance + 1e-9


@given(st.floats(0.001, 0.999), st.floats(0.02, 2))
def test_the_robust_base_alone_has_cohens_radius(p1, sigma):
    found = smoothing_radius(p1, 1 - p1, 1.0, sigma)
    assert found == pytest.approx(max(0.0, sigma * stats.norm.ppf(p1)), abs=1e-9)
    assert smoothing_radius(1, 0, 1.0, sigma) == math.inf


@given(st.floats(0.5, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_radii_grow_with_the_weight_and_are_zero_up_to_one_half(p1, p2, alpha):
    assert lipschitz_radius(p1, p2, alpha, 0.5) == 0
    assert smoothing_radius(p1, p2, alpha, 0.5) <= 1e-9
    grid = [lipschitz_radius(p1, p2, a, 0.5) for a in (0.6, 0.8, 1.0)]
    assert grid == sorted(grid)
    assert grid[-1] <= 1 / (2 * math.sqrt(2 / math.pi) / 0.5) + 1e-12


@given(st.lists(st.integers(0, 400), min_size=3, max_size=3).filter(sum), st.floats(0.55, 1))
def test_bounds_never_certify_more_than_frequencies(counts, alpha):
    plain, sure = frequencies([counts]), clopper_pearson([counts], [counts])
    assert sure.p1_N[0] <= plain.p1_N[0]
    assert sure.prediction_N[0] in (-1, plain.prediction_N[0])
    for radius in (lipschitz_radius, smoothing_radius):
        assert (
            radius(sure.p1_N, sure.p2_N, alpha, 0.5)
            <= radius(plain.p1_N, plain.p2_N, alpha, 0.5) + 1e-12
        )


def test_clopper_pearson_is_the_binomials_own():
    lower = clopper_pearson([[10, 0]], [[95, 5]], 0.05).p1_N[0]
    assert stats.binom.sf(94, 100, lower) == pytest.approx(0.05, rel=1e-6)
    assert clopper_pearson([[10, 0]], [[0, 100]]).prediction_N[0] == -1


def test_counts_belong_to_images_and_not_to_batches():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    x, index, rng = torch.rand(4, 3, 2, 2), torch.arange(4) + 7, ExampleRandom(1, "noise")
    given = {"sigma": 0.5, "samples": 50, "rng": rng}
    whole = noisy_counts(network, x, index, **given)
    alone = noisy_counts(network, x[2:3], index[2:3], batch_size=7, **given)
    assert torch.equal(whole[2], alone[0])
    assert (whole.sum(1) == 50).all()
    assert not torch.equal(whole, noisy_counts(network, x, index, first=50, **given))


def test_smoothed_counts_of_a_linear_network_are_those_of_the_normal_distribution():
    network: Any = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    x = torch.full((1, 1, 2, 2), 0.3)
    counts = noisy_counts(
        network, x, torch.arange(1), sigma=0.5, samples=20_000, rng=ExampleRandom(0, "n")
    )
    share = counts[0, 0].item() / 20_000
    assert share == pytest.approx(stats.norm.cdf(0.6), abs=0.012)


def test_certified_accuracy_counts_right_images_beyond_each_radius():
    found = certified_accuracy([0.1, 0.5, 0.9], [True, True, False], [0, 0.3, 0.6])
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 0])


@pytest.mark.parametrize(("alpha", "sigma", "p1"), [(1.1, 1, 0.5), (0.5, 0, 0.5), (0.5, 1, 1.2)])
def test_numbers_out_of_range_are_refused(alpha, sigma, p1):
    with pytest.raises(ValueError, match=r"alpha|sigma|probabilities"):
        lipschitz_radius(p1, 0.1, alpha, sigma)


def test_a_network_that_changes_its_input_is_refused():
    def rude(x):
        x.data.mul_(0.5)
        return x.flatten(1)

    x = torch.rand(2, 1, 2, 2)
    given = {"sigma": 0.1, "samples": 3, "rng": ExampleRandom(0, "noise")}
    with pytest.raises(ValueError, match="changes its input in place"):
        noisy_counts(rude, x, torch.arange(2), **given)
    with pytest.raises(ValueError, match="instead of floating-point logits"):
        noisy_counts(lambda x: x, x, torch.arange(2), **given)
