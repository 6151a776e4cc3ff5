"""Independent suites in evaluations: keys, what waits for what, columns, and what is said."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robustray.attacks import AttackSpec, Suite, attack_suite, evaluate
from robustray.cli import main
from robustray.evaluation import task as tasks
from robustray.evaluation.agenda import Work, attack_passes, make_agenda, task_passes, valid_records
from robustray.evaluation.images import load_images
from robustray.evaluation.pictures.exhibits import find_exhibits
from robustray.evaluation.plan import read_images
from robustray.evaluation.record import metrics_of, result_document, summary_text
from robustray.evaluation.task import Conditions, Range, Subject, Task
from robustray.evaluation.units.merge import MergeError, merge
from robustray.evaluation.units.store import UnitStore
from robustray.manifest import JudgedData
from robustray.store import LocalStore
from tests.evaluation.test_commands import NET, here
from tests.evaluation.test_run import evaluate as run
from tests.evaluation.test_run import monkeypatch_module, tracking
from tests.helpers.evaluation_tasks import (
    SHAPE,
    THREAT,
    compute_all,
    digits,
    make_task,
    small_net,
    trained_net,
)

__all__ = ["here", "monkeypatch_module", "tracking"]

pytestmark = pytest.mark.timeout(600)

WEAK = AttackSpec("weak", "pgd", {"steps": 1, "step_size": 0.05, "start": "none"})
DLR = AttackSpec("dlr", "pgd", {"steps": 4, "loss": "dlr"})
BLACK = AttackSpec("black", "square", {"n_queries": 40})
PAIR = Suite("pair", (AttackSpec("pgd", "pgd", {"steps": 2}), BLACK))
MEMBERS = [WEAK, "fgsm", DLR, PAIR]
SUITE = attack_suite(MEMBERS, suite_mode="independent")
DATA = {"name": "digits", "label": "digits test[:60]", "split": "test", "sha256": "0"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    task = make_task(folder, 20, suite=SUITE, adversarial="first 8")
    units = UnitStore(LocalStore(folder / "store"))
    return folder, task, units, compute_all(task, units)


def result_of(task, merged):
    return result_document(task, merged, suite="custom", data=DATA, findings=[])


def test_the_keys_of_cascades_are_what_they_were(monkeypatch):
    """Units of stores from before independent suites are found again."""
    monkeypatch.setattr(tasks, "ENGINE_VERSION", 1)
    quick = attack_suite("sweep-quick")
    task = Task(
        "", Subject({"factory": "a:b"}, "0" * 64), JudgedData(name="digits", first=8),
        (Range(0, 8, "1" * 64),), "linf", 0.1, tuple(spec.describe() for spec in quick.attacks),
        False, Conditions(0, 16, {"name": "robustray"}),
    )  # fmt: skip
    assert [unit.prefix.partition("/")[2][17:33] for unit in task.units()] == [
        "7d10e657db06c08c", "89660d1518aa892f", "b9a5575f4307f226",
    ]  # fmt: skip


def test_a_columns_units_are_those_of_its_attacks_as_a_cascade(tmp_path):
    task = make_task(tmp_path, 20, suite=SUITE)
    for column in SUITE.columns:
        own = SUITE.attacks[column.start : column.stop]
        alone = make_task(tmp_path, 20, suite=Suite("other", own))
        for range_ in task.ranges:
            shared = task.chain(range_)[column.start + 1 : column.stop + 1]
            assert [u.prefix for u in shared] == [u.prefix for u in alone.chain(range_)[1:]]
    cascade = make_task(tmp_path, 20, suite=attack_suite(MEMBERS))
    ours, theirs = ({u.prefix for u in t.units()} for t in (task, cascade))
    assert len(ours & theirs) == 6, "the clean pass and the first attack of three ranges"


def test_the_table_is_that_of_one_evaluation_in_a_notebook(made):
    _, task, _, loaded = made
    images = load_images(digits(), None)
    expected = evaluate(
        trained_net(), images.x_NCHW, images.y_N, THREAT, MEMBERS,
        index=images.index_N, compute_shape=SHAPE, suite_mode="independent",
    )  # fmt: skip
    merged = merge(task, loaded)
    assert merged.columns["robust"].tolist() == expected.robust.tolist()
    assert merged.columns["broken_by"].tolist() == expected.broken_by
    assert merged.columns["forwards"].tolist() == expected.forwards.tolist()
    result = result_of(task, merged)
    assert {c["name"]: c["accuracy"] for c in result["columns"]} == expected.accuracy_under
    assert len(set(expected.accuracy_under.values())) > 2, "the example shows nothing"
    assert result["suite"]["mode"] == "independent"
    attacked = {a["label"]: a["attacked"] for a in result["attacks"]}
    correct = result["clean"]["correct"]
    assert [attacked[name] for name in ("weak", "fgsm", "dlr", "pair/pgd")] == [correct] * 4
    assert attacked["pair/black"] < correct
    numbers = metrics_of(result)
    assert numbers["under.pair"] == numbers["after.pair/black"] == result["columns"][3]["accuracy"]


def test_the_summary_has_the_row_and_says_what_it_is(made):
    _, task, _, loaded = made
    text = summary_text(result_of(task, merge(task, loaded)))
    assert "independent: each column begins with all correctly classified images" in text
    lines = text.splitlines()
    head = next(
        k
        for k, line in enumerate(lines)
        if line.split() == ["clean", "weak", "fgsm", "dlr", "pair"]
    )
    assert lines[head + 1].count("%") == 5
    cascade = make_task(made[0], 20, suite=attack_suite(["fgsm", WEAK]))
    said = summary_text(result_of(cascade, merge(cascade, [], allow_partial=True)))
    assert "a cascade: each attack runs on what those before have left" in said


def test_a_gap_in_one_column_is_none_in_another(made):
    _, task, _, loaded = made
    some = [u for u in loaded if (u.unit.range.start, u.unit.position) != (20, 4)]
    with pytest.raises(MergeError, match=r"images 20 to 39 lack pair/pgd, pair/black$"):
        merge(task, some)
    merged = merge(task, some, allow_partial=True)
    result = result_of(task, merged)
    whole = result_of(task, merge(task, loaded))
    accuracies = [column["accuracy"] for column in result["columns"]]
    assert accuracies == [c["accuracy"] for c in whole["columns"][:3]] + [None]
    low, high = result["bounds"]
    assert low <= whole["robust"]["accuracy"] <= high
    robust = merged.columns["robust"]
    decided = np.array([value is not None for value in robust])
    assert (robust[decided] == merge(task, loaded).columns["robust"][decided]).all()
    assert decided.sum() < 60


def test_a_column_that_continued_from_other_verdicts_is_refused_and_discarded(made):
    folder, task, _, loaded = made
    last = loaded[-1]
    record = dataclasses.replace(last.record, previous="0" * 64)
    with pytest.raises(MergeError, match="pair/black continued from other verdicts"):
        merge(task, [*loaded[:-1], dataclasses.replace(last, record=record)])
    units = UnitStore(LocalStore(folder / "other"))
    compute_all(task, units)
    key = f"{last.unit.prefix}/record.json"
    units.store.delete(key)
    units.store.put(key, record.to_bytes())
    left = valid_records(task, units)
    assert last.unit.prefix not in left
    assert len(left) == len(loaded) - 1


def test_columns_wait_for_the_clean_pass_and_the_audit_only(made, tmp_path):
    _, task, *_ = made
    images = read_images(digits(), None).split
    work = Work(task, images)
    agenda = make_agenda([work], UnitStore(LocalStore(tmp_path)))
    for range_ in task.ranges:
        clean, weak, fgsm, dlr, first, second = task.chain(range_)
        for unit in (weak, fgsm, dlr, first):
            assert set(agenda.nodes[unit.prefix].after) == {clean.prefix, work.audit_key}
            assert agenda.orders[unit.prefix] == (unit, clean)
        assert agenda.nodes[second.prefix].after == (first.prefix,)


def test_units_that_two_columns_share_are_computed_once(tmp_path):
    quick = attack_suite("sweep-quick")
    first = Suite("first", quick.attacks[:1])
    task = make_task(tmp_path, 60, suite=attack_suite([first, quick], suite_mode="independent"))
    agenda = make_agenda(
        [Work(task, read_images(digits(), None).split, audited=False)],
        UnitStore(LocalStore(tmp_path / "s")),
    )
    assert len(list(task.units())) == 4
    assert len(agenda.nodes) == 3


def test_black_box_attacks_are_held_against_all_gradient_attacks(made):
    _, task, _, loaded = made
    merged = merge(task, loaded)
    audit = {f["check"]: f for f in result_of(task, merged)["audit"]}
    black = merged.columns["status.pair/black"] == "broken"
    white = np.any([merged.columns[f"status.{n}"] == "broken" for n in ("weak", "fgsm", "dlr")], 0)
    white |= merged.columns["status.pair/pgd"] == "broken"
    assert audit["black_box"]["measured"] == (black & ~white).sum() / 60


def test_broken_images_of_an_independent_suite_are_shown(made):
    _, task, units, loaded = made
    exhibits = find_exhibits(merge(task, loaded), loaded, units, read_images(digits(), None), task)
    assert len(exhibits) == 8
    for exhibit in exhibits:
        assert exhibit.attack in task.labels
        assert np.abs(exhibit.adversarial - exhibit.clean).max() <= task.eps + 1e-7


def test_every_column_is_charged_for_all_correct_images():
    attacks = [spec.describe() for spec in SUITE.attacks]
    each = [attack_passes(attack, 10).forwards for attack in attacks]
    total = task_passes(
        attacks, 100, classes=10, attack_all=False, columns=SUITE.columns, clean=0.8, robust=0.5
    )
    assert total.forwards == pytest.approx(100 + 80 * sum(each[:4]) + 50 * each[4])


def plan_of(capsys, *arguments):
    network = ("--model", NET, "--weights", "net.safetensors", "--set", "data.name=digits")
    assert main(["evaluate", *network, "--dry-run", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_the_plan_says_which_mode_and_that_accuracies_are_assumed(capsys):
    said = plan_of(capsys, "--suite", "fgsm,pgd-20,cw-40")
    assert (
        "fgsm, pgd-20, cw-40 (a cascade: each attack runs on what those before have left)" in said
    )
    assert "that assumes 85 % clean accuracy and 42 % robust accuracy" in said
    apart = plan_of(capsys, "--suite", "fgsm,pgd-20", "--suite-mode", "independent")
    assert "fgsm, pgd-20 (independent: each column begins" in apart
    row = plan_of(capsys, "--suite", "published-table")
    assert "cw-40, autoattack-standard [apgd-ce, apgd-t, fab-t, square] (independent" in row
    alone = plan_of(capsys, "--suite", "pgd-20")
    assert "pgd-20: pgd-20 (on all images, misclassified ones too" in alone


@pytest.mark.usefixtures("here")
def test_another_mode_is_refused(capsys):
    network = ("--model", NET, "--weights", "net.safetensors", "--set", "data.name=digits")
    assert main(["evaluate", *network, "--dry-run", "--set", "suite_mode=single"]) == 2
    assert "suite_mode" in capsys.readouterr().err


@pytest.mark.usefixtures("local_ray")
def test_a_whole_evaluation_gives_the_row_and_the_cascades_units_are_found(tmp_path):
    suite = ["fgsm", {"name": "dlr", "attack": "pgd", "options": {"steps": 4, "loss": "dlr"}}]
    cascade, _ = run(tmp_path, suite=suite, shard_size=30)
    apart, said = run(tmp_path, suite=suite, suite_mode="independent", shard_size=30)
    assert apart.id != cascade.id
    assert apart.computed == 2, "the clean pass and fgsm were there"
    assert apart.result["robust"] == cascade.result["robust"]
    fgsm, dlr = (column["accuracy"] for column in apart.result["columns"])
    assert fgsm == cascade.result["attacks"][0]["accuracy_after"]
    assert dlr >= cascade.result["robust"]["accuracy"]
    assert "fgsm, dlr (independent" in said
    assert apart.folder is not None
    record = json.loads((apart.folder / "record.json").read_text())
    assert [c["name"] for c in record["result"]["columns"]] == ["fgsm", "dlr"]
    assert apart.text.splitlines()[1].startswith("independent")


@pytest.mark.usefixtures("local_ray")
def test_a_judgement_of_garbage_says_so_in_record_and_text(tmp_path):
    torch.manual_seed(0)
    save_file(small_net().state_dict(), tmp_path / "untrained.safetensors")
    weights = str(tmp_path / "untrained.safetensors")
    done, _ = run(tmp_path, suite="fgsm", audit=True, weights=weights)
    audit = {f["check"]: f["severity"] for f in done.result["audit"]}
    assert audit["clean_accuracy"] == "warning"
    assert "warning: clean_accuracy: " in done.text
    assert [f["check"] for f in done.result["audit"]].count("clean_accuracy") == 1
    assert done.folder is not None
    info = json.loads((done.folder / "model_info.json").read_text())
    assert info["unreliable"]


def test_too_few_images_are_told_of(tmp_path):
    ranges = make_task(tmp_path, 3, suite="fgsm").ranges[:1]
    task = dataclasses.replace(make_task(tmp_path, suite="fgsm"), ranges=ranges)
    loaded = compute_all(task, UnitStore(LocalStore(tmp_path / "s")))
    text = summary_text(result_of(task, merge(task, loaded)))
    assert "note: clean_accuracy: " in text
    assert "too few" in text
