"""Sheets, figures, tables and the page of alignment studies."""

import io

import numpy as np
import pytest
from PIL import Image

from robustray.alignment.pages.figures import (
    RADII,
    ZOOM,
    DrawnCurve,
    accuracy_figure,
    histogram_figure,
    linearity_figure,
    probe_figure,
    radius_figure,
)
from robustray.alignment.pages.page import (
    COLUMNS,
    AlignmentRow,
    alignment_page,
    markdown_table,
    published_rows,
    published_similarity,
    published_value,
)
from robustray.alignment.pages.sheets import (
    comparison_figure,
    contact_sheet,
    labels_text,
    sheet_png,
    sheet_rows,
    unit_gradients,
)
from robustray.reports.html import Picture
from robustray.reports.style import render

SOURCE = np.random.default_rng(0)


def test_sheets_have_the_published_rows():
    assert [sheet_rows(n) for n in (12, 32, 50, 64, 128, 13, 1)] == [3, 4, 5, 8, 8, 1, 1]


def test_contact_sheet_goes_row_by_row_and_clips():
    x = np.linspace(-1.5, 1.5, 12).reshape(12, 1, 1, 1) * np.ones((1, 1, 4, 5))
    sheet = contact_sheet(x)
    assert sheet.shape == (3 * 4, 4 * 5, 3)
    expected = np.floor(255 * (np.linspace(-1.5, 1.5, 12).clip(-1, 1) / 2 + 0.5))
    assert sheet[::4, ::5, 0].ravel().tolist() == expected.tolist()
    colour = contact_sheet(np.stack([np.full((2, 2), v) for v in (-1, 0, 1)])[None])
    assert colour[0, 0].tolist() == [0, 127, 255]
    image = Image.open(io.BytesIO(sheet_png(x)))
    assert image.size == (20 * 32, 12 * 32)
    assert labels_text(np.arange(6)) == "0 1 2\n3 4 5\n"


def test_gradients_are_scaled_by_their_largest_value():
    scaled = unit_gradients(np.stack([np.full((1, 2, 2), -4.0), np.zeros((1, 2, 2))]))
    assert scaled[0].tolist() == [[[-1, -1], [-1, -1]]]
    assert not scaled[1].any()


def test_published_numbers_keep_their_own_rules():
    assert len(published_rows()) == 15
    for dataset, method in published_rows():
        alpha, own = (published_value(dataset, method, c) for c in ("alpha_delta_x", "alpha_x"))
        assert alpha >= own
        if dataset == "spheres":
            assert alpha == own
        if method != "baseline":
            for column in ("eps50_pgd_linf", "eps50_pgd_l2", "eps50_square_linf", "alpha_delta_x"):
                baseline = published_value(dataset, "baseline", column)
                assert published_value(dataset, method, column) > baseline
    assert published_value("spheres", "l_alpha", "eps50_pgd_l2") == 0.133
    assert published_value("copd", "pgd", "alpha_x") is None
    assert published_similarity("squares32", "projected") == 0.608
    assert published_similarity("mnist", "projected") is None


def rows():
    values = {"accuracy_pct": 99.5, "eps50_pgd_linf": 0.0061, "alpha_x": float("nan")}
    extra = {"ε50 corrected": float("inf")}
    return [
        AlignmentRow("spheres", "baseline", values, extra, "600 iterations"),
        AlignmentRow("other", "<new>", {"alpha_delta_x": 0.25}),
    ]


def test_tables_put_published_numbers_beside_measured_ones():
    lines = markdown_table(rows()).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "| 0.0061 (0.0055) |" in lines[2]
    assert "| - (0.637) | beyond |" in lines[2]
    assert "| 0.25 |" in lines[3]
    picture = Picture(b"png", "A & B", "caption")
    page = alignment_page("Study <1>", rows(), [picture], facts={"Data": "<x>"}, notes=["n & m"])
    for text in ("Study &lt;1&gt;", "&lt;new&gt;", "&lt;x&gt;", "n &amp; m", "0.0061 (0.0055)",
                 "A &amp; B", *COLUMNS.values()):  # fmt: skip
        assert text in page
    assert "<new>" not in page
    assert page == alignment_page(
        "Study <1>", rows(), [picture], facts={"Data": "<x>"}, notes=["n & m"]
    )


def test_radii_are_the_published_grid():
    assert len(RADII) == 457
    assert [round(RADII[k], 4) for k in (0, -1)] == [0.1003, 29.9641]
    assert [round(r, 3) for r in RADII[ZOOM][[0, -1]]] == [0.951, 1.367]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: accuracy_figure(
            {
                "baseline": DrawnCurve([0, 0.1], [0.1, 0.9], 0.05),
                "$x": DrawnCurve([0.1, 0], [1, 0]),
            },
            eps_label="ε",
        ),
        lambda: histogram_figure({"pgd": SOURCE.normal(size=20), "flat": np.zeros(3)}),
        lambda: histogram_figure({"flat": np.ones(3)}, title="constant"),
        lambda: radius_figure({"pgd": SOURCE.random((3, 457)), "l_alpha": SOURCE.random((2, 457))}),
        lambda: radius_figure({"pgd": SOURCE.random((3, 457))}, zoomed=True, title="Spheres"),
        lambda: linearity_figure([1, 2, np.inf], [1, np.inf, 3], title="t"),
        lambda: linearity_figure([], []),
        lambda: probe_figure([0.1, 0.2], [0.3, 0.5], accuracy_label="%", words="ρ = 1"),
        lambda: comparison_figure(
            {"x": SOURCE.random((3, 3, 8, 8)), "g": SOURCE.normal(size=(3, 3, 8, 8))},
            signed=("g",), title="$",
        ),
    ],
)  # fmt: skip
def test_figures_can_be_drawn(figure):
    image = np.asarray(Image.open(io.BytesIO(render(figure()))).convert("L"))
    assert image.min() < 100
    assert image.shape[1] > 400


def test_the_same_method_has_the_same_colour_everywhere():
    curve = DrawnCurve([0, 1], [0, 1])
    alone, among = (
        accuracy_figure(dict.fromkeys(names, curve), eps_label="ε").axes[0].lines[-1].get_color()
        for names in (("l_alpha",), ("baseline", "extra", "l_alpha"))
    )
    assert alone == among
