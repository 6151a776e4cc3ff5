"""Pages as Chromium shows them: nothing is too wide for a phone, and no error is in the console."""

from __future__ import annotations

import pytest
from playwright.sync_api import sync_playwright

from robustray.reports import write_report
from scripts import take_screenshots
from tests.helpers.made_up_pages import study, write_pages

BROWSER = take_screenshots.find_browser()
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is on PATH")


@needs_browser
def test_tables_are_filtered_and_sorted_and_marks_say_what_they_are(tmp_path):
    write_report(study("sweep"), tmp_path)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=BROWSER, args=list(take_screenshots.OPTIONS)
        )
        try:
            tab = chromium.new_page()
            tab.goto((tmp_path / "report.html").as_uri())
            rows = tab.locator("table.sortable tbody tr:visible")
            everything = rows.count()
            tab.fill("input[type=search]", "12-8")
            assert 0 < rows.count() < everything
            tab.fill("input[type=search]", "")
            seed = tab.locator("th", has_text="Seed")
            assert not seed.is_visible()
            tab.click("summary:has-text('Columns')")
            tab.get_by_label("Seed").check()
            assert seed.is_visible()
            tab.click("th button:has-text('MACs')")
            costs = [float(cell) for cell in tab.locator("td[data-v]").evaluate_all(
                "all => all.filter(each => /^[\\d.]+G$|^[\\d.]+M$/.test(each.textContent))"
                ".filter(each => each.cellIndex === 4).map(each => each.dataset.v)")]  # fmt: skip
            assert costs == sorted(costs, reverse=True)
            assert len(costs) == everything
            tab.locator(".tip").first.hover(force=True)
            assert "MACs" in (tab.locator("#hint").text_content() or "")
        finally:
            chromium.close()


@needs_browser
def test_pages_of_each_kind_fit_a_phone_a_laptop_and_paper(tmp_path):
    assert BROWSER is not None
    pages = write_pages(tmp_path)
    broken = tmp_path / "broken.html"
    broken.write_text(
        "<!doctype html><body><p style='width: 900px'>wide</p><script>nothing()</script></body>"
    )
    shots = tmp_path / "shots"
    faults = take_screenshots.take([*map(str, pages), str(broken)], shots, BROWSER)
    assert [fault for fault in faults if not fault.startswith(str(broken))] == []
    assert any('360 px: p "wide" is too wide' in fault for fault in faults)
    assert any("nothing is not defined" in fault for fault in faults)
    assert len(list(shots.glob("*.png"))) == 4 * (len(pages) + 1)
    assert all(path.read_bytes().startswith(b"%PDF") for path in shots.glob("*.pdf"))
    assert len(list(shots.glob("*.pdf"))) == len(pages) + 1
