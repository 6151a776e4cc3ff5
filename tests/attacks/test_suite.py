import json

import pytest

from robustray.attacks import (
    AttackSpec,
    Suite,
    ThreatModel,
    attack_suite,
    list_attacks,
    list_suites,
    register_attack,
    register_suite,
)


def test_the_study_suites_are_known():
    assert {"fgsm", "pgd-10", "pgd-20", "cw-40"} <= set(list_suites())
    assert {"fgsm", "pgd"} <= set(list_attacks())
    assert all(attack_suite(name).attack_all for name in ("fgsm", "pgd-20", "cw-40"))


def test_suites_describe_their_whole_budget_as_plain_data():
    described = attack_suite("cw-40").describe()
    assert json.loads(json.dumps(described)) == {
        "name": "cw-40",
        "attack_all": True,
        "attacks": [
            {
                "name": "cw-40",
                "attack": "pgd",
                "options": {
                    "steps": 40,
                    "step_size": None,
                    "loss": "cw_margin",
                    "start": "study",
                    "restarts": 1,
                    "eot": 1,
                },
            }
        ],
    }


def test_lists_become_cascades():
    strong = AttackSpec("strong", "pgd", {"steps": 50, "restarts": 5})
    suite = attack_suite(["fgsm", "pgd-20", strong])
    assert [spec.name for spec in suite.attacks] == ["fgsm", "pgd-20", "strong"]
    assert not suite.attack_all
    assert attack_suite(suite) is suite


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"suite is one of .*pgd-20.*not 'autoatack'"):
        attack_suite("autoatack")
    with pytest.raises(ValueError, match=r"attack is one of apgd-ce, .*fgsm, fmn, pgd.*not 'bim'"):
        AttackSpec("bim")


def test_options_that_an_attack_lacks_are_refused():
    with pytest.raises(ValueError, match="pgd has no option 'n_steps'; it has: steps, step_size"):
        AttackSpec("mine", "pgd", {"n_steps": 10})
    with pytest.raises(ValueError, match="fgsm has no option 'index'; it has: eot"):
        AttackSpec("fgsm", options={"index": 1})


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        ("pgd", {"steps": "many"}, "pgd: steps is a whole number, not 'many'"),
        ("pgd", {"steps": 2.5}, "pgd: steps is a whole number, not 2.5"),
        ("pgd", {"steps": True}, "pgd: steps is a whole number, not True"),
        ("pgd", {"step_size": "8/255"}, "pgd: step_size is a number, not '8/255'"),
        ("pgd", {"loss": 3}, "pgd: loss is a word, not 3"),
        ("square", {"p_init": None}, "square: p_init is a number, not None"),
        ("apgd-ce", {"l1_stages": 1}, "apgd-ce: l1_stages is true or false, not 1"),
    ],
)
def test_options_of_another_kind_are_refused(attack, options, message):
    with pytest.raises(ValueError, match=message):
        AttackSpec("mine", attack, options)
    assert AttackSpec("mine", "pgd", {"step_size": None}).describe()["options"]["step_size"] is None


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        ("pgd", {"steps": 0}, "mine: steps, restarts and eot are at least 1"),
        ("pgd", {"loss": "hinge"}, "mine: loss is one of"),
        ("fgsm", {"eot": 0}, "mine: eot is at least 1"),
        ("apgd-ce", {"n_iter": 0}, "mine: n_iter is at least 1"),
        ("apgd-t", {"l1_stages": True}, "mine: l1_stages is for l1, not linf"),
        ("fab", {"n_restarts": 0}, "mine: n_iter and n_restarts are at least 1"),
        ("square", {"p_init": 2.0}, r"mine: p_init is in \(0, 1\]"),
    ],
)
def test_budgets_are_checked_before_anything_runs(attack, options, message):
    with pytest.raises(ValueError, match=message):
        AttackSpec("mine", attack, options).check(ThreatModel("linf", 0.1))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("suite", list_suites())
def test_budgets_of_known_suites_are_in_range(suite, norm):
    for spec in attack_suite(suite, norm).attacks:
        if spec.attack == "apgd-mixture" and norm != "linf":
            with pytest.raises(ValueError, match=f"{spec.name}: this attack is for linf"):
                spec.check(ThreatModel(norm, 0.1))
        else:
            spec.check(ThreatModel(norm, 0.1))


def test_a_suite_needs_attacks_with_different_names():
    with pytest.raises(ValueError, match="different names"):
        attack_suite(["fgsm", "fgsm"])
    with pytest.raises(ValueError, match="different names"):
        Suite("empty", ())


def test_specs_cannot_be_changed():
    options = {"steps": 3}
    spec = AttackSpec("mine", "pgd", options)
    options["steps"] = 300
    assert spec.options["steps"] == 3
    with pytest.raises(TypeError):
        spec.options["steps"] = 4  # pyright: ignore[reportIndexIssue]


def test_names_are_registered_once():
    with pytest.raises(ValueError, match="registered already"):
        register_suite(Suite("pgd-20", (AttackSpec("fgsm"),)))
    with pytest.raises(ValueError, match="registered already"):
        register_attack("pgd", lambda *_: None)  # pyright: ignore[reportArgumentType]
