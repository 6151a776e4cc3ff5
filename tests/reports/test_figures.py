"""The figures of a study: what is drawn, from the data; and what every figure keeps to."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from robustray.reports import accuracy_figure, curves_figure, render, shares_figure
from robustray.reports.accuracy import accuracy_title
from robustray.reports.canvas import make_canvas, measure, shorten, wrap_text
from robustray.reports.curves import curve_label, curves_title
from robustray.reports.intervals import accuracy_interval
from robustray.reports.shares import shares_title
from robustray.reports.style import accuracy_label, unit
from robustray.reports.words import metric_label
from tests.helpers.made_up_studies import WIDTHS, curves, grid, trial

pytestmark = pytest.mark.filterwarnings("error")

STUDIES = {
    "2": ("width", [trial((4, 4), (4, 8)), trial((4, 4), (8, 4))]),
    "64": ("depth", grid("depth", (2, 4, 5, 7))),
    "512": ("width", grid("width", WIDTHS)),
    "5 stages": ("depth", grid("depth", (2, 3), 5)),
}


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]


def marks(axes: Axes) -> dict[str, np.ndarray]:
    """Return the points of each group of marks, by its name."""
    return {str(c.get_gid()): np.asarray(c.get_offsets()) for c in axes.collections if c.get_gid()}


@pytest.mark.parametrize("case", STUDIES)
def test_every_network_is_one_mark_and_the_frontier_is_drawn_over_them(case):
    by, rows = STUDIES[case]
    figure = accuracy_figure(rows, metric="cw-40", axes=[by], images=10000, title="T", caption="C")
    assert figure is not None
    data = render(figure)
    assert struct.unpack(">I", data[16:20])[0] == 1260
    found = marks(figure.axes[0])
    points = np.concatenate([p for name, p in found.items() if name != "efficient"])
    expected = [[row.macs, 100 * row.metrics["cw-40"]] for row in rows]
    assert np.array(sorted(points.tolist())) == pytest.approx(np.array(sorted(expected)))
    (x, y), best = found["best"][0], max(100 * row.metrics["cw-40"] for row in rows)
    assert y == pytest.approx(best)
    (line,) = [line for line in figure.axes[0].lines if line.get_gid() == "frontier"]
    front = np.asarray(line.get_xydata())
    for cost, value in expected:  # nothing lies above the frontier
        assert value <= front[front[:, 0] <= cost][-1, 1] + 1e-9
    assert front[-1, 0] == max(row.macs for row in rows)
    assert x in front[:, 0]


def test_the_best_and_its_rival_are_named_with_their_intervals():
    rows = [
        trial((4, 4), widths, macs=macs, metrics={"cw-40": value})
        for widths, macs, value in (
            ((8, 4), 1000, 0.55), ((4, 4), 600, 0.5), ((6, 6), 1050, 0.53), ((4, 8), 900, 0.4)
        )
    ]  # fmt: skip
    figure = accuracy_figure(rows, metric="cw-40", axes=["width"], images=400)
    assert figure is not None
    words = texts(figure)
    assert "best: d4-4_w8-4, 55.0 % [50.1, 59.8]" in words
    assert "uniform, equal cost: d4-4_w6-6, 53.0 % [48.1, 57.8]" in words
    bars = [c for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    ends = [
        segment[:, 1].tolist()
        for container in bars
        for segment in container.lines[2][0].get_segments()
    ]
    expected = [[100 * end for end in accuracy_interval(value, 400)] for value in (0.55, 0.53)]
    assert ends == [pytest.approx(pair) for pair in expected]
    assert accuracy_title(rows, "cw-40", ["width"]) == (
        "The best of 4 networks is 55.0 % robust under CW-40, 2.0 points above the uniform "
        "network of equal cost"
    )
    (best,) = [c for c in figure.axes[0].collections if c.get_gid() == "best"]
    tips = best.get_urls()
    assert tips == ["tip:d4-4_w8-4 (depths 4-4, widths 8-4): 55.0 % under CW-40, 1.00k MACs"]


def test_a_rival_of_another_cost_is_called_so():
    rows = [
        trial((4, 4), (8, 4), macs=1000, metrics={"cw-40": 0.55}),
        trial((4, 4), (4, 4), macs=700, metrics={"cw-40": 0.5}),
    ]
    assert accuracy_title(rows, "cw-40", ["width"]).endswith("uniform network of 0.7x the cost")
    assert (
        accuracy_title(rows[::-1], "cw-40") == "The best of 2 networks is 55.0 % robust under CW-40"
    )
    assert accuracy_title(rows[:1], "cw-40") == "d4-4_w8-4 is 55.0 % robust under CW-40"
    even = [replace(row, metrics={"cw-40": row.macs / 2000}) for row in (rows[1], rows[1])]
    assert accuracy_title(even, "cw-40", ["width"]) == (
        "The best of 2 networks, 35.0 % robust under CW-40, is a uniform one"
    )
    assert accuracy_title([], "cw-40") == "No network has a result yet"


def test_rows_without_result_are_not_drawn():
    rows = grid("width", (4, 8))
    rows[0] = replace(rows[0], status="failed", metrics={})
    rows[1] = replace(rows[1], status="unfinished")
    rows[2] = replace(rows[2], metrics={"clean": 0.8})
    figure = accuracy_figure(rows, metric="cw-40", axes=["width"])
    assert figure is not None
    found = marks(figure.axes[0])
    assert sum(len(p) for name, p in found.items() if name != "efficient") == 5


def test_one_result_is_nothing_to_compare():
    assert accuracy_figure([trial((4,), (8,))], metric="cw-40") is None
    assert accuracy_figure([], metric="cw-40") is None
    lone = [trial((4,), (w,)) for w in (4, 6, 8)]  # one stage has nothing to share
    assert shares_figure(lone, by="width", metric="cw-40") is None
    apart = [trial((4, 4), (w, w)) for w in (4, 6, 8)]  # no two have the same total
    assert shares_figure(apart, by="width", metric="cw-40") is None


@pytest.mark.parametrize("case", STUDIES)
def test_every_bar_of_shares_is_whole(case):
    by, rows = STUDIES[case]
    figure = shares_figure(rows, by=by, metric="cw-40", title="T", caption="C", partial=True)
    assert figure is not None
    assert render(figure).startswith(b"\x89PNG")
    stages = len(rows[0].widths)
    for axes in figure.axes:
        heights = [[bar.get_height() for bar in group] for group in axes.containers]
        assert len(heights) == stages
        assert np.sum(heights, axis=0) == pytest.approx(np.ones(len(heights[0])))
    assert "PARTIAL" in texts(figure)


def test_shares_are_those_of_the_best_and_of_the_worst():
    values = {(2, 6): 0.5, (4, 4): 0.6, (6, 2): 0.7, (9, 9): 0.9}
    rows = [trial((4, 4), w, metrics={"cw-40": v}) for w, v in values.items()]
    figure = shares_figure(rows, by="width", metric="cw-40")
    assert figure is not None
    best, worst = ([group[0].get_height() for group in a.containers] for a in figure.axes)
    assert best == [0.75, 0.25]
    assert worst == [0.25, 0.75]
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == ["8"]  # 18 stands alone
    assert "70.0" in texts(figure)
    assert shares_title(rows, "width", "cw-40") == (
        "The most robust networks have 75 % of their width in stage 1, the least robust 25 %"
    )
    alike = [trial((4, 4), w, metrics={"cw-40": 0.5}) for w in values]
    assert shares_title(alike, "width", "cw-40").endswith("share their width alike")


def test_curves_of_many_trials():
    rows = grid("width", WIDTHS)
    macs = {row.name: row.macs for row in rows}
    best = rows[400].name
    figure = curves_figure(
        curves(rows), macs, best=best, selected={best: 75}, caption="data", partial=True
    )
    assert figure is not None
    render(figure)
    assert len(figure.axes) == 3  # accuracy, loss, colour bar
    assert [len(a.collections[0].get_paths()) for a in figure.axes[:2]] == [512, 512]
    (star,) = [c for c in figure.axes[0].collections if c.get_gid() == "selected"]
    (front,) = [line for line in figure.axes[0].lines if line.get_gid() == "best"]
    history = dict(curves(rows)[best])
    assert np.asarray(star.get_offsets()).tolist() == [
        [75, 100 * history[75]["validation_accuracy"]]
    ]
    assert np.asarray(front.get_xdata()).tolist() == sorted(history)
    assert f"best: {best}" in texts(figure)
    assert "PARTIAL" in texts(figure)


def test_a_single_trial_has_one_curve_for_each_metric():
    history = {"a": [(1, {"validation_cw-40": 0.25, "train_loss": 2.0}), (2, {"train_loss": 1.5})]}
    metrics = ("validation_cw-40", "train_loss", "never")
    figure = curves_figure(history, {"a": 10}, metrics, selected={"a": 1})
    assert figure is not None
    accuracy, loss = figure.axes
    assert np.asarray(accuracy.lines[0].get_xydata()).tolist() == [[1, 25]]
    assert np.asarray(loss.lines[0].get_xydata()).tolist() == [[1, 2], [2, 1.5]]
    assert accuracy.get_ylabel() == "% held-out CW$^{40}$ accuracy"
    assert curve_label("train_loss") == "Training loss"
    assert curves_title(history, metrics) == (
        "The highest held-out CW-40 accuracy is 25.0 %, after epoch 1"
    )


def test_curves_skip_what_is_not_there():
    nan = {"a": [(1, {"validation_loss": float("nan")}), (2, {"validation_accuracy": 0.5})]}
    figure = curves_figure(nan, {"a": 10})
    assert figure is not None
    assert [a.get_ylabel() for a in figure.axes] == ["% held-out accuracy"]
    assert render(figure).startswith(b"\x89PNG")
    assert curves_figure({"a": [], "stranger": [(1, {"validation_loss": 2.0})]}, {"a": 10}) is None
    assert curves_figure({}, {}) is None


def test_one_diverging_trial_does_not_flatten_the_others():
    history = {
        f"t{i}": [(e, {"validation_loss": 2 - e / 100}) for e in range(99)] for i in range(50)
    }
    history["bad"] = [(98, {"validation_loss": 1e9})]
    figure = curves_figure(history, {name: i + 1 for i, name in enumerate(history)})
    assert figure is not None
    assert figure.axes[0].get_ylim()[1] < 5


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_equal_studies_give_equal_bytes(kind):
    rows = grid("width", (4, 8))
    first, second = (
        render(figure, kind)
        for r in (rows, rows[::-1])
        if (figure := accuracy_figure(r, metric="cw-40", axes=["width"], images=9, title="x"))
    )
    assert first == second
    if kind == "svg":
        assert ET.fromstring(first).tag.endswith("svg")  # noqa: S314


def test_the_users_own_style_neither_matters_nor_suffers():
    rows = grid("width", (4, 8), 2)

    def draw() -> bytes:
        figure = accuracy_figure(rows, metric="cw-40", axes=["width"], title="x")
        assert figure is not None
        return render(figure)

    plain = draw()
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black"}):
        assert draw() == plain
        assert mpl.rcParams["font.size"] == 40


def test_titles_and_captions_take_only_what_they_need():
    bare = make_canvas(4.0)
    assert bare.get_size_inches().tolist() == [8.4, 4.0]
    assert not bare.texts
    long = make_canvas(4.0, title="word " * 40, caption="tiny$ set", partial=True)
    lines = [text.get_text() for text in long.texts]
    assert " ".join(lines[:-2]) == ("word " * 40).strip()
    assert lines[-2:] == [r"PARTIAL  tiny\$ set".replace("  ", " "), "PARTIAL"]
    assert long.get_size_inches()[1] > 5


def test_text_is_broken_where_it_is_drawn_too_wide():
    text = "the best of sixty-four networks is robust " * 4
    lines = wrap_text(text, 16, 3.0, bold=True)
    assert " ".join(lines) == text.strip()
    assert max(measure(line, 16, bold=True) for line in lines) <= 3.0
    assert wrap_text("", 16, 3.0) == []
    name = shorten("depth=4-4-4,width=12-8-4,activation=silu", 13, 1.5)
    assert measure(name, 13) <= 1.5
    assert name.startswith("depth")
    assert name.endswith("silu")
    assert shorten("d4", 13, 1.5) == "d4"


@pytest.mark.parametrize(
    ("name", "label", "math"),
    [
        ("cw-40", "CW-40", "CW$^{40}$"),
        ("fgsm", "FGSM", "FGSM"),
        ("clean", "Clean", "Clean"),
        ("autoattack-standard", "AutoAttack", "AutoAttack"),
        ("$x$", "$x$", r"\$x\$"),
    ],
)
def test_metric_labels(name, label, math):
    assert metric_label(name) == label
    assert metric_label(name, math=True) == math


def test_axis_labels_call_clean_accuracy_by_its_name():
    assert accuracy_label("clean") == "% Clean accuracy"
    assert accuracy_label("fgsm") == "% FGSM robust accuracy"


def test_units():
    assert unit([2e8]) == (1e9, "G")
    assert unit([9e7]) == (1e6, "M")
    assert unit([5]) == (1.0, "")
    assert unit([]) == (1.0, "")
