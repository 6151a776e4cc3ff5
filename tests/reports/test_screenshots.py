"""Pages as Chromium shows them: nothing is too wide for a phone, and no error is in the console."""

from __future__ import annotations

import pytest
from playwright.sync_api import sync_playwright

from robustray.reports import write_report
from scripts import take_screenshots
from scripts.take_mlflow_screenshots import find_sights, mlflow_served
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
    cut = tmp_path / "cut.html"
    drawer = "<nav style='position: fixed; left: -250px; width: 242px'>a closed drawer</nav>"
    cut.write_text(
        f"<!doctype html><body>{drawer}<div style='width: 200px; overflow: hidden; "
        "white-space: nowrap'>a text that is longer than the box that holds it</div></body>"
    )
    sights = [take_screenshots.Sight.of(str(page)) for page in (*pages, broken, cut)]
    *whole, bad, short = [sight.name for sight in sights]
    faults = take_screenshots.take(sights, shots, BROWSER)
    assert [fault for fault in faults if fault.startswith(tuple(whole))] == []
    assert {fault.partition(": ")[2] for fault in faults if fault.startswith(short)} == {
        'the text "a text that is longer than the box that " is cut off'
    }
    assert all(fault.startswith((bad, short)) for fault in faults)
    assert any('360 px: p "wide" is too wide' in fault for fault in faults)
    assert any("nothing is not defined" in fault for fault in faults)
    assert len(list(shots.glob("*.png"))) == 4 * len(sights)
    assert all(path.read_bytes().startswith(b"%PDF") for path in shots.glob("*.pdf"))
    assert len(list(shots.glob("*.pdf"))) == len(sights)


@needs_browser
def test_a_folder_is_served_and_each_of_its_pages_looked_at(tmp_path, monkeypatch, capsys):
    site = tmp_path / "site"
    (site / "guides").mkdir(parents=True)
    (site / "index.html").write_text("<!doctype html><link rel=icon href=data:,><p>home")
    (site / "guides/index.html").write_text(
        "<!doctype html><link rel=icon href=data:,><script>fetch('../index.html')</script>"
    )  # a page of a file could not
    monkeypatch.setattr("sys.argv", ["take_screenshots", str(tmp_path / "shots"), str(site)])
    assert take_screenshots.main() == 0
    assert "2 pages, 0 faults" in capsys.readouterr().out
    assert len(list((tmp_path / "shots").glob("guides-index-*.png"))) == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_browser
def test_mlflows_pages_show_what_was_sent_and_no_error_of_ours(undisturbed, tmp_path, monkeypatch):
    assert BROWSER is not None
    monkeypatch.setattr(take_screenshots, "SIZES", {"laptop": (1280, 800)})
    monkeypatch.setattr(take_screenshots, "SCHEMES", ("light",))
    uri = undisturbed.environment["MLFLOW_TRACKING_URI"]
    with mlflow_served(uri) as address:
        sights = list(find_sights(uri, "small", address))
        assert take_screenshots.take(sights, tmp_path, BROWSER) == []
    assert {path.name.removesuffix("-laptop-light.png") for path in tmp_path.glob("*.png")} == {
        "mlflow-runs", "mlflow-study", "mlflow-study-metrics", "mlflow-study-artifacts",
        "mlflow-trial", "mlflow-trial-metrics", "mlflow-trial-artifacts", "mlflow-model",
        "mlflow-registered", "mlflow-version",
    }  # fmt: skip
