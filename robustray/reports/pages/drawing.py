"""A matplotlib figure as a page shows it: SVG in the page's own colours, with hints to hover on."""

from __future__ import annotations

import re

from matplotlib.figure import Figure

from robustray.reports.style import render

# An artist's URL that begins so is no link but a hint: `artist.set_url(TIP + "53.1 % of ...")`.
TIP = "tip:"
_LARGEST = 400_000  # bytes of an SVG; a figure of more is a PNG
_LINKED = re.compile(rf'<a xlink:href="{TIP}([^"]*)"[^>]*>')
_BLACK = re.compile(r"(fill|stroke): ?#000000")
_WHITE_GROUND = re.compile(r'(<g id="patch_1">\s*<path d="[^"]*" style="fill: )#ffffff')


def draw(figure: Figure, name: str) -> bytes:
    """Return a figure for a page: an SVG element, or a PNG where that would be too large.

    Black becomes the colour of the page's text, so that the figure reads on dark pages too.

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
    text = _WHITE_GROUND.sub(r"\1none", text.replace(f'id="{name}-patch_1"', 'id="patch_1"'))
    text = _BLACK.sub(r"\1: currentColor", text)
    return _hints(text).encode()


def _hints(text: str) -> str:
    """Turn links that are hints into groups with a title; artists have no other links."""
    text = _LINKED.sub(r'<g class="tip"><title>\1</title>', text)
    return text.replace("</a>", "</g>")
