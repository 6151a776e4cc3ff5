from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from robustray.reports import render
from robustray.scaling.pages.grids import classes, scale_figure
from tests.helpers.made_up_studies import WIDTHS, grid, trial

pytestmark = pytest.mark.filterwarnings("error")

GRIDS = {
    "64 rows": ("depth", grid("depth", (2, 4, 5, 7))),
    "1 stage": ("width", grid("width", (4, 8, 10, 12), 1)),
    "5 stages": ("depth", grid("depth", (2, 3), 5)),
    "none": ("width", []),
}


def marks(figure: Figure) -> int:
    return sum(len(np.asarray(c.get_offsets())) for c in figure.axes[0].collections)


def texts(figure: Figure) -> str:
    found = figure.findobj(Text)
    return "\n".join(text.get_text() for text in found)  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", GRIDS)
def test_every_grid_is_drawn_with_one_mark_per_row(case):
    by, rows = GRIDS[case]
    figure = scale_figure(rows, by=by, metric="cw-40", caption="data")
    data = render(figure)
    assert data.startswith(b"\x89PNG")
    assert marks(figure) == len(rows)
    width = struct.unpack(">I", data[16:20])[0]
    assert width == pytest.approx(150 * figure.get_size_inches()[0], abs=1)


def test_rows_without_result_are_not_drawn():
    rows = grid("width", (4, 8))
    rows[0] = replace(rows[0], status="failed", metrics={})
    rows[1] = replace(rows[1], status="unfinished")
    rows[2] = replace(rows[2], metrics={"clean": 0.8})
    assert marks(scale_figure(rows, by="width", metric="cw-40")) == 5


def test_classes_cover_all_rows_once():
    rows = grid("width", WIDTHS)
    found = classes(rows, "cw-40", "width")
    names = [row.name for members in found.values() for row in members]
    assert sorted(names) == sorted(row.name for row in rows)
    assert {row.widths for row in found["uniform"]} == {(float(w),) * 3 for w in WIDTHS}
    assert len(found["efficient"]) > 5 < len(found["inefficient"])


def test_every_bar_of_every_panel_is_whole():
    figure = scale_figure(grid("width", WIDTHS), by="width", metric="cw-40")
    panels = [axes for axes in figure.axes if axes.containers]
    assert len(panels) == 3
    for axes in panels:
        heights = [[bar.get_height() for bar in group] for group in axes.containers]
        assert len(heights) == 3
        assert np.sum(heights, axis=0) == pytest.approx(np.ones(10))


def test_panels_share_one_range_of_accuracies():
    figure = scale_figure(grid("width", WIDTHS), by="width", metric="cw-40")
    lines = [axes for axes in figure.axes if any(line.get_gid() for line in axes.lines)]
    assert len({axes.get_ylim() for axes in lines}) == 1
    for axes in lines:
        low, high = axes.get_ylim()
        values = np.asarray(axes.lines[-1].get_ydata(), dtype=float)
        assert low < values.min() <= values.max() < high


def test_words_on_the_figure():
    figure = scale_figure(
        grid("depth", (2, 4)), by="depth", metric="pgd-20", caption="tiny$ set", partial=True
    )
    words = texts(figure)
    assert "MACs (G)" in words
    assert "PGD$^{20}$ robust accuracy" in words
    assert "($D_1=D_2=D_3$)" in words
    assert "PARTIAL" in words
    assert r"tiny\$ set" in words
    assert "Total depth" in [a.get_xlabel() for a in figure.axes[0].child_axes]
    assert "PARTIAL" not in texts(scale_figure(grid("depth", (2, 4)), by="depth", metric="cw-40"))


def test_tau_is_printed_or_not_available():
    rows = [trial((4,), (w,), metrics={"cw-40": w / 10}) for w in (4, 6, 8)]
    assert r"$\tau$ = 1.000 ($n$ = 3)" in texts(scale_figure(rows, by="width", metric="cw-40"))
    assert "= n/a ($n$ = 2)" in texts(scale_figure(rows[:2], by="width", metric="cw-40"))


def test_total_axis_only_where_cost_grows_with_it():
    rows = [trial((4,) * 3, (w,) * 3, macs=macs) for w, macs in ((4, 3000), (6, 2000), (8, 1000))]
    assert not scale_figure(rows, by="width", metric="cw-40").axes[0].child_axes
    assert "MACs (k)" in texts(scale_figure(rows, by="width", metric="cw-40"))


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_equal_studies_give_equal_bytes(kind):
    rows = grid("width", (4, 8))
    first, second = (
        render(scale_figure(r, by="width", metric="cw-40", caption="x"), kind)
        for r in (rows, rows[::-1])
    )
    assert first == second


def test_svg_is_well_formed():
    figure = scale_figure(grid("width", (4, 8)), by="width", metric="cw-40")
    root = ET.fromstring(render(figure, "svg"))  # noqa: S314
    assert root.tag.endswith("svg")


def test_the_users_own_style_neither_matters_nor_suffers():
    rows = grid("width", (4,), 2)
    plain = render(scale_figure(rows, by="width", metric="cw-40"))
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black"}):
        assert render(scale_figure(rows, by="width", metric="cw-40")) == plain
        assert mpl.rcParams["font.size"] == 40
