"""The reference engine gives what the package itself gives, with its faults mended."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustray.attacks import AttackSpec, Suite, ThreatModel
from robustray.attacks.engine import Examples
from robustray.attacks.engine.inputs import check_examples
from robustray.errors import UserError
from robustray.evaluation.images import load_images
from robustray.evaluation.record import result_document
from robustray.evaluation.task import Conditions, Task
from robustray.evaluation.units import reference
from robustray.evaluation.units.compute import RangePart, compute
from robustray.evaluation.units.merge import merge
from robustray.evaluation.units.reference import ENGINE, evaluate_reference, run_reference
from robustray.evaluation.units.reference_attacks import ReferenceCall, find_package
from robustray.evaluation.units.store import UnitStore
from robustray.store import LocalStore
from tests.helpers.evaluation_tasks import compute_all, make_task, trained_net

THREATS = {
    "linf": ThreatModel("linf", 0.008),
    "l2": ThreatModel("l2", 0.3),
    "l1": ThreatModel("l1", 3),
}
QUICK = {
    "apgd-ce": {"n_iter": 12},
    "apgd-dlr": {"n_iter": 12},
    "apgd-t": {"n_iter": 12, "n_targets": 9},
    "fab": {"n_iter": 8},
    "fab-t": {"n_iter": 8},
    "square": {"n_queries": 60},
}


def spec(name: str) -> AttackSpec:
    return AttackSpec(name, options=QUICK[name])


def quick_suite() -> Suite:
    return Suite("quick", tuple(spec(name) for name in ("apgd-ce", "apgd-t", "fab-t", "square")))


def network(classes: int = 10) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, classes)
        return nn.Sequential(*layers).eval()


def examples(model: nn.Module, count: int) -> Examples:
    """Images with the labels that the model gives them, so that all are to be broken."""
    x = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return Examples(x, model(x).argmax(1), torch.arange(count))


@pytest.mark.parametrize("norm", THREATS)
def test_verdicts_are_those_of_the_package(norm: str) -> None:
    model, threat = network(), THREATS[norm]
    given = examples(model, 20)
    ours = evaluate_reference(
        model, given.x, given.y_N, threat, quick_suite(), seed=5, batch_size=8
    )
    flags, x_adv = _run_package(model, given, threat, seed=5, batch_size=8)
    assert 0 < flags.sum() < len(flags)
    assert torch.equal(ours.robust, flags)
    broken = ~flags
    torch.testing.assert_close(ours.x_adv[broken], x_adv[broken], rtol=0, atol=1e-5)
    assert threat.contains(ours.x_adv, given.x).all()
    assert [name is None for name in ours.broken_by] == ours.robust.tolist()


def test_a_batch_is_shared_state_in_the_reference() -> None:
    model, threat = network(), THREATS["linf"]
    given = examples(model, 12)
    runs = [
        run_reference(model, given, threat, spec("square"), seed=0, batch_size=size)
        for size in (12, 12, 5)
    ]
    assert torch.equal(runs[0].x_adv, runs[1].x_adv)
    assert not torch.equal(runs[0].x_adv, runs[2].x_adv)


@pytest.mark.parametrize("name", QUICK)
def test_random_state_and_gradients_are_left_alone(name: str) -> None:
    model: Any = network()
    given = examples(model, 4)
    kept = torch.ones_like(model[0].weight)
    model[0].weight.grad = kept
    state = torch.get_rng_state()
    run_reference(model, given, THREATS["linf"], spec(name), seed=3, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert model[0].weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert all(p.grad is None for p in [model[0].bias, *model[3].parameters()])


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("name", QUICK)
def test_few_classes(name: str, classes: int) -> None:
    model, threat = network(classes), ThreatModel("linf", 0.3)
    given = examples(model, 6)
    found = run_reference(model, given, threat, spec(name), seed=0, batch_size=6)
    assert found.success_B.sum() >= 5


class Steadfast(nn.Module):
    """Answers 0 for every image, with gradients."""

    def forward(self, x: Tensor) -> Tensor:
        mean_B1 = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([mean_B1 + 9 - index for index in range(10)], dim=1) * mean_B1.abs()


@pytest.mark.parametrize(
    ("name", "forwards", "backwards"),
    [
        ("apgd-ce", 1 + 13, 13),
        ("apgd-dlr", 1 + 13, 13),
        ("apgd-t", 1 + 9 * (1 + 13), 9 * 13),
        ("fab", 1 + 1 + 2 * 8 + 1, 10 * 8),
        ("fab-t", 1 + 9 * (2 + 2 * 8 + 1), 9 * 8),
        ("square", 1 + 61 + 1, 0),
    ],
)
def test_passes(name: str, forwards: int, backwards: int) -> None:
    given = Examples(torch.rand(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    found = run_reference(Steadfast(), given, THREATS["linf"], spec(name), seed=0, batch_size=2)
    assert not found.success_B.any()
    assert found.forwards_B.tolist() == [forwards + 1] * 3
    assert found.backwards_B.tolist() == [backwards] * 3


class RootedNetwork(nn.Module):
    """Infinite gradients where pixels are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.sqrt())


def test_gradients_that_are_not_finite_are_counted_and_survived() -> None:
    model = RootedNetwork()
    given = examples(model, 4)
    given.x[:, :, 0, 0] = 0
    found = run_reference(model, given, ThreatModel("l2", 3), spec("apgd-ce"), seed=0, batch_size=4)
    assert found.flawed_B.sum() > 0
    assert found.success_B.all()
    assert found.x_adv.isfinite().all()


class Stepped(nn.Module):
    """A network behind rounding, whose gradient is zero; the surrogate leaves rounding out."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x * 32).round() / 32)

    def surrogate(self, x: Tensor) -> Tensor:
        return self.network(x)


def test_gradients_of_the_surrogate() -> None:
    model = Stepped()
    given = examples(model, 6)
    found = run_reference(
        model, given, ThreatModel("linf", 0.1), spec("apgd-ce"), seed=0, batch_size=6
    )
    assert found.success_B.all()
    assert (found.forwards_B == 1 + 2 * 13 + 1).all()


def test_points_outside_are_projected_and_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, threat = network(), ThreatModel("linf", 1e-4)
    given = examples(model, 4)
    far = examples(model, 40)
    other = torch.stack([far.x[(far.y_N != y).nonzero()[0, 0]] for y in given.y_N])
    other[3] = torch.nan
    monkeypatch.setattr(ReferenceCall, "run", lambda *_: other)
    with pytest.warns(UserWarning, match="outside the threat model only; they count as robust"):
        found = run_reference(model, given, threat, spec("apgd-ce"), seed=0, batch_size=4)
    assert found.repaired_B.all()
    assert found.lost_B.all()
    assert not found.success_B.any()
    assert threat.contains(found.x_adv, given.x).all()


def test_the_engine() -> None:
    package = find_package()
    assert ENGINE.identity() == {
        "name": "reference",
        "package": package.name,
        "version": package.version,
    }
    model = network()
    given = examples(model, 20)
    conditions = Conditions(seed=1, compute_shape=8, engine=ENGINE.identity())
    one, two = (
        ENGINE.attack(model, given, THREATS["linf"], spec("apgd-ce"), conditions, batch_size)
        for batch_size in (8, 64)
    )
    assert torch.equal(one.x_adv, two.x_adv)
    assert reference.ENGINE is ENGINE


def test_what_the_engine_refuses() -> None:
    threat = THREATS["linf"]
    with pytest.raises(UserError, match="searches in float32"):
        ENGINE.check(quick_suite(), threat, "bfloat16")
    with pytest.raises(UserError, match="has no pgd"):
        ENGINE.check(Suite("pgd", (AttackSpec("pgd"),)), threat, "float32")
    with pytest.raises(UserError, match="cascades"):
        ENGINE.check(Suite("all", quick_suite().attacks, attack_all=True), threat, "float32")


def test_a_script_called_autoattack_is_not_taken_for_the_package(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = find_package()
    (tmp_path / "autoattack.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "autoattack", raising=False)
    find_package.cache_clear()
    assert find_package() == expected


def _run_package(
    model: nn.Module, given: Examples, threat: ThreatModel, *, seed: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Let the package's own driver run its attacks with the budgets of the quick suite."""
    package = importlib.import_module(find_package().name)
    calls = {s.attack: ReferenceCall.of(s, threat) for s in quick_suite().attacks}
    norm = calls["square"].arguments["norm"]
    driver = package.AutoAttack(model, norm=norm, eps=threat.eps, seed=seed, version="standard")
    parts = {"apgd-ce": "apgd", "apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}
    for name, part in parts.items():
        made = type(getattr(driver, part))
        setattr(driver, part, made(model, seed=seed, device="cpu", **calls[name].arguments))
    with torch.random.fork_rng(devices=[]):
        x_adv, predicted = driver.run_standard_evaluation(given.x, given.y_N, batch_size=batch_size)
    model.zero_grad()
    return predicted == given.y_N, x_adv


@pytest.fixture
def reference_task(tmp_path) -> Task:
    """Two ranges of digits under one attack of the reference."""
    suite = Suite("short", (AttackSpec("apgd-ce", options={"n_iter": 5}),))
    task = make_task(tmp_path, 30, suite=suite, eps=0.05)
    conditions = dataclasses.replace(task.conditions, engine=dict(ENGINE.identity()))
    return dataclasses.replace(task, conditions=conditions)


def test_ranges_that_travel_together_are_attacked_one_by_one(reference_task) -> None:
    task, model, images = reference_task, trained_net(), load_images(reference_task.data, None)
    parts = []
    for range_ in task.ranges:
        chosen = images.select(slice(range_.start, range_.stop))
        given = check_examples(chosen.x_NCHW, chosen.y_N, chosen.index_N)
        (clean,) = compute(task, 0, model, [RangePart(given, None)], 64)
        parts.append(RangePart(given, clean.verdicts))
    together = compute(task, 1, model, parts, 64)
    alone = [compute(task, 1, model, [part], 64)[0] for part in parts]
    assert [found.verdicts.to_bytes() for found in together] == [
        found.verdicts.to_bytes() for found in alone
    ]
    assert 0 < together[0].verdicts.robust.sum() < 30


def test_records_tell_what_was_repaired_and_lost(reference_task, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ReferenceCall, "run", lambda call, model, part, *_: part.x.roll(1, 0))
    with pytest.warns(UserWarning, match="outside the threat model only"):
        units = compute_all(reference_task, UnitStore(LocalStore(tmp_path / "store")))
    merged = merge(reference_task, units)
    (summary,) = merged.attacks
    assert summary.repaired >= summary.lost > 0
    assert summary.repaired == sum(unit.record.counts.get("repaired", 0) for unit in units)
    document = result_document(reference_task, merged, suite="short", data={}, findings=[])
    assert document["attacks"][0]["lost"] == summary.lost
    (found,) = [f for f in document["audit"] if f["check"] == "outside_threat"]
    assert found["severity"] == "warning"
    assert found["measured"] == summary.lost


def test_rude_models_are_refused_here_too() -> None:
    model = network()
    given = examples(model, 8)

    def rude(x: Tensor) -> Tensor:
        with torch.no_grad():
            x.mul_(2)
        return model(x)

    x = given.x.clone()
    with pytest.raises(ValueError, match="the model changes its input in place"):
        evaluate_reference(rude, x, given.y_N, THREATS["linf"], quick_suite(), batch_size=8)
    assert torch.equal(x, given.x)


def test_luck_and_lengths_are_told_here_too() -> None:
    given = examples(network(), 8)

    def drawing(x: Tensor) -> Tensor:
        torch.rand(1)
        return network()(x)

    case = (drawing, given.x, given.y_N)
    square = [spec("square")]
    with torch.random.fork_rng(devices=[]), pytest.warns(UserWarning, match="uses random numbers"):
        found = evaluate_reference(*case, THREATS["linf"], square, batch_size=8, check=False)
    assert found.findings == ()
    with pytest.raises(ValueError, match="longer than the l2 diameter"):
        evaluate_reference(*case, ThreatModel("l2", 500.0), square)


def test_a_model_that_seeds_generators_leaves_the_reference_its_own_numbers() -> None:
    model = network()
    given = examples(model, 12)

    def seeding(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return model(x)

    case = (given, ThreatModel("linf", 0.03), spec("square"))
    with torch.random.fork_rng(devices=[]):
        found = run_reference(seeding, *case, seed=5, batch_size=12)
    plain = run_reference(model, *case, seed=5, batch_size=12)
    assert 0 < plain.success_B.sum() < len(given)
    assert torch.equal(found.success_B, plain.success_B)
