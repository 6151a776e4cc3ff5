"""Published tables beside measured numbers: what is printed, corrected, measured, missing."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from robustray.models import create_model, profile
from robustray.reports import render
from robustray.scaling.pages.figures import compare_scale_figure, compound_scale_figure
from robustray.scaling.pages.paper import answer_paper, paper_page
from robustray.scaling.pages.published import (
    PublishedRow,
    PublishedTable,
    names_of,
    published_correlations,
    published_tables,
)
from robustray.scaling.pages.tables import (
    Measurement,
    columns,
    compare_table,
    csv_bytes,
    parquet_bytes,
)
from robustray.scaling.rules import BY_DEPTH, BY_WIDTH, COMPOUND, STANDARD
from tests.helpers.made_up_studies import trial

from .test_equal_cost import ROWS

TABLES = published_tables()
A1 = "RobustResNet-A1"


def row_of(table: str, label: str) -> PublishedRow:
    return next(row for row in TABLES[table].rows if row.label == label)


def measurement(row: PublishedRow, cw40: float, **changes: object) -> Measurement:
    result = replace(trial(row.depths, row.widths), metrics={"clean": 0.8, "cw-40": cw40})
    fields = {
        "study": "s-1", "data": "cifar10", "objective": "trades", "epochs": 100,
        "label": "cifar10", "restricted": False, "models": row.names, "row": result,
    }  # fmt: skip
    return Measurement(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "label", "column", "value"),
    [
        ("table1", "WRN-70-16, robust blocks", "cw-40", 0.5778),
        ("table2", "Compound 40G", "cw-40", 0.5659),
        ("table3", "Ours, WRN-A4", "autoattack", 0.6579),
        ("cifar10_trades", "RobustResNet-A4", "autoattack", 0.5629),
        ("cifar10_trades", A1, "pgd-20", 0.5847),
        ("cifar100_trades", "RACL", "cw-40", 0.2665),
        ("cifar10_sat", "WRN-28-10", "pgd-20", 0.5244),
        ("cifar10_mart", "RobustResNet-A4", "cw-40", 0.5755),
        ("figure_compound", "Compound 15G", "cw-40", 0.559),
        ("topology_cifar100", "RobustResBlock", "pgd-20", 0.3388),
        ("figure_se", "Residual SE, r = 64", "cw-40", 0.5605),
    ],
)
def test_numbers_are_those_that_were_printed(table, label, column, value):
    assert row_of(table, label).published[column] == value


def test_the_tables_have_their_rows_and_the_figures_their_correlations():
    sizes = {name: len(table.rows) for name, table in TABLES.items()}
    assert list(sizes.values()) == [4, 12, 7, 12, 12, 8, 8, 12, 7, 5, 5, 6]
    assert published_correlations() == {"depth": 0.561, "width": 0.220}


def test_corrections_are_the_known_ones():
    assert row_of("cifar10_trades", A1).best_known("pgd-20") == 0.5874
    assert row_of("figure_compound", "Compound 40G").best_known("cw-40") == 0.5659
    misprint = row_of("table2", "Depth 40G")
    assert (misprint.depths, misprint.printed_depths) == ((14, 13, 6), (14, 13, 11))
    cost = row_of("table2", "Compound 10G")
    assert cost.printed["macs"] == "9.74G"
    assert cost.best_known("macs") == 10_842_852_096
    assert {"parameters", "macs"} == set(cost.corrections)


def test_table2_holds_the_settings_of_the_rules():
    found = {row.label: (row.depths, row.widths) for row in TABLES["table2"].rows}
    for word, table in (("Depth", BY_DEPTH), ("Width", BY_WIDTH), ("Compound", COMPOUND)):
        for target, setting in table.items():
            if f"{word} {target}G" in found:
                assert found[f"{word} {target}G"] == (setting.depths, setting.widths)
    assert len(STANDARD) == 6


SMALL = {
    (row.names[-1], table.data == "cifar100"): (table, row)
    for table in TABLES.values()
    for row in table.rows
    if row.block and row.corrected["macs"] < 6e9
}


def test_one_network_has_one_cost_in_all_tables():
    costs: dict[tuple, set] = {}
    for table in TABLES.values():
        for row in filter(lambda row: row.names, table.rows):
            cost = (row.corrected["parameters"], row.corrected["macs"])
            costs.setdefault((row.names[-1], table.data), set()).add(cost)
    assert {len(found) for found in costs.values()} == {1}


@pytest.mark.parametrize(("table", "row"), SMALL.values(), ids=[f"{name}" for name in SMALL])
def test_corrected_costs_are_those_of_the_network(table: PublishedTable, row: PublishedRow):
    with torch.device("meta"):
        model = create_model(
            "preact_resnet", depths=row.depths, widths=[int(w) for w in row.widths],
            block=row.block, num_classes=100 if table.data == "cifar100" else 10,
        )  # fmt: skip
    cost = profile(model, (3, 32, 32))
    assert (row.corrected["parameters"], row.corrected["macs"]) == (cost.parameters, cost.macs)


@pytest.mark.parametrize("column", ["parameters", "macs"])
def test_printed_costs_agree_unless_a_correction_says_otherwise(column):
    for table in TABLES.values():
        for row in table.rows:
            known = column in row.published and column in row.corrected
            if known and column not in row.corrections:
                printed, digits = row.published[column], row.printed[column]
                unit = 10.0 ** (-len(digits[:-1].partition(".")[2])) * (
                    1e6 if digits.endswith("M") else 1e9
                )
                assert abs(printed - row.corrected[column]) <= 0.51 * unit, (table.name, row.label)


def test_measured_cells_are_means_and_missing_ones_are_none():
    row = row_of("cifar10_trades", A1)
    lines = compare_table(
        TABLES["cifar10_trades"], [measurement(row, 0.50), measurement(row, 0.54, study="s-2")]
    )
    line = next(line for line in lines if line.row is row)
    cell = line.cells["cw-40"]
    assert (cell.published, cell.corrected, cell.n) == (0.5572, 0.5572, 2)
    assert cell.measured == pytest.approx(0.52)
    assert line.cells["pgd-20"].measured is None
    assert line.cells["pgd-20"].corrected == 0.5874
    assert line.comparable
    others = [other for other in lines if other is not line]
    assert all(cell.measured is None for other in others for cell in other.cells.values())


def test_the_published_row_fills_the_cell_of_autoattack():
    row = row_of("cifar10_trades", A1)
    found = measurement(row, 0.5)
    metrics = {**found.row.metrics, "published-table:autoattack-standard": 0.47}
    found = replace(found, row=replace(found.row, metrics=metrics))
    lines = compare_table(TABLES["cifar10_trades"], [found])
    cells = next(line for line in lines if line.row is row).cells
    assert cells["autoattack"].measured == 0.47


@pytest.mark.parametrize("changes", [{"data": "cifar100"}, {"objective": "sat"}, {"models": ()}])
def test_what_is_something_else_fills_no_cell(changes):
    row = row_of("cifar10_trades", A1)
    lines = compare_table(TABLES["cifar10_trades"], [measurement(row, 0.5, **changes)])
    assert all(cell.measured is None for line in lines for cell in line.cells.values())


def test_whole_data_comes_before_a_part_of_it():
    row = row_of("table2", "Depth 5G")
    part = measurement(row, 0.2, restricted=True, label="cifar10[:4000]")
    (line, *_) = compare_table(TABLES["table2"], [part])
    assert line.cells["cw-40"].measured == 0.2
    assert not line.comparable
    assert "cifar10[:4000]" in line.sources[0]
    (line, *_) = compare_table(TABLES["table2"], [part, measurement(row, 0.5)])
    assert line.cells["cw-40"].measured == 0.5
    assert line.comparable


def test_a_catalogue_network_also_fills_the_rows_of_its_setting():
    models = names_of("wrn_28_10")
    assert models == ("wrn_28_10", "basic 4-4-4 10-10-10")
    row = row_of("figure_compound", "Even 5G")
    lines = compare_table(TABLES["figure_compound"], [measurement(row, 0.5, models=models)])
    assert sum(line.cells["cw-40"].measured is not None for line in lines) == 1


def test_files_say_missing_where_nothing_is_known(tmp_path):
    row = row_of("table2", "Depth 5G")
    table = columns(TABLES["table2"], compare_table(TABLES["table2"], [measurement(row, 0.5)]))
    lines = list(csv.DictReader(io.StringIO(csv_bytes(table).decode())))
    assert lines[0]["cw-40_published"] == "0.5314"
    assert lines[0]["cw-40_measured"] == "0.5"
    assert lines[0]["pgd-20_measured"] == "missing"
    assert lines[1]["cw-40_measured"] == "missing"
    path = tmp_path / "table.parquet"
    path.write_bytes(parquet_bytes(table))
    read = pq.read_table(path).to_pydict()
    assert read["cw-40_measured"][:2] == [0.5, None]
    assert read["cw-40_n"][:2] == [1, 0]


def test_the_page_shows_all_three_and_is_called_partial():
    row = row_of("table2", "Compound 5G")
    lines = compare_table(TABLES["table2"], [measurement(row, 0.5, restricted=True)])
    page = paper_page([(TABLES["table2"], lines)], [], "tau")
    assert "17.7M" in page
    assert "<b>18.7M</b>" in page
    assert "50.00†" in page
    assert page.count("MISSING</span>") == 2 * 11 + 1  # accuracies, PGD-20
    assert "PARTIAL: 23 of 24 accuracies are not measured." in page
    assert "1 of 24 accuracies are measured; none can be compared with what is printed." in page
    for part in ('<p class="kind">Published study', '<p class="answer">', "table2.csv"):
        assert part in page, "as every page has it"
    assert "printed 14-13-11" in page


def test_the_paper_is_answered_by_what_can_be_compared():
    rows = [row for row in TABLES["table2"].rows if row.published.get("cw-40")][:2]

    def sentence(*offsets: float) -> str:
        measured = [
            measurement(row, row.published["cw-40"] + off)
            for row, off in zip(rows, offsets, strict=True)
        ]
        return answer_paper(compare_table(TABLES["table2"], measured)).sentence

    assert sentence(0.002, -0.03) == (
        "2 of 24 accuracies are measured; of 2 that can be compared 1 are within 1 point of the "
        "published ones (as corrected), and on average they are 1.4 points below."
    )
    assert sentence(0.01, -0.01).endswith("on average they are level with them.")


def test_figures_draw_published_and_measured_and_nothing_else():
    compound = TABLES["figure_compound"]
    lines = compare_table(compound, [measurement(row, 0.5) for row in compound.rows[:2]])
    figure = compound_scale_figure(lines, ROWS)
    render(figure)
    drawn = {
        (place, line.get_gid()): len(np.asarray(line.get_xdata()))
        for place, axes in enumerate(figure.axes)
        for line in axes.lines
        if line.get_gid()
    }
    assert list(drawn.values()) == [6, 2, 4, 0]  # compound, and even: published, measured
    shares = [len(np.asarray(figure.axes[i].collections[-1].get_offsets())) for i in (0, 1)]
    assert shares == [13, 13]
    tables = {n: compare_table(TABLES[n], []) for n in ("table2", "cifar10_trades")}
    empty = compare_scale_figure(tables)
    render(empty)
    counts = [len(np.asarray(line.get_xdata())) for line in empty.axes[0].lines]
    assert counts == [4, 0] * 3
