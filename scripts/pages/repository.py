"""Files of the repository's top folder as pages: what changed, how to contribute, security."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def make_pages() -> dict[str, str]:
    """Return each file, its links as they are from the site's top."""
    return {
        page: mend_links((ROOT / name).read_text(), beside="docs") for name, page in PAGES.items()
    }


def mend_links(text: str, *, page: str = "", beside: str = ".") -> str:
    """Let links between docs/ and the files beside it point to where the site has their targets.

    Parameters
    ----------
    text : str
        Markdown.
    page : str
        Its path below docs/.
    beside : str
        For a file outside docs/, where docs/ is from there.
    """
    folder = posixpath.dirname(page)

    def mend(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        path = posixpath.relpath(path, beside) if beside != "." else path
        found = PAGES.get(path.removeprefix("../"), path) if path.startswith("../") else path
        return f"]({posixpath.relpath(found, folder or '.')}{match[2] or ''})"

    return re.sub(r"\]\((?![a-z]+:)([^)#\s]+)(#[^)]*)?\)", mend, text)
