"""Downloads that can be resumed, are bounded, and end whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

import urllib3

from robustray.zoo.records import DownloadError, look_up, request

__all__ = ["DownloadError", "Fetcher", "fetch_url"]

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429)
_HOPS = 8
_CHUNK = 1 << 16
_PAGE = 1 << 20
DRIVE = "https://drive.google.com/uc?id={}&export=download"


@dataclass(frozen=True)
class Fetcher:
    """How files are fetched.

    Attributes
    ----------
    private, plain : bool
        Allow addresses that are not public (tests), and unencrypted connections.
    drive : str
        Address of a file on Google Drive, with its id in the place of ``{}``.
    say : callable
        Takes lines for a person.
    """

    private: bool = False
    plain: bool = False
    drive: str = DRIVE
    say: Callable[[str], None] = lambda _: None


def fetch_url(
    url: str, target: Path, fetcher: Fetcher, *, limit: int, size: int | None = None
) -> str:
    """Download a file; return its SHA-256.

    What an earlier try has left in ``<target>.part`` is continued if the server still has the same
    file. The target appears whole, at the end.

    Parameters
    ----------
    url : str
        Where it is. A page of Google Drive that asks for a confirmation is answered.
    target : Path
        Where it goes; its folder must exist.
    fetcher : Fetcher
        What is allowed.
    limit : int
        Bytes, at most.
    size : int, optional
        Bytes, exactly.

    Raises
    ------
    DownloadError
        If it can't be had, is too large, cut off, or a web page instead of a file.
    """
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".json")
    answer, start = _open(url, fetcher, part, note)
    try:
        if _is_page(answer):
            page = answer.read(_PAGE)
            confirmed = _confirmation(page, url)
            if confirmed is None or "confirmed=" in url:
                raise DownloadError(f"{_host(url)} sent a web page, not a file: {_title(page)!r}")
            answer.release_conn()
            return fetch_url(confirmed, target, fetcher, limit=limit, size=size)
        total = _total(answer, start)
        if size is not None and total not in (None, size):
            raise DownloadError(f"{_host(url)} has {total} bytes; the record says {size}")
        _stream(answer, part, start, limit if size is None else min(limit, size), total, fetcher)
    except urllib3.exceptions.HTTPError as error:
        raise DownloadError(
            f"{_host(url)} broke off ({type(error).__name__}); the same command continues"
        ) from error
    finally:
        answer.close()
    done = part.stat().st_size
    if (total is not None and done != total) or (size is not None and done != size):
        raise DownloadError(f"{_host(url)} sent {done} of {total or size} bytes; try again")
    _refuse_pages(part, url)
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    part.replace(target)
    note.unlink(missing_ok=True)
    return digest


def _open(
    url: str, fetcher: Fetcher, part: Path, note: Path
) -> tuple[urllib3.BaseHTTPResponse, int]:
    """Follow redirects, each address checked; return the answer, and where it begins."""
    start, headers = 0, {}
    if part.exists() and note.exists():
        seen = _noted(note)
        if seen.get("tag"):
            start = part.stat().st_size
            headers = {"Range": f"bytes={start}-", "If-Range": seen["tag"]}
    for _ in range(_HOPS):
        place = look_up(url, private=fetcher.private, plain=fetcher.plain)
        answer = request(place, headers)
        if answer.status in _REDIRECTS:
            onward = answer.headers.get("Location", "")
            answer.close()
            url = urljoin(url, onward)
            continue
        if answer.status == 416 and start:  # the part is no longer of this file
            answer.close()
            start, headers = 0, {}
            continue
        if answer.status == 206 and start:
            begin = answer.headers.get("Content-Range", "").partition(" ")[2].partition("-")[0]
            if begin != str(start):
                raise DownloadError(f"{place.host} continues at {begin or '?'}, not at {start}")
            return answer, start
        if answer.status != 200:
            answer.close()
            words = f"{place.host} answers with status {answer.status}"
            is_away = answer.status >= 500 or answer.status in _PASSING
            raise DownloadError(words) from (ConnectionError(words) if is_away else None)
        if _is_page(answer):  # says nothing of the file, whose note stays
            return answer, 0
        tag = answer.headers.get("ETag", "")
        strong = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        note.write_text(json.dumps({"tag": strong}))
        return answer, 0
    raise DownloadError(f"more than {_HOPS} redirects")


def _noted(note: Path) -> dict[str, Any]:
    """Return what an earlier try noted of its server's file; {} where that is damaged."""
    try:
        seen = json.loads(note.read_text())
    except ValueError:
        return {}
    return seen if isinstance(seen, dict) else {}


def _stream(
    answer: urllib3.BaseHTTPResponse,
    part: Path,
    start: int,
    limit: int,
    total: int | None,
    fetcher: Fetcher,
) -> None:
    if total is not None and total > limit:
        raise DownloadError(f"the file has {total} bytes; at most {limit} are allowed")
    if start:
        fetcher.say(f"continuing at byte {start}")
    done = start
    with part.open("ab" if start else "wb") as file:
        for chunk in answer.stream(_CHUNK):
            done += len(chunk)
            if done > limit:
                file.truncate(0)
                raise DownloadError(f"the file has more than the {limit} bytes that are allowed")
            file.write(chunk)


def _total(answer: urllib3.BaseHTTPResponse, start: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


def _is_page(answer: urllib3.BaseHTTPResponse) -> bool:
    return "text/html" in answer.headers.get("Content-Type", "").lower()


def _refuse_pages(part: Path, url: str) -> None:
    """Refuse a page that calls itself a file."""
    if (title := page_title(part)) is not None:
        part.unlink()
        raise DownloadError(f"{_host(url)} sent a web page, not a file: {title!r}")


def page_title(path: Path) -> str | None:
    """Return the title of a file that is a web page, or None for another file."""
    with path.open("rb") as file:
        page = file.read(_PAGE)
    is_page = page[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return _title(page) if is_page else None


class _Form(HTMLParser):
    """Reads a page's title and its first form: address and hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action, self.fields, self.title = None, {}, ""
        self._in_title = False

    action: str | None
    fields: dict[str, str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found: dict[str, Any] = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = found.get("action")
        if tag == "input" and self.action is not None and found.get("name"):
            self.fields[found["name"]] = found.get("value") or ""
        self._in_title = tag == "title"

    def handle_data(self, data: str) -> None:
        if self._in_title and not self.title:
            self.title = " ".join(data.split())[:120]


def _read(page: bytes) -> _Form:
    form = _Form()
    form.feed(page.decode("utf-8", "replace"))
    return form


def _confirmation(page: bytes, url: str) -> str | None:
    """Return where Drive's page "can't scan this file" leads once it is confirmed, or None."""
    form = _read(page)
    if not form.action or not {"id", "confirm"} <= form.fields.keys():
        return None
    query = urlencode({**form.fields, "confirmed": "1"})
    return f"{urljoin(url, form.action)}?{query}"


def _title(page: bytes) -> str:
    return _read(page).title or "without a title"


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
