"""Units: verdicts as the attacks give them, keys that name them, commits that happen once."""

import dataclasses

import numpy as np
import pytest
import torch

from robustray.attacks import attack_suite, evaluate
from robustray.attacks.engine.inputs import check_examples
from robustray.errors import CorruptObjectError
from robustray.evaluation.images import load_images
from robustray.evaluation.record import write_csv, write_parquet
from robustray.evaluation.task import Unit
from robustray.evaluation.units.compute import RangePart, compute
from robustray.evaluation.units.merge import merge
from robustray.evaluation.units.store import UnitOutcome, UnitRecord, UnitStore
from robustray.evaluation.units.verdicts import Verdicts
from robustray.store import LocalStore, NotFoundError, canonical_json
from tests.helpers.evaluation_tasks import (
    COUNT,
    SHAPE,
    SUITE,
    THREAT,
    compute_all,
    digits,
    make_task,
    trained_net,
)


@pytest.fixture
def units(tmp_path) -> UnitStore:
    return UnitStore(LocalStore(tmp_path / "store"))


def whole(suite):
    """What ``robustray.attacks.evaluate`` says of the same images."""
    images = load_images(digits(), None)
    return evaluate(
        trained_net(), images.x_NCHW, images.y_N, THREAT, suite,
        index=images.index_N, compute_shape=SHAPE,
    )  # fmt: skip


@pytest.mark.parametrize("suite", [SUITE, "pgd-10", "fgsm"], ids=["cascade", "pgd-10", "fgsm"])
def test_sharded_verdicts_are_those_of_one_evaluation(tmp_path, units, suite):
    expected = whole(suite)
    task = make_task(tmp_path, 7, suite=suite)
    merged = merge(task, compute_all(task, units))
    columns = merged.columns
    assert columns["robust"].tolist() == expected.robust.tolist()
    assert columns["broken_by"].tolist() == expected.broken_by
    assert merged.clean_correct.tolist() == expected.clean_correct.tolist()
    assert columns["forwards"].tolist() == expected.forwards.tolist()
    assert columns["backwards"].tolist() == expected.backwards.tolist()
    if not attack_suite(suite).attack_all:
        assert {None, "weak", "pgd", "dlr"} <= set(expected.broken_by), "the example shows nothing"


def test_adversarial_examples_are_those_of_one_evaluation(tmp_path, units):
    expected = whole(SUITE)
    task = make_task(tmp_path, 22)
    found = {}
    for loaded in compute_all(task, units):
        kept = units.adversarial(loaded.record)
        for index, x in zip(kept.get("index", []), kept.get("x", []), strict=True):
            found[int(index)] = x
    index = load_images(digits(), None).index_N.tolist()
    broken = {index[row]: row for row, name in enumerate(expected.broken_by) if name}
    assert found.keys() == broken.keys()
    assert all(torch.equal(found[i], expected.x_adv[row]) for i, row in broken.items())


def test_shard_sizes_change_no_byte_of_the_tables(tmp_path):
    tables = set()
    for size in (60, 30, 20, 8):
        units = UnitStore(LocalStore(tmp_path / f"store{size}"))
        task = make_task(tmp_path, size)
        merged = merge(task, compute_all(task, units))
        tables.add((write_parquet(merged), write_csv(merged)))
    assert len(tables) == 1


def test_ranges_computed_together_are_those_computed_alone(tmp_path, units):
    task, images = make_task(tmp_path, 20), load_images(digits(), None)
    alone = compute_all(task, units)
    parts = []
    for range_ in task.ranges:
        chosen = images.select(slice(range_.start, range_.stop))
        clean = next(u for u in alone if u.unit.range == range_ and u.unit.position == 0)
        examples = check_examples(chosen.x_NCHW, chosen.y_N, chosen.index_N)
        parts.append(RangePart(examples, clean.verdicts))
    together = compute(task, 1, trained_net(), parts, 1000)
    first = [unit.verdicts.to_bytes() for unit in alone if unit.unit.position == 1]
    assert [found.verdicts.to_bytes() for found in together] == first


def test_verdicts_come_back_byte_for_byte(tmp_path, units):
    task = make_task(tmp_path)
    for loaded in compute_all(task, units):
        data = loaded.verdicts.to_bytes()
        again = Verdicts.from_bytes(data)
        assert again.to_bytes() == data
        for field in dataclasses.fields(Verdicts):
            ours, theirs = getattr(loaded.verdicts, field.name), getattr(again, field.name)
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(CorruptObjectError, match="not a table of verdicts"):
        Verdicts.from_bytes(b"PAR1 nothing")


def test_broken_images_carry_class_and_distance(tmp_path, units):
    task = make_task(tmp_path)
    columns = merge(task, compute_all(task, units)).columns
    broken = np.array([name is not None for name in columns["broken_by"]])
    assert (columns["distance"][broken] <= task.eps).all()
    assert (columns["distance"][broken] > 0).all()
    assert np.isnan(columns["distance"][~broken]).all()
    assert (columns["prediction"][broken] != columns["label"][broken]).all()
    assert (columns["prediction"][~broken] == -1).all()


def test_of_two_commits_one_wins_and_the_other_leaves_nothing(tmp_path, units):
    task = make_task(tmp_path)
    unit = task.chain(task.ranges[0])[0]
    first = compute_all(task, units, starts=[0], steps=1)[0]
    other = dataclasses.replace(first.verdicts, forwards=first.verdicts.forwards + 1)
    outcome = UnitOutcome(task.identity(unit.range, 0), None, other)
    assert units.commit(unit, outcome, {"attempt": 2}) == first.record
    assert units.read(unit).verdicts.to_bytes() == first.verdicts.to_bytes()
    assert units.provenance(unit) == {"attempt": 1}
    names = [info.key for info in units.store.list(f"{unit.prefix}/")]
    assert len([name for name in names if "verdicts-" in name]) == 1


@pytest.mark.parametrize("what", ["verdicts-", "record.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_is_found_and_taken_back(tmp_path, units, what, damage):
    task = make_task(tmp_path)
    unit = task.chain(task.ranges[0])[0]
    intact = compute_all(task, units, starts=[0], steps=1)[0]
    (key,) = [i.key for i in units.store.list(f"{unit.prefix}/") if what in i.key]
    data = units.store.get(key)
    if damage == "gone":
        units.store.delete(key)
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        units.store.put(key, flipped if damage == "flip" else data[:middle])
    missing = damage == "gone" and what == "record.json"
    with pytest.raises(NotFoundError if missing else CorruptObjectError):
        units.read(unit)
    assert units.read_all([unit]) == []
    assert units.committed(task.subject.digest) == set()
    again = compute_all(task, units, starts=[0], steps=1)[0]
    assert again.record == intact.record


def test_a_record_of_another_unit_is_no_record(tmp_path, units):
    task = make_task(tmp_path)
    clean, weak = task.chain(task.ranges[0])[:2]
    record = compute_all(task, units, starts=[0], steps=1)[0].record
    units.store.put(f"{weak.prefix}/record.json", record.to_bytes())
    with pytest.raises(CorruptObjectError, match="another unit"):
        units.read(weak)
    assert UnitRecord.from_bytes(record.to_bytes()) == units.record(clean)


def keys(task) -> list[str]:
    return [unit.prefix for unit in task.units()]


def test_keys_do_not_depend_on_names_or_places(tmp_path):
    task = make_task(tmp_path)
    assert keys(dataclasses.replace(task, name="other")) == keys(task)
    moved = dataclasses.replace(task.subject, weights_key="weights/elsewhere")
    assert keys(dataclasses.replace(task, subject=moved)) == keys(task)


def test_clean_units_are_shared_and_nothing_else(tmp_path):
    task = make_task(tmp_path)
    for change in (
        {"eps": 0.2},
        {"norm": "l2"},
        {"attack_all": True},
        {"conditions": dataclasses.replace(task.conditions, seed=1)},
        {"conditions": dataclasses.replace(task.conditions, search_dtype="bfloat16")},
        {"conditions": dataclasses.replace(task.conditions, channels_last=True)},
        {"conditions": dataclasses.replace(task.conditions, fused_blocks=True)},
        {"conditions": dataclasses.replace(task.conditions, adversarial="first 8")},
        {"conditions": dataclasses.replace(task.conditions, engine={"name": "reference"})},
    ):
        other = dataclasses.replace(task, **change)
        for range_ in task.ranges:
            ours, theirs = task.chain(range_), other.chain(range_)
            assert ours[0].prefix == theirs[0].prefix
            assert {u.prefix for u in ours[1:]}.isdisjoint(u.prefix for u in theirs[1:])


def test_every_unit_changes_with_weights_network_images_and_shape(tmp_path):
    task = make_task(tmp_path)
    subject = task.subject
    edited = {**subject.network, "code_sha256": "0" * 64}
    first = task.ranges[0]
    for change in (
        {"subject": dataclasses.replace(subject, weights_sha256="0" * 64)},
        {"subject": dataclasses.replace(subject, weights_format="state_dict")},
        {"subject": dataclasses.replace(subject, network=edited)},
        {"conditions": dataclasses.replace(task.conditions, compute_shape=64)},
        {"ranges": (dataclasses.replace(first, sha256="0" * 64),)},
    ):
        other = dataclasses.replace(task, **change)
        assert set(keys(other)).isdisjoint(keys(task))


def test_an_attack_is_named_by_those_before_it(tmp_path):
    cascade = make_task(tmp_path)
    swapped = dataclasses.replace(cascade, attacks=cascade.attacks[::-1])
    shorter = dataclasses.replace(cascade, attacks=cascade.attacks[:2])
    assert set(keys(swapped)) & set(keys(cascade)) == {
        u.prefix for u in cascade.units() if not u.position
    }
    assert set(keys(shorter)) < set(keys(cascade))
    other = dataclasses.replace(
        cascade, attacks=({**cascade.attacks[0], "options": {"a": 1}}, *cascade.attacks[1:])
    )
    ours = {u.prefix for u in cascade.units() if u.position}
    assert ours.isdisjoint(u.prefix for u in other.units())


def test_keys_fit_the_store(tmp_path):
    task = make_task(tmp_path)
    assert all(isinstance(unit, Unit) and len(unit.prefix.split("/")) == 3 for unit in task.units())
    assert len(canonical_json(task.identity(task.ranges[0], 3))) < 5000
    assert task.count == COUNT
