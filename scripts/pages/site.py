"""Which pages are made, and where in the site they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from scripts.pages import api, attacks, commands, manifests, measured, networks, repository, zoo


def make_pages() -> dict[str, str]:
    """Return the pages that no file holds, by their paths below docs/."""
    return {
        **repository.make_pages(),
        **manifests.make_pages(),
        **commands.make_pages(),
        **networks.make_pages(),
        **attacks.make_pages(),
        **zoo.make_pages(),
        **measured.make_pages(),
        **api.make_pages(),
    }


def expand(entry: Any, pages: Sequence[str]) -> Any:
    """Return a navigation in which a folder (``results/``) became the list of its pages.

    Its own page comes first, the others as they are sorted.
    """
    if isinstance(entry, dict):
        return {title: expand(one, pages) for title, one in entry.items()}
    if isinstance(entry, list):
        return [expand(one, pages) for one in entry]
    if not entry.endswith("/"):
        return entry
    found = [page for page in pages if page.startswith(entry)]
    return sorted(found, key=lambda page: (not page.endswith("/index.md"), page))


def find_foreign(html: str) -> list[str]:
    """Return what a page has a browser fetch from other places: scripts, styles, pictures."""
    tags = r"<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*"
    return re.findall(rf"{tags}\b(?:src|href|data)=[\"']?((?:https?:)?//[^\"'\s>]+)", html)
