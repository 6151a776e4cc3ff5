"""Published, recorded and counted costs of every table row."""

from __future__ import annotations

import dataclasses

import pytest

from robustray.cli import main
from robustray.models import Profile, find_model, list_models
from robustray.scaling.check import (
    as_printed,
    check_row,
    cost_rows,
    describe,
    difference,
    known_costs,
    rows_of,
)
from robustray.scaling.pages.published import ACCURACIES, published_tables

ROWS = cost_rows()
TABLE_1, TABLE_2 = ([row for row in ROWS if row.table == f"Table {n}"] for n in (1, 2))

# Whether the printed parameters and the printed multiply-accumulates are right, where one is not.
DISAGREE = {
    "5G, D&W": (False, False),
    "10G, D&W": (False, False),
    "20G, D&W": (False, False),
    "40G, D (as printed)": (False, False),
    "wrn_28_10": (True, False),
    "robnet_large_v2": (True, False),
    "wrn_34_12": (True, False),
    "aggregated": (True, False),
    "conv3x3 SE, r=16": (True, False),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.table}-{row.label}")
def test_counts_are_the_recorded_ones_and_agree_with_print_where_they_should(row):
    checked = check_row(row)
    assert checked.counted == row.recorded
    assert not checked.broken
    if row.table == "Catalogue":
        assert checked.agreement is None
    else:
        assert checked.agreement == DISAGREE.get(row.label, (True, True))
        assert checked.agreement == (True, True) or row.corrections


def test_all_rows_of_the_tables_are_there():
    tables = [row.table for row in ROWS]
    assert [tables.count(name) for name in ("Table 1", "Table 2", "Models", "Blocks")] == [
        4, 13, 12, 9,
    ]  # fmt: skip
    assert {row.model for row in ROWS} <= set(list_models())
    assert len(known_costs()) == 21
    assert {row.model for row in ROWS if row.table == "Catalogue"} == {
        "robust_model_zoo_1", "robust_model_zoo_2", "wrn_28_r", "wrn_46_r", "wrn_70_r",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "printed", "rounded", "off"),
    [
        (39_588_314, "39.6M", "39.6M", "-0.012M"),
        (5_245_639_552, "5.20G", "5.25G", "+0.046G"),
        (132_890_938, "133M", "133M", "-0.109M"),
    ],
)
def test_rounding_follows_the_printed_digits(number, printed, rounded, off):
    assert as_printed(number, printed) == rounded
    assert difference(number, printed) == off


def test_a_wrong_record_shows():
    row = dataclasses.replace(TABLE_1[0], recorded=Profile(39_588_315, 1, 2))
    checked = check_row(row)
    assert checked.broken
    text = describe([checked, check_row(TABLE_2[0])])
    assert "BROKEN" in text
    assert "39588315" in text
    assert text.count("P ok, F ok") == 1


def test_published_accuracies():
    """Spot values of every table, and the one that the paper corrects."""
    tables = [table for table in published_tables().values() if table.short]
    counts = {table.short: len(table.rows) for table in tables if table.short != "Blocks"}
    assert list(counts.values()) == [4, 12, 7, 12, 12, 8, 8]
    for table in tables:
        for row in table.rows:
            assert row.model is None or find_model(row.model)
            values = [row.best_known(name) for name in ACCURACIES if name in row.published]
            assert all(0.2 < value < 0.95 for value in values)
            assert values == sorted(values, reverse=True)
    a1 = {table.short: row.best_known for table, row in rows_of("rrn_a1")}
    assert a1["CIFAR-10 (TRADES)"]("pgd-20") == 0.5874
    assert a1["CIFAR-100 (TRADES)"]("clean") == 0.5934
    assert a1["CIFAR-10 (SAT)"]("cw-40") == 0.5606
    assert a1["CIFAR-10 (MART)"]("pgd-20") == 0.5934
    assert a1["Table 3"]("autoattack") == 0.6370
    assert [table.short for table, _ in rows_of("wrn_a4")] == ["Table 2", "Table 3"]


def test_the_command_lists_what_the_tables_say_of_a_network(capsys):
    assert main(["models", "wrn_70_16"]) == 0
    out = capsys.readouterr().out
    assert "published  CIFAR-10 (SAT), SAT, cifar10: pgd-20 54.12, cw-40 50.52" in out
    assert "CW-40 is 27.20 in the README and 27.24 in the paper." in out


def test_the_command_fails_only_if_a_count_differs(monkeypatch, capsys):
    rows = [TABLE_1[0], TABLE_2[2]]
    monkeypatch.setattr("robustray.scaling.check.cost_rows", lambda: rows)
    assert main(["models", "--check"]) == 0
    out = capsys.readouterr().out
    assert "P differs, F differs" in out
    assert "+1.008M" in out
    rows[0] = dataclasses.replace(TABLE_1[0], recorded=Profile(1, 2, 3))
    assert main(["models", "--check"]) == 1
    assert "BROKEN" in capsys.readouterr().out
    assert main(["models", "rrn_*", "--check"]) == 2
