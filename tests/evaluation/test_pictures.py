"""The pictures of evaluations: what is drawn, from verdicts, examples, curves and comparisons."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from robustray.evaluation.pictures.curves import (
    CurvePoint,
    curve_title,
    distance_curves,
    distance_title,
    robustness_curve,
)
from robustray.evaluation.pictures.exhibits import pick_rows
from robustray.evaluation.pictures.fates import (
    ClassFates,
    Fate,
    class_figure,
    class_title,
    count_classes,
    count_fates,
    waterfall_figure,
    waterfall_title,
)
from robustray.evaluation.pictures.sheet import Exhibit, example_sheet, sheet_title
from robustray.evaluation.units.merge import Merged
from robustray.reports import render
from robustray.reports.corruption_figures import (
    heat_figure,
    heat_title,
    severity_figure,
    severity_title,
)
from robustray.reports.intervals import wilson
from robustray.reports.judgement_figures import (
    accuracies_figure,
    accuracies_title,
    curves_figure,
    judgement_figures,
)
from robustray.reports.judgements import Judgement

pytestmark = pytest.mark.filterwarnings("error")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]


def bars(figure: Figure) -> dict[str, tuple[float, float]]:
    """Return left end and width of the bars that have a name."""
    return {
        str(bar.get_gid()): (bar.get_x(), bar.get_width())
        for bar in figure.axes[0].patches
        if isinstance(bar, Rectangle) and bar.get_gid()
    }


def verdicts(total: int | None = None, **columns: object) -> Merged:
    """Ten images of three classes: one misclassified, five broken, three robust, one open."""
    label = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    clean = label.copy()
    clean[3] = 0
    broken = np.array(["b", "a", None, None, "a", "a", None, "b", None, None], object)
    robust = np.array([False] * 2 + [True, False, False, False, True, False, True, None], object)
    found = {
        "label": label,
        "clean_prediction": clean,
        "robust": robust,
        "broken_by": broken,
        "prediction": np.array([1, 1, -1, -1, 2, 0, -1, 0, -1, -1]),
        "status.a": np.where(broken == "a", "broken", "robust"),
        "status.b": np.where(broken == "b", "broken", "robust"),
    }
    return Merged(found | columns, (), total or 10, ())


def test_fates_are_a_partition_and_stand_one_below_the_other():
    fates = count_fates(verdicts(), ["a", "b", "c"])
    assert [(fate.kind, fate.attack, fate.images) for fate in fates] == [
        ("misclassified", "", 1), ("broken", "a", 3), ("broken", "b", 2), ("broken", "c", 0),
        ("undecided", "", 1), ("robust", "", 3),
    ]  # fmt: skip
    figure = waterfall_figure(fates, title="T", caption="C", partial=True)
    assert figure is not None
    assert render(figure).startswith(b"\x89PNG")
    assert bars(figure) == {
        "all": (0, 100), "misclassified": (90, 10), "broken by a": (60, 30),
        "broken by b": (40, 20), "broken by c": (40, 0), "not decided yet": (30, 10),
        "robust": (0, 30),
    }  # fmt: skip
    low, high = (100 * end for end in wilson(3, 10))
    assert f"3 (30.0 % [{low:.1f}, {high:.1f}])" in texts(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "all",
        *list(bars(figure))[1:],
    ]
    assert waterfall_title(fates) == (
        "3 of 10 images (30.0 %) withstand every attack, a breaks 30.0 %"
    )


def test_images_without_a_row_are_undecided_and_the_last_verdict_counts():
    fates = count_fates(verdicts(total=25), ["a", "b"])
    assert sum(fate.images for fate in fates) == 25
    assert [fate.images for fate in fates if fate.kind == "undecided"] == [16]
    # A suite on all images may call one robust that is misclassified without attack.
    everyone = verdicts(robust=np.ones(10, bool).astype(object))
    assert [fate.images for fate in count_fates(everyone, ["a"])] == [0, 0, 10]
    assert waterfall_figure([Fate("robust", "", 0)]) is None
    wrong = [Fate("misclassified", "", 5), Fate("broken", "a", 2), Fate("robust", "", 3)]
    assert waterfall_title(wrong).endswith("50.0 % are misclassified without any")


def test_classes_are_drawn_whole_the_most_robust_first():
    classes = count_classes(verdicts(), ["bird", "cat", "dog"])
    assert classes == [
        ClassFates("bird", 1, 0, 2, 0), ClassFates("dog", 1, 1, 1, 0), ClassFates("cat", 1, 0, 2, 1)
    ]  # fmt: skip
    figure = class_figure(classes, title="T", caption="C")
    assert figure is not None
    render(figure)
    widths = np.array([[bar.get_width() for bar in kind] for kind in figure.axes[0].containers])
    assert widths.sum(axis=0) == pytest.approx(np.full(3, 100))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["bird", "dog", "cat"]
    assert "33 %" in texts(figure)
    assert (
        class_title(classes) == "The most robust class is bird with 33 %, the least cat with 25 %"
    )
    assert class_figure(classes[:1]) is None
    assert class_title(classes[:1]) == "Every class is 33 % robust"
    assert class_title([]) == "No class has an image yet"


def test_of_many_classes_both_ends_are_drawn():
    many = [ClassFates(f"class {k:03d}", 1000 - k, 0, k, 0) for k in range(1000)]
    figure = class_figure(many)
    assert figure is not None
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert names == [one.name for one in [*many[:12], *many[-12:]]]
    assert "... 976 more classes ..." in texts(figure)


def test_examples_are_of_varied_classes_and_attacks():
    r = np.random.default_rng(0)
    label = r.integers(0, 10, 400)
    broken = np.array([("a", "b", "c", None)[k] for k in r.integers(0, 4, 400)], object)
    merged = verdicts(
        label=label, clean_prediction=label, broken_by=broken, prediction=(label + 1) % 10,
        **{f"status.{a}": np.where(broken == a, "broken", "robust") for a in "abc"},
    )  # fmt: skip
    rows = pick_rows(merged, ["clean", "a", "b", "c"])
    assert len(rows) == len(set(rows)) == 8
    assert len(set(label[rows])) == 8
    assert sorted(Counter(broken[rows]).values()) == [2, 3, 3]
    for attack in "abc":  # any cut into ranges keeps at least the first eight of an attack
        first = np.flatnonzero(broken == attack)[:8]
        assert {row for row in rows if broken[row] == attack} <= set(first.tolist())
    assert pick_rows(verdicts(), ["clean", "a", "b"]) == [0, 4, 7, 1, 5]
    assert pick_rows(verdicts(broken_by=np.full(10, None, object)), ["a"]) == []


@pytest.mark.parametrize(("number", "channels"), [(1, 1), (3, 3), (2, 4)])
def test_a_sheet_shows_image_change_and_sum(number, channels):
    r = np.random.default_rng(0)
    exhibits = []
    for k in range(number):
        clean = r.random((channels, 8, 8), np.float32)
        change = 0.05 * r.choice([-1.0, 1.0], clean.shape)
        exhibits.append(Exhibit(clean, clean + change, f"from {k}", f"to {k}$", "apgd-ce", "8/255"))
    figure = example_sheet(exhibits, "C", title="T")
    assert render(figure).startswith(b"\x89PNG")
    assert len(figure.axes) == 3 * number
    shown = np.asarray(figure.axes[1].images[0].get_array())
    if channels < 4:  # others are shown as their mean
        assert set(np.unique(shown.round(3)).tolist()) <= {0.0, 1.0}
    assert {f"from {k}" for k in range(number)} <= set(texts(figure))
    assert sheet_title(exhibits) == (
        "apgd-ce turns “from 0” into “to 0$”: image, scaled change, their sum"
    )


def test_a_curve_has_its_points_and_intervals():
    points = [CurvePoint(8 / 255, 0.4, 0.37, 0.43), CurvePoint(0.0, 0.9, 0.88, 0.92)]
    figure = robustness_curve(points, norm="linf", label="autoattack-standard", title="T")
    assert figure is not None
    (drawn,) = figure.axes[0].containers
    assert isinstance(drawn, ErrorbarContainer)
    line, _, (bar,) = drawn.lines
    assert np.asarray(line.get_xydata()) == pytest.approx(np.array([[0, 90], [8, 40]]))
    ends = [segment[:, 1].tolist() for segment in bar.get_segments()]
    assert ends == [pytest.approx([88, 92]), pytest.approx([37, 43])]
    assert {"90.0", "40.0"} <= set(texts(figure))
    assert figure.axes[0].get_ylabel() == "% accuracy under AutoAttack"
    assert curve_title(points, "linf") == "Accuracy falls from 90.0 % to 40.0 % at eps = 8/255"
    assert curve_title(points, "l2").endswith("at eps = 0.0314")
    assert robustness_curve(points[:1], norm="l2", label="pgd") is None


def test_curves_of_distances_end_where_one_has_looked():
    curves = {"fmn": (np.array([0, 0.01, 0.02]), np.array([0.9, 0.5, 0.2]))}
    figure = distance_curves(curves, "linf", 8 / 255, title="T", caption="C")
    (line,) = figure.axes[0].lines
    drawn = np.asarray(line.get_xydata())
    assert drawn[:3] == pytest.approx(np.array([[0, 90], [2.55, 50], [5.1, 20]]))
    assert drawn[-1, 1] == pytest.approx(20)
    assert distance_title(curves, "linf") == (
        "Perturbations of linf size 2.55/255 are enough to leave half of the images"
    )
    assert distance_title({"a": (np.zeros(1), np.ones(1))}, "l2").startswith("100.0 % withstand")


def judgement(label: str, robust: float, **fields: object) -> Judgement:
    end = (robust - 0.1, robust + 0.1)
    return Judgement(label, "aa", "own", "", 100, 0.9, robust, end, **fields)  # type: ignore[arg-type]


def test_judgements_side_by_side():
    curve = [(0.0, 0.9, 0.8, 1.0), (8 / 255, 0.5, 0.4, 0.6)]
    rows = [judgement("plain", 0.75), judgement("surrogate", 0.5, curve=curve)]
    figure = accuracies_figure(rows, title="T", caption="C")
    assert figure is not None
    clean, robust = (c for c in figure.axes[0].containers if c.get_label() in ("clean", "robust"))
    assert [bar.get_width() for bar in clean] == [90, 90]
    assert [bar.get_width() for bar in robust] == [75, 50]
    assert "50.0 % [40.0, 60.0]" in texts(figure)
    assert accuracies_title(rows) == (
        "surrogate leaves the fewest images robust, 50.0 % [40.0, 60.0]"
    )
    curves = curves_figure(rows, norm="linf")
    assert curves is not None
    (drawn,) = curves.axes[0].containers
    assert isinstance(drawn, ErrorbarContainer)
    assert np.asarray(drawn.lines[0].get_xydata()) == pytest.approx(np.array([[0, 90], [8, 50]]))
    names = [found.name for found in judgement_figures(rows, norm="linf", caption="C")]
    assert names == ["accuracies", "curves"]
    assert judgement_figures(rows[:1], norm="linf", caption="C", bare=True) == []


def corrupted(networks: int) -> dict:
    fog = {"accuracy": 0.8, "severities": [{"accuracy": 0.9}, {"accuracy": 0.7}]}
    snow = {"accuracy": 0.5, "severities": [{"accuracy": 0.6}, {"accuracy": 0.4}]}
    one = {"clean": {"accuracy": 1.0}, "mean_accuracy": 0.65,
           "corruptions": {"fog": fog, "snow": snow}}  # fmt: skip
    return {
        "corruptions": ["fog", "snow"], "averaged": ["fog", "snow"], "severities": [1, 3],
        "networks": {f"net {k}": one for k in range(networks)},
    }  # fmt: skip


@pytest.mark.parametrize("networks", [1, 12])
def test_corruptions_are_rows_and_networks_columns(networks):
    result = corrupted(networks)
    heat = heat_figure(result, title="T", caption="C")
    render(heat)
    shown = np.asarray(heat.axes[0].images[0].get_array())
    assert shown == pytest.approx(np.array([[50] * networks, [80] * networks]))  # as families are
    assert [t.get_text() for t in heat.axes[0].get_yticklabels()] == ["snow", "fog"]
    assert heat_title(result) == "Hardest is snow, 50 % correct; easiest is fog, 80 %"
    lines = severity_figure(result).axes[0].lines
    assert len(lines) == networks
    points = np.array([[0, 100], [1, 75], [3, 55]])
    assert np.asarray(lines[0].get_xydata()) == pytest.approx(points)
    assert severity_title(result) == ("net 0: 100 % correct without corruption, 55 % at severity 3")
