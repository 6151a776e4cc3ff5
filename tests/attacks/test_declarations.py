"""An attack is declared once: its function, its checks, its cost and its types follow from that."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass

import pytest
import torch

import robustray.attacks
from robustray.attacks import (
    AttackResult,
    AttackSpec,
    BatchAttack,
    Passes,
    ThreatModel,
    attack_suite,
    evaluate,
    list_attacks,
    list_suites,
    register_attack,
)
from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.network import Model, is_fooled
from robustray.random import ExampleRandom
from robustray.registry import ATTACKS
from scripts.write_stubs import STUB, render_stub
from tests.helpers.linear_networks import Linear, interior

SMALL = {
    "fgsm": {"eot": 3},
    "pgd": {"steps": 3, "restarts": 2, "eot": 2, "loss": "kl"},
    "apgd-ce": {"n_iter": 4, "n_restarts": 2, "eot": 2},
    "apgd-dlr": {"n_iter": 4},
    "apgd-t": {"n_iter": 4, "n_targets": 9, "n_restarts": 2},
    "fab": {"n_iter": 3, "n_restarts": 2},
    "fab-t": {"n_iter": 3, "n_targets": 2, "n_restarts": 2},
    "square": {"n_queries": 7, "n_restarts": 2},
    "stadv": {"n_iter": 4},
    "fmn": {"n_iter": 4},
    "deepfool": {"n_iter": 4},
}


@pytest.mark.parametrize("name", SMALL)
def test_what_an_unbroken_image_takes_is_what_the_declaration_says(name):
    model, x = Linear((3, 6, 6), 4).float(), interior((3, 6, 6), 3).float()
    model.weight_KD, model.bias_K = model.weight_KD.float() * 1e-3, model.bias_K.float()
    model.bias_K[2] += 5.0
    y = model(x).argmax(1)
    spec = AttackSpec(name, options=SMALL[name])
    found = evaluate(model, x, y, ThreatModel("linf", 0.01), [spec], compute_shape=8, check=False)
    assert bool(found.robust.all())
    expected = spec.passes(classes=4)
    assert found.forwards.tolist() == [1 + expected.forwards] * 3
    assert found.backwards.tolist() == [expected.backwards] * 3


@pytest.mark.parametrize("name", ["fmn", "ddn", "deepfool"])
def test_confirmations_of_another_search_are_what_the_declaration_says(name):
    layer = torch.nn.Linear(108, 4)
    with torch.no_grad():
        layer.weight.mul_(1e-3)
        layer.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    x, y = interior((3, 6, 6), 3).float(), torch.full((3,), 2)
    spec, threat = AttackSpec(name, options={"n_iter": 4}), ThreatModel("l2", 0.01)
    other = {"search_dtype": "bfloat16", "compute_shape": 8, "check": False}
    found = evaluate(model, x, y, threat, [spec], **other)  # pyright: ignore[reportArgumentType]
    expected = spec.passes(classes=4).forwards + spec.make(threat).confirmations()
    assert found.forwards.tolist() == [1 + expected] * 3
    assert spec.make(threat).confirmations() == 4


def test_stages_and_adam_are_counted_too():
    model, x = Linear((24,), 4).float(), interior((24,), 3).float()
    model.weight_KD, model.bias_K = model.weight_KD.float() * 1e-3, model.bias_K.float()
    model.bias_K[2] += 5.0
    for spec, threat in (
        (AttackSpec("apgd-t", options={"n_iter": 5, "l1_stages": True}), ThreatModel("l1", 0.1)),
        (AttackSpec("cw-l2", options={"n_iter": 1, "search_steps": 2}), ThreatModel("l2", 0.1)),
        (AttackSpec("ddn", options={"n_iter": 5, "radius": 0.1}), ThreatModel("l2", 0.1)),
        (AttackSpec("fmn", options={"n_iter": 5}), ThreatModel("l0", 1)),
    ):
        found = evaluate(model, x, model(x).argmax(1), threat, [spec], compute_shape=8, check=False)
        expected = spec.passes(classes=4)
        assert found.forwards.tolist() == [1 + expected.forwards] * 3, spec.name
        assert found.backwards.tolist() == [expected.backwards] * 3, spec.name


@pytest.mark.parametrize("name", list_attacks())
def test_functions_show_the_options_that_suites_take(name):
    function = getattr(robustray.attacks, name.replace("-", "_"))
    shown = inspect.signature(function).parameters
    common = {"model", "x", "y", "threat", "rng", "index"}
    defaults = {key: p.default for key, p in shown.items() if key not in common}
    assert defaults == AttackSpec(name).describe()["options"]
    assert list(defaults) == list(AttackSpec(name).describe()["options"])
    assert function.__name__ == name.replace("-", "_")
    assert set(typing.get_type_hints(function)) == {*shown, "return"}
    described = inspect.getdoc(function) or ""
    assert f'ExampleRandom(0, "{name}")' in described
    for option in shown:
        assert f"\n{option} : " in described, option
    for hidden in {"loss", "n_targets"} - set(shown):
        assert f"\n{hidden} : " not in described


def test_functions_refuse_what_they_do_not_show():
    x = torch.zeros(1, 1, 2, 2)
    arguments = (lambda x: x.flatten(1), x, torch.zeros(1).long(), ThreatModel("linf", 0.1))
    for function, option in (
        (robustray.attacks.pgd, "n_iter"),
        (robustray.attacks.apgd_ce, "loss"),
    ):
        with pytest.raises(TypeError, match=rf"{function.__name__}\(\) .*argument '{option}'"):
            function(*arguments, **{option: 1})  # pyright: ignore[reportArgumentType]


def test_type_checkers_see_what_the_declarations_say():
    assert STUB.read_text() == render_stub(), "run: python scripts/write_stubs.py"


@pytest.mark.parametrize("suite", list_suites())
def test_every_suite_knows_what_it_costs(suite):
    assert all(spec.passes().forwards > 0 for spec in attack_suite(suite).attacks)


@dataclass(frozen=True, kw_only=True)
class Jump(BatchAttack):
    """Jump by eps in random directions; the first that misleads the model counts.

    Parameters
    ----------
    tries : int
        How many jumps, at least 1.

    Returns
    -------
    AttackResult
        The last jump.
    """

    tries: int = 4

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries is at least 1, not {self.tries}")

    def check(self, threat: ThreatModel) -> None:
        if threat.norm != "linf":
            raise ValueError(f"jumps are for linf, not {threat.norm}")

    def passes(self, classes: int = 10) -> Passes:
        return Passes(self.tries, 0)

    def run(
        self, model: Model, examples: Examples, threat: ThreatModel, rng: ExampleRandom
    ) -> AttackResult:
        x, y, index = examples.x, examples.y_N, examples.index_N
        x_adv, fooled_B = x, torch.zeros_like(y, dtype=torch.bool)
        zero_B, tried_B = torch.zeros_like(y), torch.zeros_like(y)
        for number in range(self.tries):
            jump = threat.project(x + threat.eps * rng.signs(index, tuple(x.shape[1:]), number), x)
            tried_B += ~fooled_B
            x_adv = torch.where(fooled_B[:, None, None, None], x_adv, jump)
            fooled_B = fooled_B | is_fooled(model, x_adv, y, 1)
        return AttackResult(x_adv, fooled_B, tried_B, zero_B, zero_B.clone())


@pytest.fixture
def jump():
    yield register_attack("jump", Jump)
    ATTACKS._entries.pop("jump")


def test_a_declaration_of_ones_own_is_an_attack_like_the_others(jump):
    model, x = Linear((3, 6, 6), 3).float(), interior((3, 6, 6), 6).float()
    model.weight_KD, model.bias_K = model.weight_KD.float(), model.bias_K.float()
    y, threat = model(x).argmax(1), ThreatModel("linf", 0.2)
    spec = AttackSpec("jump", options={"tries": 6})
    found = evaluate(model, x, y, threat, [spec], compute_shape=8, check=False)
    direct = jump(model, x, y, threat, tries=6)
    assert torch.equal(found.x_adv, direct.x_adv)
    assert torch.equal(found.robust, ~direct.success_B)
    assert spec.describe()["options"] == {"tries": 6}
    assert spec.passes().forwards == 6
    with pytest.raises(ValueError, match="attack jump: tries is at least 1, not 0"):
        AttackSpec("jump", options={"tries": 0}).check(threat)
    with pytest.raises(ValueError, match="attack jump: jumps are for linf, not l2"):
        spec.check(ThreatModel("l2", 1.0))
    assert "first that misleads" in (inspect.getdoc(jump) or "")


def test_declarations_need_defaults():
    @dataclass(frozen=True, kw_only=True)
    class Bare(Jump):
        size: float

    with pytest.raises(ValueError, match="attack Bare: size has no default"):
        register_attack("bare", Bare)
    with pytest.raises(ValueError, match="attack Jump: it has no option length"):
        register_attack("bare", Jump, length=3)
    assert "bare" not in list_attacks()
