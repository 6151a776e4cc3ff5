"""What pages are made of: tables, drawings, the audit in words, links."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from robustray.reports.html import Picture, cost_html, figures_html, links_html
from robustray.reports.pages.audit import PASSED, audit_html
from robustray.reports.pages.corruptions import corruptions_page
from robustray.reports.pages.drawing import TIP, draw
from robustray.reports.pages.evaluation import Evaluated, evaluation_page
from robustray.reports.pages.tables import Cell, Column, table_html
from robustray.reports.rows import Link
from tests.helpers.made_up_pages import LONG, corruptions, evaluation, finding
from tests.reports.test_report import read


def drawn() -> Figure:
    figure = Figure(figsize=(4, 3), facecolor="white")
    axes = figure.add_subplot()
    points = axes.scatter([1, 2], [3, 4], facecolors=["#0072b2", "#d62728"])
    points.set_urls([f"{TIP}first: 53.1 % <&>", f"{TIP}second"])
    axes.text(1.5, 3.5, "on a colour", color="white")
    axes.set_xlabel("in black")
    return figure


def test_drawings_take_the_colours_of_the_page_and_hints_instead_of_links():
    text = draw(drawn(), "one").decode()
    assert text.startswith("<svg")
    assert "<title>first: 53.1 % &lt;&amp;&gt;</title>" in text
    assert text.count('<g class="tip">') == 2
    assert "<a " not in text
    assert "</a>" not in text
    assert "currentColor" in text  # axes
    assert "var(--back)" in text  # what is white as the background is
    assert text.count("fill: #ffffff") == 1  # white text on a colour stays white
    assert "#0072b2" in text


def test_ids_of_two_drawings_differ_and_their_references_follow():
    for name in ("one", "two"):
        reader = read(draw(drawn(), name).decode())
        assert reader.addresses == []
        text = draw(drawn(), name).decode()
        ids = {part.partition('"')[0] for part in text.split(' id="')[1:]}
        used = {part.partition('"')[0] for part in text.split('xlink:href="#')[1:]}
        assert ids
        assert used <= ids
        assert all(each.startswith(f"{name}-") for each in ids)


def test_a_drawing_too_large_for_a_page_is_a_png():
    figure = Figure()
    figure.add_subplot().scatter(range(6000), range(6000), urls=["tip:a long hint"] * 6000)
    assert draw(figure, "one").startswith(b"\x89PNG")


def test_figures_leave_no_hole_in_the_grid():
    def svg(width: int) -> Picture:
        return Picture(f'<svg viewBox="0 0 {width} 100"></svg>'.encode(), "A title", "")

    def wide(*widths: int) -> list[bool]:
        text = figures_html(map(svg, widths))
        return ["wide" in figure for figure in text.split("<figure")[1:]]

    assert wide(150, 150) == [False, False]
    assert wide(150, 150, 150) == [True, False, False]
    assert wide(300, 150, 150) == [True, False, False]
    assert wide(300, 150, 150, 150) == [True, False, False, True]
    assert wide(150) == [True]


def test_tables_hide_columns_sort_by_numbers_and_escape():
    columns = [Column("<Name>"), Column("MACs", True), Column("Seed", True, False, "<why>")]
    text = table_html(columns, [[Cell("<a>"), Cell("5.2G", 5.2e9), Cell("", None)]])
    assert "&lt;Name&gt;" in text
    assert "<a>" not in text
    assert 'data-v="5200000000.0">5.2G' in text
    assert '<td class="n" hidden data-v="">' in text
    assert '<th class="n" hidden title="&lt;why&gt;">' in text
    assert "data-filter" not in text
    assert "data-filter" in table_html([Column("Name")], [[Cell(str(k))] for k in range(20)])


def test_only_files_beside_the_page_and_web_addresses_are_links():
    links = [
        Link("a", "table.csv"), Link("b", "https://host/#/runs"), Link("c", "s3://bucket/key"),
        Link("d", "/home/me/w.safetensors"), Link("e", "javascript:alert(1)"),
    ]  # fmt: skip
    assert read(links_html(links)).addresses == ["table.csv", "https://host/#/runs"]


def test_links_show_no_credentials():
    places = ("https://me:s3cret@host/w", "s3://me:s3cret@bucket/w", "https://host/w?token=s3cret")
    text = links_html(Link("weights", place) for place in places)
    assert "s3cret" not in text
    assert "https://***@host/w" in text


def linked(page: str) -> set[str]:
    return {address for address in read(page).addresses if not address.startswith("data:")}


def test_partial_corruptions_say_so_and_link_what_is_there():
    page = corruptions_page("small-1a", corruptions(LONG), "partial.")
    assert f'<p class="banner">PARTIAL: not judged yet: {LONG}.</p>' in page
    assert linked(page) == {"partial.networks.csv", "partial.cells.csv"}
    assert "robustray run MANIFEST" in page
    assert page.count("<figure") == 1, "the table of one network says what a second figure would"
    whole = corruptions_page("small-1a", corruptions())
    assert "PARTIAL" not in whole
    assert "robustray run" not in whole
    assert linked(whole) == {"networks.csv", "cells.csv"}
    assert f"mCE % ({LONG}" not in whole, "a head as long as a network's name"


def test_audit_says_what_passed_what_did_not_and_what_it_means():
    fine = [finding("nan_gradient", "ok", "0 %"), finding("batch_mates", "ok", "none")]
    text = audit_html(fine)
    assert "2 checks passed" in text
    assert PASSED["nan_gradient"] in text
    assert "found nothing of the kind" in text
    bad = audit_html([*fine, finding("zero_gradient", "error", "38 % <vanish>")])
    assert "doubtful until an adaptive attack" in bad
    assert "38 % &lt;vanish&gt;" in bad
    assert "may still hold" in audit_html([*fine, finding("logit_scale", "warning", "far")])
    assert "not audited" in audit_html([])
    assert "1 check passed" in audit_html(fine[:1])


def test_every_check_of_the_audit_has_words_for_when_it_passes():
    from robustray.attacks.checks.plausibility import CHECKS

    assert set(CHECKS) <= set(PASSED)


def test_a_partial_evaluation_says_so_and_why():
    part = {"robust": None, "partial": True, "bounds": [0.1, 0.6], "missing": ["fab-t: 0 to 100"]}
    page = evaluation_page(evaluation(**part), Evaluated("i", "<n>", failed=["out of <memory>"]))
    assert "PARTIAL: 1 of the units of work is not done." in page
    assert "between 10.0 and 60.0 %" in page
    assert "out of &lt;memory&gt;" in page
    assert "<n>" not in page


@pytest.mark.parametrize(
    ("planned", "actual", "words"),
    [(2.0, 3.0, ("2", "3", "1.50")), (None, 1234567.0, ("not known", "1,234,567"))],
)
def test_costs_are_planned_and_actual(planned, actual, words):
    text = cost_html({"passes": (planned, actual)})
    assert all(f">{word}<" in text for word in words)
