"""The upstream mode gives the verdicts, and mostly the bits, of the reference implementation."""

import pytest
import torch
from pyautoattack import AutoAttack

from robustray.attacks import AttackSpec, ThreatModel, evaluate
from tests.helpers.public_networks import CHECKPOINTS, TRAINED, load_images, load_network

NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPS = {"l2": {"trades_mnist": 1.5, "resnet_4b": 0.25, "cnn_a_adv4": 0.5, "natural": 0.25}}


def plan_for(attack):
    """Make up for the reference planning its checkpoints for 100 iterations, come what may."""
    attack.n_iter_2 = max(int(0.22 * attack.n_iter), 1)
    attack.n_iter_min = max(int(0.06 * attack.n_iter), 1)
    attack.size_decr = max(int(0.03 * attack.n_iter), 1)
    attack.n_iter_orig = attack.n_iter  # of all the stages of l1


def both(shared_data, network, norm, attacks, count, batch, eps=None, seed=5):
    """Run a cascade of attacks, with their budgets, in both; return clean and robust flags, x_adv.

    ``attacks`` holds for each name the options of ours; the reference has the same names for them
    but for some.
    """
    data = TRAINED.get(network) or CHECKPOINTS[network].data
    x, y = load_images(shared_data, data)
    x, y, model = x[:count].float() / 255, y[:count], load_network(shared_data, network)
    eps = eps or (CHECKPOINTS[network].eps if norm == "linf" else EPS[norm][network])
    reference = AutoAttack(
        model, attacks=list(attacks), norm=NAMES[norm], eps=eps, seed=seed, version="custom"
    )
    places = {
        "apgd-ce": reference.apgd, "apgd-dlr": reference.apgd, "square": reference.square,
        "apgd-t": reference.apgd_targeted, "fab-t": reference.fab, "fab": reference.fab,
    }  # fmt: skip
    others = {"n_targets": "n_target_classes", "l1_stages": "use_largereps", "eot": "eot_iter"}
    for name, options in attacks.items():
        places[name].n_restarts = 1
        for key, value in options.items():
            setattr(places[name], others.get(key, key), value)
        if name.startswith("apgd"):
            plan_for(places[name])
    x_adv, labels = reference.run_standard_evaluation(x, y, batch_size=batch)
    specs = [AttackSpec(name, options=options) for name, options in attacks.items()]
    ours = evaluate(
        model, x, y, ThreatModel(norm, eps), specs, seed=seed, batch_size=batch, mode="upstream"
    )
    return ours, labels == y, x_adv


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_short_cascade_is_the_reference_s_bit_for_bit(shared_data, norm):
    attacks = {
        "apgd-ce": {"n_iter": 20, "n_restarts": 2},
        "apgd-dlr": {"n_iter": 20, "n_restarts": 2},
        "apgd-t": {"n_iter": 15, "n_targets": 4},
    }
    ours, robust, x_adv = both(shared_data, "cnn_a_adv4", norm, attacks, count=64, batch=25)
    assert torch.equal(ours.robust, robust)
    assert torch.equal(ours.x_adv, x_adv)
    assert 0 < ours.robust_accuracy < ours.clean_accuracy
    assert {"apgd-ce", "apgd-t"} <= set(ours.broken_by)


def test_all_attacks_together_give_its_verdicts(shared_data):
    attacks = {
        "square": {"n_queries": 30},
        "fab-t": {"n_iter": 6, "n_targets": 1},
        "apgd-ce": {"n_iter": 8},
        "apgd-t": {"n_iter": 8, "n_targets": 4},
    }
    ours, robust, _ = both(shared_data, "cnn_a_adv4", "linf", attacks, count=96, batch=40)
    assert torch.equal(ours.robust, robust)
    assert len(set(ours.broken_by) - {None}) >= 3


def test_averaged_gradients_are_its_own(shared_data):
    attacks = {"apgd-ce": {"n_iter": 8, "eot": 3}}
    ours, robust, x_adv = both(shared_data, "cnn_a_adv4", "linf", attacks, count=24, batch=24)
    assert torch.equal(ours.robust, robust)
    assert torch.equal(ours.x_adv, x_adv)


def assert_equal_to_the_bit(found):
    ours, robust, x_adv = found
    assert torch.equal(ours.robust, robust)
    assert torch.equal(ours.x_adv, x_adv)
    assert 0 < ours.robust_accuracy < ours.clean_accuracy


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("attack", "options"),
    [
        ("apgd-ce", {"n_iter": 30, "n_restarts": 2, "l1_stages": True}),
        ("apgd-ce", {"n_iter": 25}),
        ("apgd-dlr", {"n_iter": 20, "l1_stages": True}),
        ("apgd-t", {"n_iter": 20, "n_targets": 3, "l1_stages": True}),
        ("fab-t", {"n_iter": 20, "n_targets": 2}),
        ("square", {"n_queries": 60}),
    ],
)
def test_l1_attacks_are_its_own_bit_for_bit(shared_data, attack, options, seed):
    found = both(shared_data, "digits_mlp", "l1", {attack: options}, 80, 50, eps=1.5, seed=seed)
    assert_equal_to_the_bit(found)


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        ("apgd-t", {"n_iter": 15, "n_targets": 2, "l1_stages": True}),
        ("fab-t", {"n_iter": 10, "n_targets": 2}),
        ("square", {"n_queries": 30}),
    ],
)
def test_l1_attacks_on_colour_images_are_its_own_bit_for_bit(shared_data, attack, options):
    found = both(shared_data, "cnn_a_adv4", "l1", {attack: options}, 40, 32, eps=8.0)
    assert_equal_to_the_bit(found)


def test_l1_cascades_are_its_own_bit_for_bit(shared_data):
    attacks = {
        "apgd-ce": {"n_iter": 6, "l1_stages": True},
        "fab-t": {"n_iter": 5, "n_targets": 1},
        "square": {"n_queries": 20},
        "apgd-t": {"n_iter": 20, "n_targets": 4, "l1_stages": True},
    }
    found = both(shared_data, "digits_mlp", "l1", attacks, 80, 50, eps=1.2)
    assert_equal_to_the_bit(found)
    assert len(set(found[0].broken_by) - {None}) >= 3


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("network", "seed"), [("digits_conv", 0), ("digits_mlp", 1)])
def test_the_whole_standard_suite_for_l1_is_its_own(shared_data, network, seed):
    x, y = load_images(shared_data, "digits")
    x, y, model = x[:40].float() / 255, y[:40], load_network(shared_data, network)
    reference = AutoAttack(model, norm="L1", eps=1.5, seed=seed, version="standard")
    x_adv, labels = reference.run_standard_evaluation(x, y, batch_size=25)
    ours = evaluate(model, x, y, ThreatModel("l1", 1.5), seed=seed, batch_size=25, mode="upstream")
    assert_equal_to_the_bit((ours, labels == y, x_adv))


def test_it_depends_on_the_batch_size_as_the_reference_does(shared_data):
    attacks = {"apgd-ce": {"n_iter": 10}}
    found = [both(shared_data, "cnn_a_adv4", "linf", attacks, 48, batch)[0] for batch in (8, 48)]
    assert not torch.equal(found[0].x_adv, found[1].x_adv)
    assert found[0].compute_shape == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mode": "Upstream"}, "mode is one of"), ({"suite": "pgd-20"}, "pgd has no upstream mode")],
)
def test_what_it_cannot_do_is_refused(change, message):
    arguments = {"suite": "sweep-quick", "mode": "upstream"} | change
    x = torch.rand(4, 1, 5, 5)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 3))
    with pytest.raises(ValueError, match=message):
        evaluate(model, x, model(x).argmax(1), ThreatModel("linf", 0.1), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "norm"),
    [
        ("resnet_4b", "l2"),
        ("cnn_a_adv4", "linf"),
        pytest.param("trades_mnist", "linf", marks=pytest.mark.long),
        pytest.param("natural", "l2", marks=pytest.mark.long),
    ],
)
def test_apgd_at_full_budget_gives_its_flags_and_its_points(shared_data, network, norm):
    count = {"trades_mnist": 8, "resnet_4b": 12}.get(network, 50)
    attacks = {"apgd-ce": {"n_restarts": 1}, "apgd-t": {}}
    ours, robust, x_adv = both(shared_data, network, norm, attacks, count, batch=128)
    assert torch.equal(ours.robust, robust)
    if norm == "linf":
        assert torch.equal(ours.x_adv, x_adv)
    else:  # lengths are summed in another order
        torch.testing.assert_close(ours.x_adv, x_adv, rtol=0, atol=1e-5)
