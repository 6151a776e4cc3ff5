from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from robustray.reports import StudyReport, text_table, write_report
from robustray.reports.pages.study import study_page as page
from robustray.reports.words import amount
from tests.helpers.made_up_studies import curves, grid, trial

HOSTILE = '<script>alert("x")</script>&"\'><img src=http://evil.example/x onerror=y>'
ROWS = grid("width", (4, 8))


class Reader(HTMLParser):
    """Collects tags, addresses and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def study(rows=ROWS, **changes) -> StudyReport:
    fields = {
        "study": "width-quick",
        "study_id": "width-quick-1a2b",
        "grid": "width",
        "data_label": "digits[:500]",
        "rows": rows,
        "manifest_hash": "f" * 64,
        "threat": "linf, eps = 8/255",
        "recipe": {"Epochs": 10},
        "cost": {"device-hours": (2.0, 3.0), "attempts": (8, None), "bytes": (None, 7)},
        "versions": {"torch": "2.13"},
        "devices": ("CPU, 2 threads",),
        "provenance": [{"name": row.name, "host": "n1"} for row in rows],
        "curves": curves(rows),
        "notes": ("A note.",),
    }
    return StudyReport(**(fields | changes))  # type: ignore[arg-type]


def test_everything_is_written_and_told(tmp_path):
    paths = write_report(study(), tmp_path / "report", svg=True)
    names = {
        "table.csv", "table.parquet", "summary.json", "provenance.csv", "accuracy.png",
        "accuracy.svg", "shares_width.png", "shares_width.svg", "curves.png",
        "curves.svg", "report.html",
    }  # fmt: skip
    assert {path.name for path in paths} == names
    assert {path.name for path in (tmp_path / "report").iterdir()} == names


def test_equal_results_give_equal_files(tmp_path):
    first = write_report(study(), tmp_path / "a")
    second = write_report(study(ROWS[::-1], curves=curves(ROWS)), tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        if one.name != "provenance.csv":
            assert one.read_bytes() == other.read_bytes(), one.name


def test_page_asks_nobody_for_anything(tmp_path):
    write_report(study(), tmp_path)
    found = read((tmp_path / "report.html").read_text())
    assert found.tags.count("svg") == 3
    files = {path.name for path in tmp_path.iterdir()}
    assert set(found.addresses) == {"table.csv", "table.parquet", "summary.json", "provenance.csv"}
    assert set(found.addresses) < files
    assert not {"link", "iframe", "object"} & set(found.tags)


def test_page_says_what_it_must():
    words = "\n".join(read(page(study())).words)
    for word in ("width-quick-1a2b", "f" * 64, "digits[:500]", "linf, eps = 8/255", "2.13",
                 "CPU, 2 threads", "A note.", "8 of 8 trials finished", "1.50"):  # fmt: skip
        assert word in words
    assert "PARTIAL" not in words
    assert all(row.name in words for row in ROWS)


def test_nothing_hostile_gets_through():
    row = trial((4,), (4,), name=HOSTILE, status="failed", metrics={}, weights_sha256=HOSTILE)
    plain = read(page(study([row], curves={}, provenance=())))
    hostile = study(
        [row], study=HOSTILE, study_id=HOSTILE, manifest_hash=HOSTILE, data_label=HOSTILE,
        threat=HOSTILE, attacks=(HOSTILE,), recipe={HOSTILE: HOSTILE}, failures={HOSTILE: HOSTILE},
        cost={HOSTILE: (HOSTILE, HOSTILE)}, versions={HOSTILE: HOSTILE}, devices=(HOSTILE,),
        notes=(HOSTILE,), curves={}, provenance=(),
    )  # fmt: skip
    found = read(page(hostile))
    assert found.tags.count("script") == plain.tags.count("script") == 1
    assert "img" not in found.tags
    assert found.addresses == []
    assert found.words.count(HOSTILE) > 10
    assert "content=\"default-src 'none'; img-src data:;" in page(hostile)


def test_hostile_words_can_be_drawn(tmp_path):
    report = study(data_label=HOSTILE + "$\\frac{$")
    assert (tmp_path / "report.html") in write_report(report, tmp_path)


def test_partial_report_says_so_everywhere(tmp_path):
    rows = [
        replace(ROWS[0], status="failed", metrics={}),
        replace(ROWS[1], status="unfinished", metrics={}),
        *ROWS[2:],
    ]
    report = study(rows, planned_trials=9, failures={ROWS[0].name: "out of memory"})
    words = "\n".join(read(page(report)).words)
    told = "6 of 9 trials finished, 1 unfinished, 1 failed, 1 missing"
    assert f"PARTIAL: {told}" in words
    assert "out of memory" in words
    write_report(report, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["partial"] is True
    assert summary["trials"]["judged"] == 6
    table = text_table(rows, planned_trials=9)
    assert table.startswith("PARTIAL\n")
    assert told in table


def test_failure_without_reason_is_still_listed():
    failed = replace(ROWS[0], status="failed", metrics={})
    assert "no reason was recorded" in page(study([failed, *ROWS[1:]]))


def test_summary_names_the_frontiers(tmp_path):
    write_report(study(), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    names = {row.name for row in ROWS}
    assert summary["judged_by"] == "cw-40"
    assert summary["kendall_macs"]["n"] == 8
    fronts = summary["frontiers"]
    assert set(fronts["efficient"]) | set(fronts["inefficient"]) <= names
    assert fronts["uniform_width"] == ["d4-4-4_w4-4-4", "d4-4-4_w8-8-8"]


def test_both_axes_get_a_figure_each(tmp_path):
    rows = [trial((d, 5 - d), (w, 10 - w)) for d in (2, 3) for w in (4, 6)]
    names = {path.name for path in write_report(study(rows, grid="both"), tmp_path)}
    assert {"accuracy.png", "shares_width.png", "shares_depth.png"} <= names


@pytest.mark.parametrize("rows", [[], [trial((4,), (4,), status="unfinished", metrics={})]])
def test_a_study_that_has_hardly_begun(tmp_path, rows):
    report = study(rows, planned_trials=8, curves={}, provenance=())
    names = {path.name for path in write_report(report, tmp_path)}
    assert names == {"table.csv", "table.parquet", "summary.json", "report.html"}
    assert "PARTIAL" in (tmp_path / "report.html").read_text()


def test_last_attack_of_the_manifest_judges():
    assert study(attacks=("cw-40", "pgd-20")).headline == "pgd-20"
    assert study().headline == "cw-40"


def test_text_table_is_sorted_and_aligned():
    lines = text_table(ROWS).splitlines()
    assert len(lines) == 1 + 8 + 1
    assert len({line.index("finished") for line in lines[1:-1]}) == 1
    column = lines[0].split().index("CW-40")
    values = [float(line.split()[column]) for line in lines[1:-1]]
    assert values == sorted(values, reverse=True)
    assert "Kendall's tau of MACs and CW-40: 0.5" in lines[-1]


def test_long_text_table_shows_both_ends():
    rows = grid("width", (4, 6, 8))
    failed = trial((4,), (1,), status="failed", metrics={})
    lines = text_table([*rows, failed], limit=6).splitlines()
    ordered = sorted(rows, key=lambda r: -r.metrics["cw-40"])
    names = [line.split()[0] for line in lines[2:-1]]
    assert names == [*(r.name for r in ordered[:3]), "...", *(r.name for r in ordered[-3:])]
    assert "... 22 more ..." in lines
    assert "27 of 28 trials finished, 1 failed" in lines[-1]
    assert len(text_table(rows, limit=None).splitlines()) == 29


def test_text_table_of_nothing():
    assert "0 of 0 trials finished" in text_table([])


@pytest.mark.parametrize(
    ("number", "text"),
    [(5.249e9, "5.25G"), (15e6, "15.0M"), (885_300, "885k"), (999_999, "1000k"), (12, "12.0")],
)
def test_amounts(number, text):
    assert amount(number) == text
