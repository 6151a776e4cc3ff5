"""The answer and the page of a mixed classifier, from the numbers of a job."""

from __future__ import annotations

import pytest

from robustray.manifest import build_manifest
from robustray.reports.style import render
from robustray.smoothing.pages.figures import Plane, plane_figure
from robustray.smoothing.pages.report import answer_mixing, mixing_sections

BASE = {"model": {"name": "preact_resnet"}, "weights": {"uri": "net.safetensors"}}
NUMBERS = {
    "accurate_clean": 0.9, "accurate_robust": 0.0, "robust_clean": 0.7, "robust_robust": 0.5,
    "mixture_clean": 0.8, "mixture_robust": 0.4,
}  # fmt: skip


def manifest():
    return build_manifest(
        {
            "kind": "Mixing", "name": "mixed", "data": {"name": "cifar10"},
            "accurate": BASE, "robust": BASE,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("worst", "words"),
    [
        (0.35, "10.0 points above the line"),
        (0.2, "5.0 points below the line"),
        (0.25, "on the line"),
    ],
)
def test_the_answer_says_how_far_the_mixture_is_from_the_line_between_its_bases(worst, words):
    answer = answer_mixing(manifest(), NUMBERS | {"mixture_worst_case": worst}, 100)
    assert words in answer.sentence
    assert "80.0 % [71.1, 86.7] clean" in answer.sentence
    assert "linf, eps = 8/255" in answer.question
    assert answer.numbers["Robust base, robust"] == "50.0 % [40.4, 59.6]"


def test_the_page_shows_what_was_judged_in_percent():
    plane = Plane((0.9, 0.0), (0.7, 0.5), {0.5: (0.8, 0.3)}, [(0.5, 0.8, 0.3)], {})
    judged = "judged,clean,robust,above_line\naccurate,0.9,0.0,0.0\nalpha-0.5,0.8,0.3,0.0525\n"
    files = {
        "judgements.csv": judged.encode(),
        "fixed_weights.csv": b"alpha,clean,robust_at_most\n0.25,0.85,0.2\n",
        "trade_off.png": render(plane_figure(plane)),
    }
    page = "\n".join(mixing_sections(files))
    for text in ("Accurate base", "Fixed weight 0.5", ">80.00<", ">5.25<", ">0.85<"):
        assert text in page
    assert page.count("<img ") == 1
    assert "Rules of mixing" not in page
