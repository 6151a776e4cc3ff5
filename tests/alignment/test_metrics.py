"""Cosine, closest class and the linearity table against formulas and published numbers."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robustray.alignment import (
    TwoLogits,
    alignment,
    alignment_metrics,
    class_distances,
    class_gradient,
    closest_class,
    epsilon_50,
    jacobian,
    linearised_robustness,
    linearity_table,
    write_linearity,
)
from robustray.alignment.metrics import TAGS

PUBLISHED_EPS = [0, 0.02, 0.04, 0.06, 0.1, 0.14, 0.2, 0.4, 0.6]
PUBLISHED_ERRORS = [0.01, 0.02, 0.05, 0.09, 0.2, 0.31, 0.44, 0.77, 0.95]


def test_published_example_of_epsilon_50():
    assert epsilon_50(PUBLISHED_EPS, PUBLISHED_ERRORS) == pytest.approx(0.23636, abs=5e-6)
    corrected = epsilon_50(np.array(PUBLISHED_EPS), torch.tensor(PUBLISHED_ERRORS), "corrected")
    assert corrected == pytest.approx(0.23636, abs=1e-5)


def test_published_edge_cases_of_epsilon_50():
    assert epsilon_50([-1, 0, 1], [1 / 3, 2 / 3, 2 / 3]) == pytest.approx(-0.5)
    assert epsilon_50([0, 1], [0.7, 0.9]) == 0  # above from the start: no crossing
    assert epsilon_50([0, 1, 2], [0, 0, 0]) == 0
    assert epsilon_50([0, 1, 2], [0.0, 0.1, 0.21]) == pytest.approx(1 + 0.1 / 0.11)
    assert epsilon_50([0, 1, 2, 3, 4], [0, 0.6, 0.4, 0.6, 0.8]) == pytest.approx(2.5)
    assert epsilon_50([0, 3, 1], [0, 0.2, 0.6]) == pytest.approx(3 - 2 * 0.75)  # decreasing list


def test_corrected_epsilon_50_counts_clean_errors_and_is_monotone():
    assert epsilon_50([0, 1], [0.5, 0.9], "corrected") == 0
    assert math.isinf(epsilon_50([0, 1, 2], [0.0, 0.1, 0.2], "corrected"))
    assert epsilon_50([0, 1, 2, 3], [0, 0.6, 0.4, 0.9], "corrected") == pytest.approx(5 / 6)
    assert epsilon_50([-1, 3, 1, 0], [1, 0.6, 0.2, 0.1], "corrected") == pytest.approx(2.5)
    with pytest.raises(ValueError, match="eps 0"):
        epsilon_50([1, 2], [0.1, 0.2], "corrected")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 7), st.floats(0, 1))
def test_more_errors_never_raise_the_corrected_epsilon_50(errors, at, more):
    worse = list(errors)
    worse[at % len(errors)] = max(worse[at % len(errors)], more)
    eps = range(len(errors))
    assert epsilon_50(eps, worse, "corrected") <= epsilon_50(eps, errors, "corrected") + 1e-9


@pytest.mark.parametrize(
    ("eps", "errors"), [([], []), ([0, 1], [0.1]), ([0], [1.1]), ([math.nan], [0.1])]
)
def test_curves_that_make_no_sense_are_refused(eps, errors):
    for form in ("published", "corrected"):
        with pytest.raises(ValueError, match="eps"):
            epsilon_50(eps, errors, form)


def test_stabilised_cosine():
    a = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[4.0, 3.0], [0.0, 0.0], [1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    expected = [24 / 25, 1.0, 2**-0.5, -1.0]
    np.testing.assert_allclose(alignment(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(alignment(a.numpy(), b.numpy()), expected, rtol=1e-12)
    np.testing.assert_allclose(alignment(a.float(), b.float()), expected, rtol=1e-6)
    # Near 1e-15 vectors are distorted; by the added sign, downwards where negative.
    tiny = torch.tensor([[1e-15, 0.0]], dtype=torch.float64)
    assert alignment(tiny, torch.tensor([[1.0, 0.0]], dtype=torch.float64)).item() == (
        pytest.approx(2 / 5**0.5)
    )
    assert isinstance(alignment([[1, 2]], [[1, 2]]), np.ndarray)
    with pytest.raises(ValueError, match="one shape"):
        alignment(a, b[:2])


def test_cosine_is_differentiable_and_flattens():
    a = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    plain = torch.cosine_similarity(a.flatten(1), b.flatten(1))
    torch.testing.assert_close(alignment(a, b), plain)
    assert torch.autograd.gradcheck(alignment, (a, b))


def linear(classes=4, size=6, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(size, classes).double()


def test_jacobian_and_distances_of_a_linear_network():
    network, x = linear(), torch.randn(7, 6, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    logits, jac = jacobian(network, x)
    torch.testing.assert_close(jac, network.weight.detach().expand(7, 4, 6))
    distance = class_distances(logits, jac, y)
    for row, label in enumerate(y.tolist()):
        for k in range(4):
            w = (network.weight[label] - network.weight[k]).detach()
            gap = logits[row, label] - logits[row, k]
            expected = math.inf if k == label else float(gap / w.norm())
            assert distance[row, k].item() == pytest.approx(expected)
    assert torch.equal(closest_class(logits, jac, y), distance.argmin(1))
    torch.testing.assert_close(linearised_robustness(logits, jac, y), distance.amin(1))


def test_closest_class_is_never_the_label():
    logits, jac = torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1, 3, 5)
    assert closest_class(logits, jac, torch.tensor([0])).item() != 0
    assert closest_class(logits, jac, torch.tensor([1])).item() == 0
    assert class_distances(logits, jac, torch.tensor([1])).tolist() == [[-math.inf, math.inf,
                                                                         math.inf]]  # fmt: skip


class Rowwise(torch.autograd.Function):
    """An operation whose backward pass cannot be vectorised."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        assert float(grad.sum()) is not None  # asks for a value
        return 2 * x * grad


def test_jacobian_falls_back_to_one_pass_for_each_class():
    network, x = linear(), torch.randn(5, 6, dtype=torch.float64)
    logits, jac = jacobian(lambda x: network(Rowwise.apply(x)), x)
    expected = 2 * x[:, None] * network.weight.detach()
    torch.testing.assert_close(jac, expected)
    torch.testing.assert_close(logits, network(x**2).detach())


def test_jacobian_of_a_convolutional_network_equals_single_passes():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4 * 9, 10),
    ).double().eval()  # fmt: skip
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    logits, jac = jacobian(network, x)
    y, c = torch.tensor([1, 2, 3]), torch.tensor([0, 5, 9])
    torch.testing.assert_close(
        class_gradient(network, x, c, y), jac[range(3), c] - jac[range(3), y]
    )
    assert jac.shape == (3, 10, 3, 8, 8)
    assert not logits.requires_grad
    assert not jac.requires_grad


def test_one_logit_as_two():
    network: Any = TwoLogits(linear(classes=1))
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 1])
    d = network.network(x)[:, 0]
    binary = nn.functional.binary_cross_entropy_with_logits(d, y.double())
    torch.testing.assert_close(nn.functional.cross_entropy(network(x), y), binary)
    logits, jac = jacobian(network, x)
    length = network.network.weight.norm()
    robust = linearised_robustness(logits, jac, y)
    torch.testing.assert_close(robust.abs(), (d.abs() / length).detach())
    assert torch.equal(closest_class(logits, jac, y), 1 - y)


def test_metrics_are_those_of_their_names():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    x, y = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4
    logits, jac = jacobian(network, x)
    p, rows = logits.argmax(1), torch.arange(8)
    c, d = closest_class(logits, jac, y), closest_class(logits, jac, p)
    delta = torch.randn_like(x)
    found = alignment_metrics(logits, jac, x, y, delta)
    assert tuple(found) == TAGS
    assert (p != y).any()
    g1, g2 = jac[rows, c] - jac[rows, y], jac[rows, d] - jac[rows, p]
    directions = [g1, g2, jac[rows, y], jac[rows, p]]
    for tag, g in zip(TAGS[:4], directions, strict=True):
        torch.testing.assert_close(found[tag], torch.cosine_similarity(g, delta))
    for tag, g in zip(TAGS[4:], [jac[rows, p], jac[rows, y], g1, g2], strict=True):
        torch.testing.assert_close(found[tag], torch.cosine_similarity(g, x).abs())
    assert tuple(alignment_metrics(logits, jac, x, y)) == TAGS[4:]


def test_linearity_table(tmp_path):
    network, x = linear(), torch.randn(5, 6, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0])
    logits, jac = jacobian(network, x)
    delta = torch.randn(5, 4, 6, dtype=torch.float64)
    attacked = {0.02: y, 0.1: (y + 1) % 4}
    table = linearity_table(logits, jac, y, delta, attacked)
    csv, parquet = write_linearity(table, tmp_path)
    assert csv.read_text().splitlines()[0] == (
        ",closest_class,ground_truth_class,"
        "alignment_class_0,alignment_class_1,alignment_class_2,alignment_class_3,"
        "distance_class_0,distance_class_1,distance_class_2,distance_class_3,"
        "closest_class_attack_epsilon_0.02,closest_class_attack_epsilon_0.1"
    )
    back = pd.read_csv(csv, index_col=0)
    pd.testing.assert_frame_equal(back, pd.read_parquet(parquet))
    assert math.isinf(back.distance_class_1[1])
    ones = torch.cosine_similarity(torch.ones(1, 6).double(), delta[1, 1][None])
    assert back.alignment_class_1[1] == pytest.approx(ones.item())


def test_networks_that_change_their_input_or_give_no_logits_are_refused():
    def rude(x):
        with torch.no_grad():
            x.mul_(0.5)
        return x.flatten(1)

    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="changes its input in place"):
        jacobian(rude, x)
    with pytest.raises(ValueError, match="changes its input in place"):
        class_gradient(rude, x, 1 - y, y)
    with pytest.raises(ValueError, match="instead of floating-point logits"):
        jacobian(lambda x: x, x)
