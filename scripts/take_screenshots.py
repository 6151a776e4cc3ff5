"""Take pictures of pages as people see them, and look for what is broken.

    python scripts/take_screenshots.py FOLDER PAGE...

PAGE is an HTML file or an address. Each is opened in Chromium at 360 and 1280 pixels, light and
dark, and printed to PDF; pictures go to FOLDER. Exit code 1, and a line for each fault, where
something is wider than the window (what scrolls by itself may be), or the console shows an error.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, sync_playwright

SIZES = {"phone": (360, 740), "laptop": (1280, 800)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
# Names what lies beyond the window's right edge and is not within something that scrolls.
_OVERFLOW = """() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width)
    found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  const scrolls = element => {
    for (let up = element.parentElement; up && up !== document.body; up = up.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX)) return true;
    return false;
  };
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (element.closest("svg") && element.tagName !== "svg") continue;
    if (box.width && (box.right > width + 1 || box.left < -1) && !scrolls(element))
      found.push(`${element.tagName.toLowerCase()} "${element.textContent.trim().slice(0, 40)}"`);
  }
  return found.slice(0, 5);
}"""


def find_browser() -> str | None:
    """Return where Chromium or Chrome is; None where there is none on PATH."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def take(pages: list[str], folder: Path, browser: str) -> list[str]:
    """Take all pictures of all pages into a folder, and return the faults that were seen."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=list(OPTIONS))
        try:
            return [fault for page in pages for fault in _look_at(chromium, page, folder)]
        finally:
            chromium.close()


def _look_at(chromium: Browser, page: str, folder: Path) -> Iterator[str]:
    """Take the pictures of one page; yield what is wrong with it."""
    name, address = _name(page), page if "://" in page else Path(page).resolve().as_uri()
    for size, (width, height) in SIZES.items():
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=2 if size == "phone" else 1,
        )
        tab, said = context.new_page(), []
        tab.on("console", lambda message, said=said: said.append(message))
        tab.on("pageerror", lambda error, said=said: said.append(error))
        for scheme in SCHEMES:
            tab.emulate_media(color_scheme=scheme)
            # A file has all in it; MLflow's pages fetch what they show.
            tab.goto(address, wait_until="load" if address.startswith("file:") else "networkidle")
            for overflow in tab.evaluate(_OVERFLOW):
                yield f"{page} at {width} px: {overflow} is too wide"
            tab.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)
        yield from (f"{page}: console: {text}" for text in dict.fromkeys(_errors(said)))
        if size == "laptop":
            tab.emulate_media(color_scheme="light")
            _print(tab, folder / f"{name}.pdf")
        context.close()


def _errors(said: list[Any]) -> Iterator[str]:
    for each in said:
        kind = getattr(each, "type", "error")
        if kind == "error":
            yield getattr(each, "text", None) or str(each)


def _print(tab: Page, path: Path) -> None:
    margin: Any = dict.fromkeys(("top", "bottom", "left", "right"), "12mm")
    tab.pdf(path=path, format="A4", margin=margin, print_background=True)


def _name(page: str) -> str:
    """Return how the pictures of a page begin."""
    text = page.rpartition("://")[2].removesuffix(".html")
    return "-".join("".join(c if c.isalnum() else " " for c in text).split()[-6:])


def main() -> int:
    """Take what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("pages", nargs="+", help="HTML files or addresses")
    options = parser.parse_args()
    browser = find_browser()
    if browser is None:
        print(f"error: no browser on PATH: one of {', '.join(_NAMES)}", file=sys.stderr)
        return 2
    faults = take(options.pages, options.folder, browser)
    for fault in faults:
        print(fault)
    print(f"{len(options.pages)} pages, {len(faults)} faults; pictures in {options.folder}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
