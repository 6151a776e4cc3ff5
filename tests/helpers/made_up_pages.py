"""A page of each kind, of made-up results: what people look at, without a run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robustray.reports import StudyReport, write_report
from robustray.reports.html import Picture
from robustray.reports.intervals import wilson
from robustray.reports.judgements import Judgement
from robustray.reports.pages.corruptions import corruptions_page
from robustray.reports.pages.evaluation import Evaluated, evaluation_page
from robustray.reports.pages.judgements import judgements_page
from robustray.reports.rows import Link
from robustray.scaling.pages.paper import paper_page
from robustray.scaling.pages.published import published_tables
from robustray.scaling.pages.tables import compare_table
from tests.helpers import made_up_jobs
from tests.helpers.made_up_studies import curves, grid

NAMES = ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")
LONG = "a_network_of_somebody_with_a_very_long_name_" * 3


def study(name: str, count: int | None = None, **changes: Any) -> StudyReport:
    """A study of a width grid, or of its first rows."""
    rows = grid("width", (4, 8, 12))[:count]
    fields: dict[str, Any] = {
        "study": name, "study_id": f"{name}-1a2b3c4d5e", "grid": "width", "rows": rows,
        "data_label": "cifar10[data_batch_1][:4000]", "manifest_hash": "f" * 64,
        "threat": "linf, eps = 8/255", "cost": {"device-hours": (2.0, 3.1)},
        "recipe": {"objective": "trades, beta 6"}, "curves": curves(rows),
        "tested": dict.fromkeys(("clean", "pgd-20", "cw-40"), 1000),
        "commands": [("Attack every network:", f"robustray evaluate --study {name}-1a2b3c4d5e")],
        "links": [Link("Weights", f"s3://bucket/{'f' * 64}.safetensors")],
        "versions": {"torch": "2.14.1"}, "devices": ["CPU, 2 threads"],
    }  # fmt: skip
    return StudyReport(**fields | changes)


def picture(title: str) -> Picture:
    """A figure of noise, as wide as two."""
    noise = np.random.default_rng(0).integers(0, 255, (300, 1500, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "png")
    return Picture(content.getvalue(), title, "What is seen, and how to read it.")


def rate(correct: int, total: int) -> dict[str, Any]:
    """An accuracy as results have it."""
    interval = list(wilson(correct, total))
    return {"correct": correct, "total": total, "accuracy": correct / total,
            "interval_95": interval}  # fmt: skip


def finding(check: str, severity: str, message: str) -> dict[str, Any]:
    """What one check of an audit found."""
    return {"check": check, "severity": severity, "measured": 0.0, "threshold": 0.0,
            "message": message}  # fmt: skip


def evaluation(**changes: Any) -> dict[str, Any]:
    """The result of an evaluation."""
    left, attacks = 840, []
    for label, broken in (("apgd-ce", 290), ("apgd-t", 41), ("fab-t", 0), ("square", 2)):
        attacks.append({"label": label, "attacked": left, "broken": broken, "forwards": 10**7,
                        "backwards": 10**6, "accuracy_after": (left - broken) / 1000})  # fmt: skip
        left -= broken
    audit = [
        finding("nan_gradient", "ok", "0 % of the correct images have gradients not finite"),
        finding("batch_mates", "ok", "the output does not depend on the rest of its batch"),
        finding("constants", "info", "not checked: the network does not standardise"),
    ]
    return {
        "subject": {"network": {"factory": f"mine:{LONG}"}, "weights_sha256": "e" * 64},
        "data": {"label": "cifar10", "count": 1000, "sha256": "d" * 64, "name": "cifar10"},
        "threat": {"norm": "linf", "eps": 8 / 255}, "suite": {"name": "autoattack-standard"},
        "engine": {"name": "robustray"}, "seed": 0, "search_dtype": "float32",
        "compute_shape": 128, "partial": False, "missing": [], "clean": rate(840, 1000),
        "robust": rate(left, 1000), "bounds": None, "attacks": attacks, "audit": audit,
    } | changes  # fmt: skip


def judgement(label: str, robust: float, *findings: Mapping[str, Any]) -> Judgement:
    """One of several evaluations of a network."""
    return Judgement(label, "autoattack-standard", "its own", "", 1000, 0.84, robust,
                     wilson(robust * 1000, 1000), findings)  # fmt: skip


def corruptions(*missing: str) -> dict[str, Any]:
    """The result of a job of corruptions: two networks, one of them with a long name."""

    def network(start: int) -> dict[str, Any]:
        cells = [{"severity": k, **rate(start - 60 * k, 1000)} for k in (1, 2, 3)]
        mean = sum(cell["accuracy"] for cell in cells) / 3
        found = {"accuracy": mean, "ce": 1.0, "relative_ce": 1.0, "severities": cells}
        return {
            "clean": {"severity": 0, **rate(start, 1000)},
            "mean_accuracy": mean,
            "mce": 1.0,
            "relative_mce": 1.0,
            "corruptions": dict.fromkeys(NAMES, found),
        }

    networks = {"first": network(900), LONG: network(800)}
    return {
        "networks": {name: one for name, one in networks.items() if name not in missing},
        "subjects": {name: {"weights_sha256": "e" * 64} for name in networks},
        "corruptions": list(NAMES), "averaged": list(NAMES), "severities": [1, 2, 3],
        "baseline": {"name": LONG}, "data": {"name": "cifar10-c", "arguments": None},
    }  # fmt: skip


def paper() -> str:
    """The published study's page without a measurement, with one of its tables."""
    table = published_tables()["table2"]
    return paper_page([(table, compare_table(table, []))], [picture("A scatter")], "Kendall's tau.")


def write_pages(folder: Path) -> list[Path]:
    """Write a page of each kind; return their paths."""
    doubt = finding("zero_gradient", "error", "38 % of the correct images have zero gradients")
    about = Evaluated("mine-1a2b3c4d5e", "mine", "published: clean 85.0 %, robust 51.0 %",
                      files=["table.csv"], failed=["apgd-t: out of memory"])  # fmt: skip
    rows = [judgement("plain", 0.51, doubt), judgement(LONG, 0.06)]
    part = {"robust": None, "partial": True, "bounds": [0.1, 0.6], "missing": ["fab-t: 0 to 100"]}
    texts = {
        "evaluation": evaluation_page(evaluation(audit=[doubt]), about, [picture("A waterfall")]),
        "partial_evaluation": evaluation_page(evaluation(**part), about),
        "corruptions": corruptions_page("small-1a2b3c4d5e", corruptions()),
        "partial_corruptions": corruptions_page("small-1a2b3c4d", corruptions(LONG), "partial."),
        "judgements": judgements_page("mine", rows, [picture("A curve")], ["table.csv"]),
        "paper": paper(),
        **{name: made() for name, made in made_up_jobs.PAGES.items()},
    }
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.html")
        paths[-1].write_text(text)
    for name, count in (("sweep", None), ("training", 1)):
        write_report(study(name, count, grid="none" if count else "width"), folder / name)
        paths.append(folder / name / "report.html")
    return paths
