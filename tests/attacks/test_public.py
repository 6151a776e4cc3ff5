"""What can be imported from robustray.attacks, and called as a plain function."""

import inspect

import pytest
import torch

import robustray.attacks
from robustray.attacks import (
    AttackResult,
    AttackSpec,
    ThreatModel,
    autoattack,
    evaluate,
    list_attacks,
)
from robustray.attacks.registry import find_attack
from robustray.random import ExampleRandom
from tests.helpers.linear_networks import Linear, interior

BUDGET = {"n_iter": 5, "n_queries": 20, "steps": 5}


def call(name, *arguments, **options):
    """Call an attack as a function, with a small budget."""
    attack = getattr(robustray.attacks, name.replace("-", "_"))
    known = inspect.signature(attack).parameters
    small = {option: value for option, value in BUDGET.items() if option in known}
    return attack(*arguments, **small, **options)


EPS = {"linf": 0.01, "l2": 0.1, "l1": 1.0, "l0": 3}
CASES = [
    (name, norm)
    for name in list_attacks()
    for norm in find_attack(name).make().norms
    if name != "apgd-mixture" and (name != "cw-l2" or norm == "l2")
]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_each_attack_is_a_function_of_its_name(name, norm):
    model, x = Linear((3, 6, 6), 4), interior((3, 6, 6), 5)
    y, threat = model(x).argmax(1), ThreatModel(norm, EPS[norm])
    found = call(name, model, x, y, threat)
    again = call(name, model, x, y, threat, rng=ExampleRandom(0, name), index=torch.arange(5))
    assert isinstance(found, AttackResult)
    assert torch.equal(found.x_adv, again.x_adv)
    assert bool(threat.contains(found.x_adv, x).all())
    assert torch.equal(found.success_B, model(found.x_adv).argmax(1) != y)


def test_the_attack_of_mixed_classifiers_refuses_others():
    model, x = Linear((3, 6, 6), 4), interior((3, 6, 6), 5)
    with pytest.raises(ValueError, match="mixed classifiers"):
        call("apgd-mixture", model, x, model(x).argmax(1), ThreatModel("linf", 0.01))


@pytest.mark.parametrize("name", robustray.attacks.__all__)
def test_no_public_name_is_a_module(name):
    assert not inspect.ismodule(getattr(robustray.attacks, name))


def test_autoattack_is_the_suite_of_its_version():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    x = torch.rand(6, 3, 4, 4)
    y, threat = model(x).argmax(1), ThreatModel("linf", 0.02)
    found = autoattack(model, x, y, threat, version="rand", seed=3, compute_shape=8)
    assert found.suite == "autoattack-rand"
    assert torch.equal(
        found.x_adv, evaluate(model, x, y, threat, found.suite, seed=3, compute_shape=8).x_adv
    )
    with pytest.raises(ValueError, match="version is one of standard, plus, rand, not 'custom'"):
        autoattack(model, x, y, threat, version="custom")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40,), (3, 6, 6)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_examples_of_any_rank_and_models_more_precise_than_their_images(norm, shape, dtype):
    exact, x = Linear(shape, 5), interior(shape, 20)
    y = exact(x).argmax(1)
    distance_BK = -exact.best_margins(x, y, norm, 0.0)
    slope_BK = exact.best_margins(x, y, norm, 1.0) + distance_BK
    distance_B = (distance_BK / slope_BK).nan_to_num(torch.inf).amin(1)
    threat = ThreatModel(norm, distance_B.median().item() * 1.02)
    attacks = {name: {"n_iter": 30} for name in ("apgd-dlr", "apgd-t", "fab", "fab-t")}
    if len(shape) == 3:
        attacks["square"] = {"n_queries": 400}
    for name, options in attacks.items():
        spec = AttackSpec(name, options=options)
        found = evaluate(lambda x: exact(x.double()), x.to(dtype), y, threat, [spec], batch_size=8)
        assert found.x_adv.dtype == dtype
        assert (distance_B[~found.robust] <= threat.eps * 1.0001).all()
        missed = found.robust.sum() - (distance_B > threat.eps).sum()
        assert missed <= (7 if name == "square" else 2)
