"""Cascades and independent suites: whom each attack runs on, and what its column means."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustray.attacks import (
    AttackSpec,
    Column,
    Suite,
    ThreatModel,
    attack_suite,
    evaluate,
    independent_suite,
)

THREAT = ThreatModel("linf", 0.06)
WEAK = AttackSpec("weak", "pgd", {"steps": 1, "start": "none"})
STRONG = AttackSpec("strong", "pgd", {"steps": 10, "loss": "dlr"})
PAIR = Suite("pair", (AttackSpec("weak", "pgd", {"steps": 3}), AttackSpec("fgsm")))
MEMBERS = ["fgsm", WEAK, STRONG, PAIR]


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 24), nn.ReLU(), nn.Linear(24, 5)).eval()
    x = torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    y[::5] = (y[::5] + 1) % 5
    return model, x, y


def judged(problem, suite, **settings):
    model, x, y = problem
    given = {"compute_shape": 8, "batch_size": 16, "check": False}
    return evaluate(model, x, y, THREAT, suite, **given, **settings)


def test_each_column_is_what_its_attacks_leave_alone(problem):
    result = judged(problem, MEMBERS, suite_mode="independent")
    alone = {
        name: judged(problem, [one]) for name, one in zip(result.robust_under, MEMBERS, strict=True)
    }
    assert list(alone) == ["fgsm", "weak", "strong", "pair"]
    for name, other in alone.items():
        assert torch.equal(result.robust_under[name], other.robust), name
        assert result.accuracy_under[name] == other.robust_accuracy
    assert torch.equal(result.robust, torch.stack([*result.robust_under.values()]).all(0))
    assert not result.robust_under["fgsm"][~result.clean_correct].any()
    assert len(set(result.accuracy_under.values())) > 2, "the example shows nothing"
    spent = torch.stack([other.forwards - 1 for other in alone.values()]).sum(0)
    assert torch.equal(result.forwards, 1 + spent)


def test_the_worst_case_is_that_of_the_cascade(problem):
    independent = judged(problem, MEMBERS[:3], suite_mode="independent")
    cascade = judged(problem, MEMBERS[:3])
    assert (independent.mode, cascade.mode) == ("independent", "cascade")
    assert torch.equal(independent.robust, cascade.robust)
    assert independent.broken_by == cascade.broken_by
    broken = torch.tensor([name is not None for name in cascade.broken_by])
    assert torch.equal(independent.x_adv[broken], cascade.x_adv[broken])
    assert list(cascade.robust_under) == ["custom"]
    assert independent.forwards.sum() > cascade.forwards.sum()


def test_the_order_of_the_columns_changes_no_column(problem):
    there = judged(problem, MEMBERS, suite_mode="independent")
    back = judged(problem, MEMBERS[::-1], suite_mode="independent")
    assert there.accuracy_under == back.accuracy_under


def test_what_broke_an_image_within_a_longer_column_is_told_with_it(problem):
    result = judged(problem, [PAIR, "fgsm"], suite_mode="independent")
    assert set(result.broken_by) <= {None, "pair/weak", "pair/fgsm", "fgsm"}
    assert "pair/weak" in result.broken_by


def test_a_named_suite_within_a_list_is_one_column():
    suite = attack_suite(["fgsm", "pgd-20", "autoattack-standard"], suite_mode="independent")
    assert suite.columns == (
        Column("fgsm", 0, 1), Column("pgd-20", 1, 2), Column("autoattack-standard", 2, 6),
    )  # fmt: skip
    assert suite.labels[2:4] == ["autoattack-standard/apgd-ce", "autoattack-standard/apgd-t"]
    assert not suite.attack_all
    assert suite.describe()["columns"][2] == {"name": "autoattack-standard", "start": 2, "stop": 6}


def test_nested_independent_suites_bring_their_columns():
    row = attack_suite("published-table")
    more = attack_suite([row, "sweep-quick"], suite_mode="independent")
    names = ["fgsm", "pgd-20", "cw-40", "autoattack-standard", "sweep-quick"]
    assert [column.name for column in more.columns] == names
    assert len(more.attacks) == len(row.attacks) + 2
    flat = attack_suite(["published-table"])
    assert (flat.mode, len(flat.attacks)) == ("cascade", len(row.attacks))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_published_row_holds_the_attacks_of_its_suites(norm):
    row = attack_suite("published-table", norm)
    assert row.mode == "independent"
    for column in row.columns:
        own = attack_suite(column.name, norm)
        assert row.attacks[column.start : column.stop] == own.attacks
    assert attack_suite("published-table", norm, "cascade").columns == ()


def test_a_suite_keeps_its_own_mode_unless_another_is_asked_for():
    quick = attack_suite("sweep-quick")
    assert quick.mode == "cascade", "as it always was"
    assert attack_suite("sweep-quick", suite_mode="cascade") is quick
    apart = attack_suite("sweep-quick", suite_mode="independent")
    assert [column.name for column in apart.columns] == ["apgd-ce", "apgd-t"]
    assert attack_suite("pgd-20").mode == "all"
    assert attack_suite("pgd-20", suite_mode="independent").mode == "independent"


def test_an_independent_suite_becomes_a_cascade_of_different_attacks():
    other = replace(WEAK, options={"steps": 2})
    columns = (Column("a", 0, 2), Column("b", 2, 4), Column("c", 4, 5))
    apart = Suite("mine", (WEAK, STRONG, WEAK, STRONG, other), columns=columns)
    cascade = attack_suite(apart, suite_mode="cascade")
    assert cascade.attacks == (WEAK, STRONG, replace(other, name=f"c/{WEAK.name}"))
    assert cascade.mode == "cascade"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="suite_mode is one of cascade, independent, not 'single'"):
        attack_suite(["fgsm"], suite_mode="single")
    with pytest.raises(ValueError, match="columns with different names"):
        attack_suite(["fgsm", "fgsm"], suite_mode="independent")
    with pytest.raises(ValueError, match="attacks with different names"):
        attack_suite(["fgsm", "published-table"])
    specs = (WEAK, STRONG)
    for columns in ((Column("a", 0, 1),), (Column("a", 0, 2), Column("b", 1, 2))):
        with pytest.raises(ValueError, match="do not lie one after another"):
            Suite("mine", specs, columns=columns)
    with pytest.raises(ValueError, match="attack_all is for suites without columns"):
        Suite("mine", specs, attack_all=True, columns=(Column("a", 0, 2),))
    assert independent_suite("mine", [PAIR]).mode == "independent"
