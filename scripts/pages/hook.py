"""Adds pages that are made from the code to the site; MkDocs calls this as it builds."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from scripts.pages.repository import mend_links  # noqa: E402 (the path is needed first)
from scripts.pages.site import expand, find_foreign, make_pages  # noqa: E402

# Stubs of lazy packages name every member twice, which griffe can't resolve; pages name modules.
logging.getLogger("mkdocs.plugins.griffe").addFilter(
    lambda record: "/__init__.pyi" not in record.getMessage()
)
_LOG = logging.getLogger("mkdocs.hooks.pages")
_pages = cache(make_pages)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let a folder in the navigation stand for its pages."""
    docs = Path(config.docs_dir)
    written = [str(path.relative_to(docs)) for path in docs.rglob("*.md")]
    config.nav = expand(config.nav, sorted([*written, *_pages()]))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those of the folder docs/."""
    for path, text in _pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links to files beside docs/ point to the pages that the site has of them."""
    if page.file.src_uri in _pages():
        return markdown
    return mend_links(markdown, page=page.file.src_uri)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Warn of what a reader's browser would fetch from elsewhere; a strict build then fails."""
    for asset in find_foreign(output):
        _LOG.warning("%s takes %s from elsewhere", page.file.src_uri, asset)
    return output
