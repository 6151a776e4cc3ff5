"""Sheets, figures, tables and the page of alignment studies."""

import io
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from robustray.alignment.job import presenting
from robustray.alignment.metrics import ALPHA
from robustray.alignment.pages.answers import answer_alignment, mean_interval
from robustray.alignment.pages.epochs import epochs_figure
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
from robustray.alignment.pages.medians import (
    Median,
    median_interval,
    median_of_curve,
    median_of_distances,
)
from robustray.alignment.pages.methods import (
    AlignmentRow,
    both,
    published_lengths,
    published_similarity,
    published_value,
    spread_words,
)
from robustray.alignment.pages.sheets import (
    ClassPairs,
    comparison_figure,
    contact_sheet,
    pairs_figure,
    rows_by_class,
    sheet_png,
    sheet_rows,
    unit_gradients,
)
from robustray.manifest import build_manifest
from robustray.reports.style import render
from robustray.runtime.finished import Finished
from tests.helpers import made_up_jobs

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


def test_sheets_take_the_first_usable_images_of_each_class():
    y = [2, 0, 2, 2, 0, 3]
    assert rows_by_class(y, 4, each=2) == {0: [1, 4], 2: [0, 2], 3: [5]}
    assert rows_by_class(y, 4, np.array(y) != 3, each=1, classes=1) == {0: [1]}
    assert rows_by_class(y, 4, np.arange(6) > 2) == {0: [4], 2: [3], 3: [5]}


def test_pairs_stand_beside_each_other_in_the_row_of_their_class():
    before, after = (np.full((2, 1, 8, 8), value) for value in (-0.5, 3.0))
    figure = pairs_figure(
        [
            ClassPairs("cat", before, after, ["dog", "cat"], [True, False]),
            ClassPairs("dog", before[:1], after[:1], ["dog"], [False]),
        ],
        title="t",
    )
    pictures: list[Any] = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.shape == (8, 17)
        assert (picture[:, :8] == -0.5).all()
        assert (picture[:, 8:] == 1).all(), "clipped, and a white line between"
    titles = [axes.texts[0] for axes in figure.axes if axes.images]
    assert [title.get_text() for title in titles] == ["dog", "cat", "dog"]
    assert titles[0].get_color() != titles[1].get_color() == titles[2].get_color()


def test_epochs_are_drawn_in_percent_and_only_what_is_known():
    nothing = [np.nan, np.nan]
    table = {
        "epoch": [1, 2], "train_loss": [2.0, 1.0], "train_error": [0.5, 0.25],
        "validation_clean": [0.6, 0.7], f"{ALPHA}_val": [0.1, 0.2], "train_alignment": nothing,
    }  # fmt: skip
    figure = epochs_figure(table, selected=2, title="t")
    drawn = {
        (axes.get_ylabel(), line.get_label()): np.asarray(line.get_ydata()).tolist()
        for axes in figure.axes
        for line in axes.lines
        if line.get_label() != "selected"
    }
    assert drawn == {
        ("Loss", "training"): [2.0, 1.0],
        ("Accuracy (%)", "training batches"): [50.0, 75.0],
        ("Accuracy (%)", "validation, clean"): [60.0, 70.0],
        ("Alignment", "α, validation"): [0.1, 0.2],
    }
    assert all(np.asarray(axes.lines[-1].get_xdata())[0] == 2 for axes in figure.axes if axes.lines)
    with pytest.raises(ValueError, match="nothing to draw"):
        epochs_figure({"epoch": [1, 2], "other": [1, 2]})


def test_curves_of_several_seeds_have_a_band_and_histograms_the_published_mean():
    curve = DrawnCurve([0, 0.1], [0.0, 0.6], 0.08, spread=[0.0, 0.1], epsilon_50_spread=0.01)
    axes = accuracy_figure({"pgd": curve}, eps_label="ε").axes[0]
    (band,) = axes.collections
    edges = np.asarray(band.get_paths()[0].vertices)
    at = sorted(set(edges[edges[:, 0] == 0.1, 1].round(6)))
    assert (at[0], at[-1]) == (30, 50)
    (text,) = (text.get_text() for text in axes.get_legend().get_texts())
    assert "0.08 ± 0.01" in text
    axes = histogram_figure({"direct": np.array([0.1, 0.3])}, published=0.9).axes[0]
    assert [np.asarray(line.get_xdata())[0] for line in axes.lines] == [pytest.approx(0.2), 0.9]
    assert axes.get_xlim()[1] > 0.9
    assert "published 0.9" in axes.get_title(loc="left")


def test_gradients_are_scaled_by_their_largest_value():
    scaled = unit_gradients(np.stack([np.full((1, 2, 2), -4.0), np.zeros((1, 2, 2))]))
    assert scaled[0].tolist() == [[[-1, -1], [-1, -1]]]
    assert not scaled[1].any()


def test_published_numbers_keep_their_own_rules():
    text = (files("robustray.alignment.pages") / "published.yaml").read_text(encoding="utf-8")
    rows = [(row["dataset"], row["method"]) for row in yaml.safe_load(text)["robustness"]]
    assert len(rows) == 15

    def published(dataset: str, method: str, column: str) -> float:
        value = published_value(dataset, method, column)
        assert value is not None
        return value

    for dataset, method in rows:
        alpha, own = (published(dataset, method, c) for c in ("alpha_delta_x", "alpha_x"))
        assert alpha >= own
        if dataset == "spheres":
            assert alpha == own
        if method != "baseline":
            for column in ("eps50_pgd_linf", "eps50_pgd_l2", "eps50_square_linf", "alpha_delta_x"):
                baseline = published(dataset, "baseline", column)
                assert published(dataset, method, column) > baseline
    assert published_value("spheres", "l_alpha", "eps50_pgd_l2") == 0.133
    assert published_value("copd", "pgd", "alpha_x") is None
    assert published_similarity("squares32", "projected") == 0.608
    assert published_similarity("mnist", "projected") is None
    outer = published_lengths("spheres", "direct", 1)
    assert outer == {"x": 1.3, "delta_x": 0.34, "x_prime": 1.0}
    assert published_lengths("squares", "direct", 1) == {}


def test_tables_put_published_numbers_beside_measured_ones():
    values = {"accuracy_pct": 99.5, "eps50_pgd_linf": 0.0061, "alpha_x": float("nan")}
    row = AlignmentRow("spheres", "baseline", values, spread={"eps50_pgd_linf": 0.00042})
    assert both(row, "eps50_pgd_linf") == "0.0061 ± 0.00042 (0.0055)"
    assert both(row, "alpha_x") == "- (0.637)"
    assert both(AlignmentRow("other", "<new>", {"alpha_delta_x": 0.25}), "alpha_delta_x") == "0.25"
    assert spread_words(float("inf"), None) == "beyond"


def test_medians_have_the_interval_of_their_error_rates():
    curve = pd.DataFrame({"eps": [0.0, 0.1, 0.2], "error": [0.0, 0.25, 0.75]})
    middle, low, high = median_interval(curve, 400)
    assert middle == pytest.approx(0.15)
    assert 0.14 < low < middle < high < 0.16
    few = median_interval(curve, 8)
    assert few[1] < low
    assert few[2] > high
    weak = curve.assign(error=[0.0, 0.1, 0.48])
    assert median_interval(weak, 100)[0] == median_interval(weak, 100)[2] == np.inf


def test_means_have_the_interval_of_their_spread():
    values = pd.Series([0.0, 1.0] * 50)
    assert mean_interval(values) == "0.500 [0.402, 0.598]"
    assert mean_interval(values[:1]) == "0.000"


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
        lambda: histogram_figure({"the only example": np.array([0.5])}),
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


def claim(eps, errors, images=100):
    curve = pd.DataFrame({"eps": eps, "error": errors})
    return median_of_curve(curve, images).claim(f"{images} examples", "PGD l2")


def test_medians_at_the_edges_are_called_what_they_are():
    assert claim([0, 0.1, 0.2], [0, 0.25, 0.75]).startswith(
        "half of 100 examples withstand PGD l2 up to ε = 0.15 [0.13"
    )
    assert claim([0, 0.1, 0.2], [0, 0.1, 0.2]) == (
        "more than half of 100 examples withstand PGD l2 at every strength up to ε = 0.2"
    )
    near = claim([0, 0.1, 0.2], [0, 0.1, 0.48])
    assert near.endswith("up to ε = 0.2 [0.181, more]")
    assert claim([0, 0.1], [0.5, 0.9]) == (
        "at least half of 100 examples are misclassified without any attack"
    )
    found = median_of_distances([0.1, 0.2, 0.3, float("inf")])
    assert found.claim("4 examples", "Carlini-Wagner l2").startswith(
        "half of 4 examples withstand Carlini-Wagner l2 up to distance 0.2 [0.1, more]"
    )
    nothing = median_of_distances([float("inf")] * 3)
    assert "finds nothing that fools half of 3" in nothing.claim("3", "Carlini-Wagner l2")
    assert Median(float("inf"), "", 0.2).size == "more than ε = 0.2"


def answered(job: Finished):
    return answer_alignment(job.manifest, job.result, job.files)


def test_a_comparison_ranks_by_the_median_that_counts_and_says_where_there_is_none():
    found = answered(made_up_jobs.comparison())
    assert found.sentence == (
        "With L_α, more than half of the examples withstand PGD l∞ at every strength up to "
        "ε = 0.2 (Baseline: ε = 0.0355 ± 0.00071); alignment α is 0.505 ± 0.0071 with L_α, "
        "0.105 ± 0.0071 with Baseline."
    )
    assert found.numbers["PGD l∞, L_α"] == "more than ε = 0.2"
    alone = answered(made_up_jobs.comparison(("baseline",)))
    assert alone.sentence == (
        "With Baseline, half of the examples withstand PGD l∞ up to ε = 0.0355 ± 0.00071; "
        "alignment α is 0.105 ± 0.0071 with Baseline."
    )
    assert "()" not in alone.sentence


def test_a_comparison_calls_equal_methods_equal_and_counts_seeds_that_reach_no_median():
    job = made_up_jobs.comparison()
    table = pd.read_csv(io.BytesIO(job.files["comparison.csv"]))
    medians = "PGD l∞ ε50 corrected"

    def sentence(values):
        content = table.assign(**{medians: values}).to_csv(index=False).encode()
        files = {**job.files, "comparison.csv": content}
        return answer_alignment(job.manifest, job.result, files).sentence

    assert sentence([np.inf] * 4).startswith("With Baseline and L_α, more than half")
    mixed = sentence([0.1, 0.1, 0.15, np.inf])
    assert "up to ε = 0.2 for 1 of 2 seeds (Baseline: ε = 0.1 ± 0)" in mixed
    lucky = sentence([0.01, np.inf, np.inf, np.inf])
    assert lucky.startswith("With L_α, more than half"), "one seed of two is less than both"
    assert sentence([0.01, np.inf, 0.15, 0.15]).startswith("With L_α, half of the examples")


def test_a_curve_that_never_reaches_half_is_not_given_a_median_in_its_figure():
    curve = DrawnCurve([0, 0.1], [0.0, 0.4], 0.19)
    legend: Any = accuracy_figure({"pgd": curve}, eps_label="ε").axes[0].get_legend()
    (text,) = (text.get_text() for text in legend.get_texts())
    assert text == "PGD, never below 50 %"


@pytest.mark.parametrize(
    ("job", "stage", "wanted"),
    [
        (made_up_jobs.estimate, "evaluation", "CLASSIFIER-JOB"),
        (made_up_jobs.classifier, "comparison", "OTHER-JOB"),
    ],
)
def test_what_may_be_done_next_is_a_manifest_of_its_own(job, stage, wanted):
    done = job()
    texts = [text for _, text in presenting.next_commands(done) if text.startswith("kind:")]
    (text,) = texts
    manifest: Any = build_manifest(yaml.safe_load(text.replace(wanted, "another")))
    assert manifest.stage == stage, "nothing is trained again"
    assert manifest.data == done.manifest.data
    assert done.id in text
