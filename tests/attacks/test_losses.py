import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.attacks.losses import (
    LOSSES,
    cross_entropy,
    cw_margin,
    dlr,
    kl,
    margin,
    objective,
    targeted_dlr,
)

LOGITS = torch.tensor(
    [[2.0, 1.0, -1.0, 0.5], [0.0, 3.0, 1.0, 2.5], [-4.0, 0.0, 4.0, 1.0]], dtype=torch.float64
)
LABELS = torch.tensor([0, 3, 1])
MARGINS = [-1.0, 0.5, 4.0]


def gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, target).sum(), logits)[0]


def test_cross_entropy_is_its_formula():
    rows = zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    expected = [math.log(sum(map(math.exp, row))) - row[y] for row, y in rows]
    assert cross_entropy(LOGITS, LABELS).tolist() == pytest.approx(expected, abs=1e-14)
    one_hot = torch.nn.functional.one_hot(LABELS, 4)
    torch.testing.assert_close(gradient(cross_entropy, LOGITS, LABELS), LOGITS.softmax(1) - one_hot)


def test_margin_is_its_formula():
    assert margin(LOGITS, LABELS).tolist() == MARGINS
    expected = [[-1.0, 1, 0, 0], [0, 1, 0, -1], [0, -1, 1, 0]]
    assert gradient(margin, LOGITS, LABELS).tolist() == expected


def test_cw_margin_stops_exactly_at_misclassification():
    assert cw_margin(LOGITS, LABELS).tolist() == [-1.0, 0.0, 0.0]
    grad = gradient(cw_margin, LOGITS, LABELS)
    assert grad.tolist() == [[-1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_cw_margin_pushes_on_at_a_tie():
    tie = torch.tensor([[1.0, 1.0, 0.0]])
    assert gradient(cw_margin, tie, torch.tensor([0])).tolist() == [[-1, 1, 0]]


def test_cw_margin_pushes_on_until_another_class_leads_by_the_confidence():
    leading = torch.tensor([[1.0, 1.5, 0.0], [1.0, 2.0, 0.0], [1.0, 2.5, 0.0]])
    loss = partial(cw_margin, confidence=1.0)
    assert loss(leading, torch.zeros(3, dtype=torch.int64)).tolist() == [-0.5, 0, 0]
    grad = gradient(loss, leading, torch.zeros(3, dtype=torch.int64))
    assert grad.tolist() == [[-1, 1, 0], [-1, 1, 0], [0, 0, 0]]


def test_dlr_is_its_formula():
    expected = [-1.0 / (2.0 - 0.5), 0.5 / (3.0 - 1.0), 4.0 / (4.0 - 0.0)]
    assert dlr(LOGITS, LABELS).tolist() == pytest.approx(expected, abs=1e-11)


def test_dlr_ignores_scale_and_shift():
    torch.testing.assert_close(dlr(LOGITS * 1000 + 7, LABELS), dlr(LOGITS, LABELS))


def test_dlr_of_two_classes_is_the_margin():
    logits, labels = LOGITS[:, :2], torch.tensor([0, 1, 1])
    assert torch.equal(dlr(logits, labels), margin(logits, labels))


def test_kl_is_its_formula():
    reference = LOGITS.flip(1)
    p, q = reference.softmax(1), LOGITS.softmax(1)
    torch.testing.assert_close(kl(LOGITS, reference), (p * (p / q).log()).sum(1))
    assert kl(LOGITS, LOGITS).abs().max() < 1e-15
    torch.testing.assert_close(gradient(kl, LOGITS, reference), q - p)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_per_example_and_keep_the_dtype(name):
    target = LOGITS.flip(1) if name == "kl" else LABELS
    together = LOSSES[name](LOGITS, target)
    assert together.shape == (3,)
    alone = [LOSSES[name](LOGITS[i : i + 1], target[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    single = target if target.dtype == torch.int64 else target.float()
    assert LOSSES[name](LOGITS.float(), single).dtype == torch.float32


def test_unknown_losses_are_refused():
    with pytest.raises(ValueError, match=r"loss is one of cross_entropy, .*not 'hinge'"):
        objective("hinge", LABELS, lambda: LOGITS)


def test_only_kl_asks_for_the_reference():
    asked = []
    for name in LOSSES:
        objective(name, LABELS, lambda name=name: asked.append(name) or LOGITS)(LOGITS)
    assert asked == ["kl"]


# Classes that are ruled out, and logits at the ends of what numbers hold.

RULED_OUT = [-torch.inf, torch.finfo(torch.float32).min]


@pytest.mark.parametrize("worst", RULED_OUT)
@pytest.mark.parametrize("possible", [2, 3, 4, 5])
def test_classes_that_are_ruled_out_change_no_loss(possible, worst):
    """Losses and gradients are those of the network that does not have them."""
    z_BK = torch.randn(16, possible, generator=torch.Generator().manual_seed(possible))
    y_B = torch.arange(16) % possible
    target_B = (y_B + 1) % possible
    losses_ = {
        name: (lambda z, loss=loss: loss(z, y_B)) for name, loss in LOSSES.items() if name != "kl"
    }
    losses_["targeted"] = lambda z: targeted_dlr(z, y_B, target_B)
    losses_["kl"] = lambda z: LOSSES["kl"](z, masked(z_BK + 1) if z.shape[1] == 7 else z_BK + 1)

    def masked(z):
        return torch.cat([z, torch.full((len(z), 7 - possible), worst)], dim=1)

    for name, loss in losses_.items():
        z = z_BK.clone().requires_grad_()
        few_B = loss(z)
        (expected,) = torch.autograd.grad(few_B.sum(), z)
        many_B = loss(masked(z))
        (grad,) = torch.autograd.grad(many_B.sum(), z)
        torch.testing.assert_close(many_B, few_B, msg=name)
        torch.testing.assert_close(grad, expected, msg=name)


@given(
    st.lists(
        st.lists(
            st.sampled_from([-torch.inf, torch.inf, -3e38, 3e38, 1e30, -1e30, 0.0, 1.0, -2.5]),
            min_size=5, max_size=5,
        ),
        min_size=1, max_size=6,
    ),
    st.integers(0, 4),
    st.integers(1, 4),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_losses_are_numbers_and_never_praise_a_right_answer(rows, label, other):
    z_BK = torch.tensor(rows).requires_grad_()
    y_B = torch.full((len(rows),), label)
    target_B = (y_B + other) % 5
    found = {name: loss(z_BK, y_B) for name, loss in LOSSES.items() if name != "kl"}
    found["targeted"] = targeted_dlr(z_BK, y_B, target_B)
    for name, loss_B in found.items():
        (grad,) = torch.autograd.grad(loss_B.sum(), z_BK, retain_graph=True)
        assert not bool(loss_B.isnan().any()), name
        assert not bool(grad.isnan().any()), name
    strictly_B = z_BK.detach()[:, label] > z_BK.detach().scatter(1, y_B[:, None], -torch.inf).amax(
        1
    )
    for name in ("margin", "dlr", "cw_margin"):
        assert bool((found[name][strictly_B] <= 0).all()), name
