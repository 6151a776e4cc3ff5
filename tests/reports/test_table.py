from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.files import write_atomically
from robustray.reports import StudyReport, TrialRow, write_provenance, write_table
from robustray.reports.rows import headline, metric_names
from tests.helpers.made_up_studies import grid, trial

MISSING = {
    "selected_epoch": None,
    "validation_accuracy": None,
    "metrics": {},
    "weights_sha256": None,
}
ROWS = [
    *grid("width", (4, 8), 2),
    trial((4, 4, 4), (2.5, 3, 1), status="failed", **MISSING),
]


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@settings(max_examples=10, deadline=None)
@given(st.permutations(ROWS))
def test_equal_rows_give_equal_bytes_in_any_order(tmp_path_factory, rows):
    first, second = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    shuffled = [replace(r, metrics=dict(reversed(r.metrics.items()))) for r in rows]
    for one, other in zip(write_table(ROWS, first), write_table(shuffled, second), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_columns_and_missing_values(tmp_path):
    path, _ = write_table(ROWS, tmp_path)
    lines = read(path)
    assert list(lines[0]) == [
        "name", "depth_1", "depth_2", "depth_3", "width_1", "width_2", "width_3", "parameters",
        "macs", "status", "selected_epoch", "validation_accuracy", "clean", "pgd-20", "cw-40",
        "weights_sha256", "seed",
    ]  # fmt: skip
    assert [line["name"] for line in lines] == sorted(row.name for row in ROWS)
    failed = next(line for line in lines if line["status"] == "failed")
    assert failed["width_1"] == "2.5"
    assert failed["cw-40"] == failed["selected_epoch"] == failed["weights_sha256"] == ""
    assert next(line for line in lines if line["status"] == "finished")["depth_3"] == ""


def test_floats_come_back_exactly(tmp_path):
    rows = [trial((4,), (4,), metrics={"cw-40": 0.1 + 0.2}, seed=2**62 + 1)]
    path, parquet = write_table(rows, tmp_path)
    assert float(read(path)[0]["cw-40"]) == 0.1 + 0.2
    back = pq.read_table(parquet).to_pylist()[0]
    assert back["cw-40"] == 0.1 + 0.2
    assert back["seed"] == int(read(path)[0]["seed"]) == 2**62 + 1


def test_csv_and_parquet_agree(tmp_path):
    path, parquet = write_table(ROWS, tmp_path)
    table = pq.read_table(parquet)
    assert table.column_names == list(read(path)[0])
    for line, record in zip(read(path), table.to_pylist(), strict=True):
        for name, value in record.items():
            assert line[name] == ("" if value is None else str(value))


def test_no_rows_are_a_table_too(tmp_path):
    path, parquet = write_table([], tmp_path)
    assert read(path) == []
    assert pq.read_table(parquet).num_rows == 0


def test_two_trials_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="same name"):
        write_table([ROWS[0], ROWS[0]], tmp_path)


@pytest.mark.parametrize("value", [-0.1, 1.1, 54.3, float("nan")])
def test_accuracies_are_fractions(value):
    with pytest.raises(ValueError, match="outside"):
        trial((4,), (4,), metrics={"cw-40": value})
    with pytest.raises(ValueError, match="validation_accuracy"):
        trial((4,), (4,), validation_accuracy=value)


def test_unknown_status_is_refused():
    with pytest.raises(ValueError, match="'done'"):
        TrialRow("a", (1,), (1.0,), 1, 1, status="done")  # type: ignore[arg-type]


def test_metrics_are_ordered_weakest_first():
    rows = [trial((4,), (4,), metrics=dict.fromkeys(("cw-40", "zoo", "fgsm", "clean", "abc"), 0.5))]
    assert metric_names(rows) == ("clean", "fgsm", "cw-40", "abc", "zoo")
    assert headline(rows) == "zoo"
    assert headline([]) is None


def test_provenance_keeps_order_and_nesting(tmp_path):
    records = [{"name": "a", "host": "n1"}, {"name": "b", "versions": {"torch": "2"}, "s": 0.5}]
    lines = read(write_provenance(records, tmp_path))
    assert lines[0] == {"name": "a", "host": "n1", "versions": "", "s": ""}
    assert lines[1] == {"name": "b", "host": "", "versions": '{"torch": "2"}', "s": "0.5"}


def study(rows, **changes) -> StudyReport:
    fields = {"study": "s", "study_id": "s-1", "grid": "width", "data_label": "d", "rows": rows}
    return StudyReport(**(fields | changes))


def test_partial_where_any_planned_trial_has_no_result():
    rows = grid("width", (4, 8))
    unfinished = replace(rows[0], status="unfinished", metrics={})
    assert not study(rows).is_partial
    assert study(rows, partial=True).is_partial
    assert study([unfinished, *rows[1:]]).is_partial
    assert study(rows, planned_trials=9).is_partial
    assert study([replace(rows[0], status="failed"), *rows[1:]]).is_partial
    assert study(rows, attacks=("cw-40", "fgsm")).is_partial


def test_counts_say_what_is_missing():
    rows = grid("width", (4, 8))
    rows = [
        replace(rows[0], status="failed"),
        replace(rows[1], status="unfinished"),
        replace(rows[2], metrics={}),
        *rows[3:],
    ]
    counts = study(rows, planned_trials=10).counts
    assert counts.judged == 5
    assert str(counts) == (
        "6 of 10 trials finished, 1 not yet attacked, 1 unfinished, 1 failed, 2 missing"
    )


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_atomically(tmp_path / "new" / "a", b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["a"]
