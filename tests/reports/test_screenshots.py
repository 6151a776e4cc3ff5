"""Pages as Chromium shows them: nothing is too wide for a phone, and no error is in the console."""

from __future__ import annotations

import pytest

from scripts import take_screenshots
from tests.helpers.made_up_pages import write_pages

BROWSER = take_screenshots.find_browser()
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is on PATH")


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
