"""Whether a network does what it was trained for on the images that it is judged on.

What attacks leave of a network that guesses, that always gives one answer, or that gets images in
other units than it was trained with, says nothing of robustness. Each check compares what is seen
with what chance explains (binomial tails), and says so where the images are too few to tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from robustray.attacks.checks.units import FEW, SURE, VERY_SURE, at_least, at_most, check_network
from robustray.attacks.engine.batches import Examples, Schedule
from robustray.attacks.engine.network import Model, Network, is_correct
from robustray.attacks.result import Finding, JudgementWarning, graded
from robustray.attacks.threat import UNIT_BOX, ThreatModel

CHECKS = ("clean_accuracy", "one_class", "pixels", "constants", "normalisation")
IMAGES = 64

_NEAR_CHANCE, _MULTIPLE = 0.2, 3  # of the way from guessing to perfection; of guessing
_COLLAPSED = 0.8  # of the way from the most frequent label's share to all
_NARROW = 0.05  # of the pixel box
_NEARLY_ALL = 0.8  # a network that is right so often gets the units that it expects


def check_predictions(
    labels_N: Tensor, predictions_N: Tensor, classes: int | None = None
) -> list[Finding]:
    """Compare predictions of clean images with guessing, and with always giving one answer.

    Parameters
    ----------
    labels_N, predictions_N : Tensor
        Integers (N,), N >= 1.
    classes : int, optional
        Number of classes; as many as labels and predictions show when not given.

    Returns
    -------
    list of Finding
        "clean_accuracy" and "one_class".
    """
    labels_N, predictions_N = labels_N.cpu(), predictions_N.cpu()
    seen = 1 + max(int(labels_N.max()), int(predictions_N.max()))
    classes = max(classes or seen, 2)
    majority = int(labels_N.bincount().max()) / len(labels_N)
    correct = int((labels_N == predictions_N).sum())
    return [
        check_accuracy(correct, len(labels_N), classes, majority),
        _check_one_class(predictions_N, majority),
    ]


def check_accuracy(correct: int, total: int, classes: int, majority: float) -> Finding:
    """Tell an accuracy from that of guessing, or of always giving the most frequent label.

    Parameters
    ----------
    correct, total : int
        Images that are classified correctly, and all of them (at least one).
    classes : int
        At least 2.
    majority : float
        Share of the most frequent label, in (0, 1]; 1 / classes where it is not known.
    """
    one_label = majority == 1.0
    guess = 1 / classes if one_label else max(1 / classes, majority)
    near = min(guess + _NEAR_CHANCE * (1 - guess), _MULTIPLE * guess)
    halfway = (1 + guess) / 2
    share = correct / total
    how = "guessing" if guess == 1 / classes else "always giving the most frequent label"
    words = f"{correct} of {total} images ({100 * share:.1f} %) are classified correctly"
    against = f"{how} gets {100 * guess:.1f} %"

    def found(severity: Any, message: str) -> Finding:
        return Finding("clean_accuracy", severity, 1 - share, 1 - near, message)

    if share >= near and at_least(correct, total, guess) < SURE:
        if one_label:
            return found("info", f"{words}, but all have one label: so would be a constant answer")
        return found("ok", f"{words}; {against}")
    if at_most(correct, total, halfway) < SURE:
        return found(
            "warning",
            f"{words}, and {against}: the network seems untrained, or to have other weights, "
            "another order of the classes or other units of the pixels than it was trained with. "
            "What attacks leave of it says nothing of robustness",
        )
    return found("info", f"{words}, and {against}: the images are too few to tell these apart")


def _check_one_class(predictions_N: Tensor, majority: float) -> Finding:
    """Tell whether the network gives one answer, whatever the image."""
    total, counts = len(predictions_N), predictions_N.bincount()
    top, number = int(counts.argmax()), int(counts.max())
    share, threshold = number / total, majority + _COLLAPSED * (1 - majority)
    words = f"{number} of {total} images are taken for class {top}"
    if majority == 1.0:
        message = f"not checked: all {total} images have one label"
        return Finding("one_class", "info", share, threshold, message)
    if share > threshold and at_least(number, total, majority) >= VERY_SURE:
        message = f"{words}; they are too few to tell whether it always gives that answer"
        return Finding("one_class", "info", share, threshold, message)
    return graded(
        "one_class",
        share,
        threshold,
        f"{words}, although no label has more than {100 * majority:.0f} %: the output hardly "
        "depends on the image. Perhaps its weights were not loaded, or its input is scaled "
        "differently than in training",
        fine=words,
    )


def check_pixels(examples: Examples, threat: ThreatModel) -> Finding:
    """Look at the range of the pixels within their box."""
    low, high = threat.low, threat.high
    if threat.box is None:
        return Finding("pixels", "info", 0.0, 0.0, "not checked: the points have no box")
    lowest, highest = float(examples.x.min()), float(examples.x.max())
    unused = 1 - (highest - lowest) / (high - low)
    words = f"pixels range over [{lowest:.4g}, {highest:.4g}] of [{low:g}, {high:g}]"
    if unused > 1 - _NARROW and len(examples) < FEW:
        message = f"{words}; {len(examples)} images are too few to draw a conclusion"
        return Finding("pixels", "info", unused, 1 - _NARROW, message)
    return graded(
        "pixels",
        unused,
        1 - _NARROW,
        f"{words}: these images have almost no contrast, and eps is large compared with it. "
        "Were they divided by 255 twice, or already standardised?",
        fine=words,
    )


def look(
    model: Model,
    network: Network,
    examples: Examples,
    logits: Tensor,
    threat: ThreatModel,
    schedule: Schedule,
    *,
    always: bool = False,
) -> list[Finding]:
    """Make all checks of this module.

    Parameters
    ----------
    model, network, schedule : callable, Network, Schedule
        As in `robustray.attacks.checks.units.check_network`.
    examples : Examples
        All that are judged; the first few are asked about again.
    logits : Tensor
        What the network says of them: (N, K), where the examples are.
    threat : ThreatModel
        Whose box the pixels are in.
    always : bool
        Ask in other units even where four of five images are classified correctly.
    """
    predictions_N = logits.argmax(1)
    findings = check_predictions(examples.y_N, predictions_N, logits.shape[1])
    findings.append(check_pixels(examples, threat))
    few = slice(0, min(IMAGES, schedule.compute_shape))
    images = examples.x.ndim == 4 and threat.box == UNIT_BOX
    right = float(is_correct(logits, examples.y_N).double().mean())
    if images:
        asked = (model, network, examples.take(few), logits[few], schedule)
        findings += check_network(*asked, units=always or right < _NEARLY_ALL)
    return findings


def warn_of(findings: Iterable[Finding], stacklevel: int = 2) -> None:
    """Warn of findings that make a judgement doubtful, as Python does."""
    for finding in findings:
        if finding.severity in ("warning", "error"):
            message = f"{finding.check}: {finding.message}"
            warnings.warn(message, JudgementWarning, stacklevel=stacklevel + 1)
