"""Take pictures of pages as people see them, and look for what is broken.

    python scripts/take_screenshots.py FOLDER PAGE...

PAGE is an HTML file, an address, or a folder: its pages are then served from this machine, as the
built documentation must be (its search does not work from files). Each page is opened in Chromium
at 360 and 1280 pixels, light and dark, and printed to PDF; pictures go to FOLDER. Exit code 1, and
a line for each fault, where a page scrolls sideways, something is cut off, or the console shows an
error. `scripts.take_mlflow_screenshots` does this with MLflow's pages.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, sync_playwright
from typing_extensions import override

SIZES = {"phone": (360, 740), "laptop": (1280, 800)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
# Names what a reader can't see: the page scrolls sideways; the window's edge goes through something
# that does not scroll by itself; a text is longer than the box that hides what lies outside. What
# lies outside as a whole is a drawer or a menu that is closed, and a text with an ellipsis says so.
_OVERFLOW = """() => {
  const width = document.documentElement.clientWidth, found = [];
  const across = document.scrollingElement.scrollWidth;
  if (across > width) found.push(`the page is ${across} px and too wide`);
  const shown = {opacityProperty: true, visibilityProperty: true};
  const brief = element => element.textContent.trim().slice(0, 40);
  const holder = (element, kinds) => {
    for (let up = element; up && up !== document.body; up = up.parentElement)
      if (kinds.includes(getComputedStyle(up).overflowX)) return up;
  };
  const holds = ["auto", "scroll", "hidden", "clip"];
  for (const element of document.body.querySelectorAll("*")) {
    if (!element.checkVisibility(shown) || element.parentElement.closest("svg")) continue;
    const box = element.getBoundingClientRect();
    const cut = box.left < width - 1 && box.right > width + 1 || box.left < -1 && box.right > 1;
    if (box.width && cut && !holder(element.parentElement, holds))
      found.push(`${element.tagName.toLowerCase()} "${brief(element)}" is too wide`);
    const text = [...element.childNodes].find(node => node.nodeType === 3 && node.data.trim());
    const hides = text && holder(element, holds);
    if (!hides || !["hidden", "clip"].includes(getComputedStyle(hides).overflowX)) continue;
    const range = document.createRange(), around = hides.getBoundingClientRect();
    range.selectNode(text);
    const line = range.getBoundingClientRect();
    const whole = line.right <= around.right + 2 || line.left >= around.right;
    if (around.width > 1 && !whole && getComputedStyle(hides).textOverflow !== "ellipsis")
      found.push(`the text "${brief(element)}" is cut off`);
  }
  return found.slice(0, 5);
}"""


@dataclass(frozen=True)
class Sight:
    """A page to be looked at.

    Attributes
    ----------
    name, address : str
        How its pictures begin, and where it is.
    settle : callable
        Waits until a tab shows all of it.
    height : int, optional
        Of the window, for a page that scrolls within it.
    known : tuple of str
        What a page of somebody else prints to the console by itself; such a page is laid out by
        them too.
    """

    name: str
    address: str
    settle: Callable[[Page], None] = lambda tab: tab.wait_for_load_state("networkidle")
    height: int | None = None
    known: tuple[str, ...] | None = None

    @classmethod
    def of(cls, page: str) -> Sight:
        """Return the sight of an HTML file or an address."""
        text = page.rpartition("://")[2].removesuffix(".html")
        name = "-".join("".join(c if c.isalnum() else " " for c in text).split()[-6:])
        return cls(name, page if "://" in page else Path(page).resolve().as_uri())


def find_browser() -> str | None:
    """Return where Chromium or Chrome is; None where there is none on PATH."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def need_browser() -> str:
    """Return where the browser is, or end with exit code 2."""
    browser = find_browser()
    if browser is None:
        print(f"error: no browser on PATH: one of {', '.join(_NAMES)}", file=sys.stderr)
        raise SystemExit(2)
    return browser


@contextmanager
def served(folder: Path) -> Generator[str]:
    """Serve a folder on this machine; yield the address."""
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _QuietHandler(SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def take(sights: Sequence[Sight], folder: Path, browser: str) -> list[str]:
    """Take all pictures of all pages into a folder, and return the faults that were seen."""
    folder.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=list(OPTIONS))
        try:
            for size, scheme in product(SIZES, SCHEMES):
                context = chromium.new_context(
                    color_scheme=scheme, device_scale_factor=2 if size == "phone" else 1
                )
                for sight in sights:
                    faults += _look_at(
                        context, sight, size, folder / f"{sight.name}-{size}-{scheme}"
                    )
                context.close()
        finally:
            chromium.close()
    return list(dict.fromkeys(faults))


def _look_at(context: BrowserContext, sight: Sight, size: str, path: Path) -> Iterator[str]:
    """Take a picture of a page, print it where it is light and large; yield what is wrong."""
    (width, height), said = SIZES[size], list[str]()
    tab = context.new_page()
    tab.set_viewport_size({"width": width, "height": sight.height or height})
    tab.on("console", lambda message: _keep_error(message, said))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(sight.address, wait_until="load")
    sight.settle(tab)
    if sight.known is None:
        for overflow in tab.evaluate(_OVERFLOW):
            yield f"{sight.name} at {width} px: {overflow}"
    for text in said:
        if not any(words in text for words in sight.known or ()):
            yield f"{sight.name}: console: {text}"
    tab.screenshot(path=path.with_name(f"{path.name}.png"), full_page=True)
    if path.name.endswith("-laptop-light"):
        _print(tab, path.with_name(f"{sight.name}.pdf"))
    tab.close()


def _keep_error(message: ConsoleMessage, said: list[str]) -> None:
    """Keep an error with the address that it is about."""
    if message.type == "error":
        said.append(" ".join(filter(None, (message.text, message.location.get("url")))))


def _print(tab: Page, path: Path) -> None:
    margin: Any = dict.fromkeys(("top", "bottom", "left", "right"), "12mm")
    tab.pdf(path=path, format="A4", margin=margin, print_background=True)


def _sights(pages: Iterable[str], open_folder: Callable[[Path], str]) -> Iterator[Sight]:
    """Yield the sights that are asked for; a folder has one for each page in it."""
    for page in pages:
        folder = Path(page)
        if "://" in page or not folder.is_dir():
            yield Sight.of(page)
            continue
        start = open_folder(folder)
        for path in sorted(folder.rglob("*.html")):
            name = path.relative_to(folder).as_posix()
            yield replace(Sight.of(name), address=f"{start}/{name}")


def main() -> int:
    """Take what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("pages", nargs="+", help="HTML files, folders or addresses")
    options = parser.parse_args()
    browser = need_browser()
    with ExitStack() as servers:
        sights = list(_sights(options.pages, lambda at: servers.enter_context(served(at))))
        return tell(sights, options.folder, browser)


def tell(sights: Sequence[Sight], folder: Path, browser: str) -> int:
    """Take pictures, print the faults that were seen, and return the exit code."""
    faults = take(sights, folder, browser)
    for fault in faults:
        print(fault)
    print(f"{len(sights)} pages, {len(faults)} faults; pictures in {folder}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
