"""Gradients for components of a network: what each rule gives, and that verdicts stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel, WithSurrogate, evaluate, input_gradient
from robustray.attacks.surrogates.bpda import WithoutSurrogate
from robustray.attacks.surrogates.bpda_learned import AmongCompanions, fit_approximation, inputs_of
from robustray.attacks.surrogates.bpda_rules import (
    Bypass,
    Clipped,
    Shifted,
    Smooth,
    StraightThrough,
    with_bpda,
)
from robustray.attacks.surrogates.catalogue import SURROGATES, FiniteDifferences, put_surrogate
from robustray.models import create_model
from robustray.models.architectures.quantised import Quantiser

ALPHA = 20.0


class Net(nn.Module):
    """Linear, staircase, linear: the gradient of each rule is known."""

    def __init__(self):
        super().__init__()
        self.first, self.quantiser = nn.Linear(12, 8, bias=False), Quantiser("per_image")
        self.last = nn.Linear(8, 4, bias=False)

    def forward(self, x):
        return self.last(self.quantiser(self.first(x.flatten(1))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def x():
    return torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def slope(model, x):
    return input_gradient(model, x, lambda logits: logits[:, 0]).grad.flatten(1)


def through(net, derivative):
    """Return the gradient where the quantiser's derivative is known, elementwise."""
    return (net.last.weight[0] * derivative) @ net.first.weight


def test_the_published_gradient_is_not_finite_and_rules_are(net, x):
    assert slope(net, x).isnan().all()
    for rule in (StraightThrough(), Clipped(), Shifted(), Shifted(True), Smooth(ALPHA), Bypass()):
        model = with_bpda(net, {"Quantiser": rule})
        assert slope(model, x).isfinite().all()
        assert torch.equal(model(x), net(x))
        assert torch.equal(model.surrogate(x), net(x))  # loss values are the network's


def test_straight_through_shifted_and_bypass_differentiate_the_identity_here(net, x):
    one = through(net, torch.ones(8)).expand(5, -1)
    for rule in (StraightThrough(), Shifted(), Bypass(), lambda v: v):
        torch.testing.assert_close(slope(with_bpda(net, {"quantiser": rule}), x), one)


def test_the_maximum_has_a_gradient_if_asked_for(net, x):
    v = net.first(x.flatten(1))
    at = v.abs().argmax(1)
    sign = v.gather(1, at[:, None]).sign()
    extra = net.last.weight[0].sum() / 20 * sign * net.first.weight[at]
    expected = through(net, torch.ones(8)) + extra
    torch.testing.assert_close(slope(with_bpda(net, {"q*": Shifted(True)}), x), expected)


def test_smooth_is_the_soft_staircases_derivative(net, x):
    # With M held: alpha h sigma' of the distance to the nearest step.
    net.quantiser = Quantiser("frozen")
    net.quantiser.scale.fill_(3.0)
    s = net.first(x.flatten(1)) / 3
    rise = torch.sigmoid(ALPHA * (s - 0.1 * (s / 0.1).round()))
    expected = through(net, ALPHA * 0.1 * rise * (1 - rise))
    model = with_bpda(net, {"Quantiser": Smooth(ALPHA)})
    torch.testing.assert_close(slope(model, x), expected, rtol=1e-4, atol=1e-6)
    both = with_bpda(net, {"Quantiser": Smooth((ALPHA, 1e-3))})
    torch.testing.assert_close(slope(both, x), expected / 2, rtol=1e-2, atol=1e-4)


def test_clipping_stops_the_gradient_outside(net, x):
    v = net.first(x.flatten(1))
    inside = ((v >= -0.2) & (v <= 0.1)).float()
    assert 0 < inside.mean() < 1
    model = with_bpda(net, {"quantiser": Clipped(-0.2, 0.1)})
    torch.testing.assert_close(slope(model, x), through(net, inside))
    net.quantiser = Quantiser("frozen")
    net.quantiser.scale.fill_(0.2)
    model = with_bpda(net, {"quantiser": Clipped()})
    torch.testing.assert_close(slope(model, x), through(net, (v.abs() <= 0.2).float()))


def test_a_fitted_network_stands_in(net, x):
    many = torch.rand(400, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    v = inputs_of(net, "quantiser", many)
    torch.testing.assert_close(v, net.first(many.flatten(1)))
    stand_in = nn.Linear(8, 8)
    left = fit_approximation(net.quantiser, stand_in, v, steps=400, learning_rate=0.02)
    assert left < 0.05
    model = with_bpda(net, {"Quantiser": StraightThrough(stand_in)})
    expected = net.last.weight[0] @ stand_in.weight @ net.first.weight
    torch.testing.assert_close(slope(model, x), expected.expand(5, -1))
    assert torch.equal(model.surrogate(x), net(x))
    with pytest.raises(ValueError, match="for each input and its approximation"):
        fit_approximation(net.quantiser, nn.Linear(8, 3), v)


def test_losses_are_the_networks_or_the_surrogates_by_name(net, x):
    own = with_bpda(net, {"Quantiser": Bypass()}, loss_values="surrogate")
    net.quantiser.active = False
    bypassed = net(x)
    net.quantiser.active = True
    assert torch.equal(own.surrogate(x), bypassed)
    assert own.loss_from_surrogate
    soft = with_bpda(net, {"Quantiser": Smooth(ALPHA, soft_forward=True)}, loss_values="surrogate")
    assert not torch.equal(soft.surrogate(x), net(x))
    assert slope(soft, x).isfinite().all()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({}, "no rules"),
        ({"Other": Bypass()}, r"no component is called 'Other'.*Linear, Quantiser"),
        ({"first": Shifted()}, "Linear has no maximum"),
        ({"first": StraightThrough()}, r"returns \(5, 8\) and its approximation \(5, 12\)"),
        ({"first": Bypass()}, r"first returns \(5, 8\) and its rule \(5, 12\)"),
    ],
)
def test_rules_that_do_not_fit_are_refused(net, x, rules, words):
    with pytest.raises(ValueError, match=words):
        with_bpda(net, rules).surrogate(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda net: with_bpda(net, {"Quantiser": Bypass()}, loss_values="x"),
        lambda net: Smooth(0.0),
        lambda net: Smooth(()),
        lambda net: Clipped(1.0),
        lambda net: Clipped(1.0, 0.0),
        lambda net: FiniteDifferences(net, "other"),
        lambda net: FiniteDifferences(net, samples=0),
        lambda net: put_surrogate(net, "other"),
        lambda net: put_surrogate(net, "smooth", beta=3),
        lambda net: put_surrogate(net, "spsa", ["first"]),
        lambda net: put_surrogate(net, "none", alpha=1.0),
        lambda net: AmongCompanions(net, torch.rand(3, 3, 2, 2), 5),
    ],
)
def test_options_out_of_range_are_refused(net, make):
    with pytest.raises(ValueError, match=r"."):
        make(net)


@pytest.mark.parametrize("kind", ["spsa", "nes"])
def test_estimated_gradients_are_those_of_a_linear_network(kind, x):
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    model = FiniteDifferences(linear, kind, samples=4000, radius=0.1)
    exact, found = slope(linear, x), slope(model, x)
    assert torch.nn.functional.cosine_similarity(exact, found).min() > 0.98
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.1)
    few = FiniteDifferences(linear, kind, samples=3)
    torch.testing.assert_close(slope(few, x[2:]), slope(few, x)[2:])  # no batch in it
    first, second = (few.directions(points)[0] for points in (x, x + 1e-6))
    assert not torch.equal(first, second)
    assert few.surrogate_forwards == 7


def test_estimated_gradients_see_over_steps(net, x):
    assert slope(FiniteDifferences(net, samples=64, radius=0.1), x).isfinite().all()
    cosine = torch.nn.functional.cosine_similarity(
        slope(FiniteDifferences(net, samples=2000, radius=0.1), x),
        slope(with_bpda(net, {"Quantiser": StraightThrough()}), x),
    )
    assert cosine.min() > 0.5


def test_companions_are_averaged_over_and_nobody_elses_business():
    torch.manual_seed(0)
    network = create_model("robust_model_zoo_1", width=1, depths=(1, 1, 1)).eval()
    pool, x = torch.rand(6, 3, 16, 16), torch.rand(3, 3, 16, 16)
    model = AmongCompanions(network, pool, size=4, draws=3)
    assert model.batch_dependent
    assert torch.equal(model(x), network(x))
    rows = [
        network.surrogate(torch.cat([x[1:2], pool[c]]))[0]  # pyright: ignore[reportCallIssue]
        for c in model.chosen
    ]
    torch.testing.assert_close(model.surrogate(x)[1], torch.stack(rows).mean(0))
    together = input_gradient(model, x, lambda logits: logits[:, 0]).grad
    alone = input_gradient(model, x[1:2], lambda logits: logits[:, 0]).grad
    torch.testing.assert_close(together[1:2], alone)
    assert model.surrogate_forwards == 12


def test_a_models_own_surrogate_can_be_left_out(net, x):
    own = WithSurrogate(net, with_bpda(net, {"Quantiser": StraightThrough()}).surrogate)
    assert slope(own, x).isfinite().all()
    assert slope(WithoutSurrogate(own), x).isnan().all()


@pytest.mark.parametrize("name", SURROGATES)
def test_every_surrogate_has_a_name_and_works_in_every_kind_of_attack(net, name):
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    net.first = nn.Linear(192, 8, bias=False)
    y = net(x).argmax(1)
    options = {"samples": 8, "radius": 0.05} if name in ("spsa", "nes") else {}
    model = put_surrogate(net, name, None, **options)
    suite = [
        "fgsm",
        "pgd-20",
        AttackSpec("apgd-t", options={"n_iter": 10, "n_targets": 2}),
        AttackSpec("fab-t", options={"n_iter": 5, "n_targets": 2}),
    ]
    results = [
        evaluate(model, x[rows], y[rows], ThreatModel("linf", 0.05), suite, index=rows)
        for rows in (torch.arange(12), torch.arange(4, 9))
    ]
    whole, part = results
    assert torch.equal(whole.robust, net(whole.x_adv).argmax(1) == y)
    assert torch.equal(whole.robust[4:9], part.robust)
    if name != "none":
        assert whole.robust_accuracy < 0.6
