"""A matplotlib figure as a page shows it: SVG in the page's own colours, with hints to hover on."""

from __future__ import annotations

import re

from matplotlib.figure import Figure

from robustray.reports.style import render

# An artist's URL that begins so is no link but a hint: `artist.set_url(TIP + "53.1 % of ...")`.
TIP = "tip:"
_LARGEST = 400_000  # bytes of an SVG; a figure of more is a PNG
_LINKED = re.compile(rf"<a xlink:href=([\"']){TIP}(.*?)\1[^>]*>")
_GREY = re.compile(r'(<g style=")?(fill|stroke): #([0-9a-f]{2})\3\3(?![0-9a-f])')
_GROUND = re.compile(r'(<g id="[^"]*patch_1">\s*<path d="[^"]*" style="fill: )#ffffff')


def draw(figure: Figure, name: str) -> bytes:
    """Return a figure for a page: an SVG element, or a PNG where that would be too large.

    Black and dark greys become the colour of the page's text and white that of its background, so
    that the figure reads on dark pages too.

    Parameters
    ----------
    figure : Figure
        Artists whose URL begins with ``TIP`` show the rest of it where a pointer rests on them.
    name : str
        Unique on the page: ids within the SVG begin with it.
    """
    text = render(figure, "svg").decode()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    if len(text) > _LARGEST:
        return render(figure)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    text = _GROUND.sub(r"\1none", text)
    text = _GREY.sub(_themed, text)
    return _hints(text).encode()


def _hints(text: str) -> str:
    """Turn links that are hints into groups with a title; artists have no other links."""
    text = _LINKED.sub(r'<g class="tip"><title>\2</title>', text)
    return text.replace("</a>", "</g>")


def _themed(found: re.Match[str]) -> str:
    """Return a grey in the page's own colours; those between stay what they are."""
    start, level = f"{found[1] or ''}{found[2]}", int(found[3], 16)
    if level < 0x60:
        return f"{start}: currentColor"
    is_text = found[1] is not None  # white text stands on a colour
    return found[0] if level < 0xFF or is_text else f"{start}: var(--back)"
