"""What pages are made of: self-contained HTML under one style; nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from robustray.reports.answers import Answer
from robustray.reports.rows import Link
from robustray.words import redact

_PARTS = files("robustray.reports.pages")
_STYLE, _SCRIPT = _PARTS.joinpath("page.css"), _PARTS.joinpath("page.js")
_WIDE = 2.2  # figures of more than this share their line with no other
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its bytes (PNG or SVG), what it is called, and what it shows."""

    png: bytes
    title: str
    caption: str = ""

    @property
    def aspect(self) -> float:
        """Width over height."""
        if self.png.startswith(b"<svg"):
            _, _, width, height = re.findall(rb'viewBox="([^"]+)"', self.png)[0].split()
            return float(width) / float(height)
        width, height = struct.unpack(">II", self.png[16:24])  # as PNG's first chunk has it
        return width / height


def page(kind: str, name: str, answer: Answer, sections: Iterable[str], *, banner: str = "") -> str:
    """Return a whole page: what was asked, the answer, then sections in their order.

    Parameters
    ----------
    kind, name : str
        What ran ("Sweep"), and what it is called.
    answer : Answer
        Stands on top.
    sections : iterable of str
        HTML from `section` and its like; empty ones are left out.
    banner : str
        Why the result is partial, in words.
    """
    return document(name, [_header(kind, name, answer, banner), *sections])


def document(title: str, body: Iterable[str]) -> str:
    """Return a whole page: its parts, escaped already, under the common style and script."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)} - robustray</title>\n"
        f"<style>\n{_STYLE.read_text()}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>\n{_SCRIPT.read_text()}</script>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a section of what isn't empty; nothing where all is."""
    content = "\n".join(part for part in parts if part)
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def part(title: str, *parts: str) -> str:
    """Return a part of a section, under a smaller title; nothing where all is empty."""
    content = "\n".join(part for part in parts if part)
    return f"<h3>{escape(title)}</h3>\n{content}" if content else ""


def text_html(text: str, *, soft: bool = False) -> str:
    """Return a paragraph; nothing without words."""
    return f"<p{' class=soft' if soft else ''}>{escape(text)}</p>" if text else ""


def facts_html(facts: Mapping[str, object]) -> str:
    """Return words and values as a list of definitions; those without a value are left out."""
    items = "".join(
        f"<dt>{escape(str(word))}</dt><dd>{escape(str(value))}</dd>"
        for word, value in facts.items()
        if value not in ("", None)
    )
    return f"<dl>{items}</dl>" if items else ""


def list_html(lines: Iterable[str]) -> str:
    """Return lines as a list; nothing where there are none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def figure_html(picture: Picture, wide: bool = False) -> str:
    """Return a figure with its image inside; a wide one has its line for itself."""
    title, caption = escape(picture.title), escape(picture.caption)
    kind = ' class="wide"' if wide else ""
    if picture.png.startswith(b"<svg"):
        image = picture.png.decode().replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    else:
        data = base64.b64encode(picture.png).decode()
        image = f'<img alt="{title}" src="data:image/png;base64,{data}">'
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure{kind}><h3>{title}</h3>{image}{words}</figure>"


def figures_html(pictures: Iterable[Picture]) -> str:
    """Return figures side by side where there is room."""
    pictures = list(pictures)
    wide = [picture.aspect > _WIDE for picture in pictures]
    if wide.count(False) % 2:  # one would be alone in its line: the first one, or else the last
        alone = 0 if not wide[0] else len(wide) - 1 - wide[::-1].index(False)
        wide[alone] = True
    items = "".join(map(figure_html, pictures, wide))
    return f'<div class="figures">{items}</div>' if items else ""


def commands_html(commands: Iterable[tuple[str, str]]) -> str:
    """Return commands to type, each with what it does."""
    items = "".join(
        f'<li>{escape(about)}<pre class="copy"><code>{escape(command)}</code></pre></li>'
        for about, command in commands
    )
    return f'<ul class="commands">{items}</ul>' if items else ""


def links_html(links: Iterable[Link]) -> str:
    """Return where files, checkpoints and runs are, without credentials."""
    items = "".join(f"<li>{_link(link)}</li>" for link in links)
    return f'<ul class="links">{items}</ul>' if items else ""


def cost_html(cost: Mapping[str, tuple[object, object]]) -> str:
    """Return what was planned beside what it took."""
    if not cost:
        return ""
    rows = "".join(
        f'<tr><td class="wrap">{escape(word)}</td><td class="n">{_number(planned)}</td>'
        f'<td class="n">{_number(actual)}</td><td class="n">{_ratio(planned, actual)}</td></tr>'
        for word, (planned, actual) in cost.items()
    )
    heads = '<th></th><th class="n">Planned</th><th class="n">Actual</th><th class="n">Ratio</th>'
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def details_html(title: str, *parts: str) -> str:
    """Return what is read on request, and is open in print; nothing where all is empty."""
    content = "\n".join(part for part in parts if part)
    return f"<details><summary>{escape(title)}</summary>\n{content}</details>" if content else ""


def _header(kind: str, name: str, answer: Answer, banner: str) -> str:
    parts = [
        f'<p class="kind">{escape(kind)}</p>\n<h1>{escape(name)}</h1>',
        f'<p class="banner">PARTIAL: {escape(banner)}</p>' if banner else "",
        f'<p class="question">{escape(answer.question)}</p>',
        f'<p class="answer">{escape(answer.sentence)}</p>',
        _doubts(answer.doubts),
        _tiles(answer.numbers),
    ]
    return "<header>\n" + "\n".join(part for part in parts if part) + "\n</header>"


def _doubts(doubts: Sequence[str]) -> str:
    return f'<div class="doubts"><b>Doubtful:</b>{list_html(doubts)}</div>' if doubts else ""


def _tiles(numbers: Mapping[str, str]) -> str:
    items = "".join(
        f"<div><dt>{escape(word)}</dt><dd>{escape(value)}</dd></div>"
        for word, value in numbers.items()
    )
    return f'<dl class="tiles">{items}</dl>' if items else ""


def _link(link: Link) -> str:
    about = f' <span class="soft">{escape(link.about)}</span>' if link.about else ""
    target = redact(link.target)
    scheme, colon, _ = target.partition(":")
    if (not colon and "/" not in scheme) or scheme in ("http", "https"):
        return f'<a href="{escape(target)}">{escape(link.word)}</a>{about}'
    return f'{escape(link.word)}{about}<pre class="copy"><code>{escape(target)}</code></pre>'


def _number(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return escape(str(value))


def _ratio(planned: object, actual: object) -> str:
    if isinstance(planned, int | float) and isinstance(actual, int | float) and planned:
        return f"{actual / planned:.2f}"
    return ""
