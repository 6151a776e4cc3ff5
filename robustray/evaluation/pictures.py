"""Pictures of an evaluation: a grid of adversarial examples, and accuracy against epsilon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustray.reports.style import EFFICIENT, STAGE_COLOURS, draw_caption, plain, style

_CELL, _LEFT, _TOP, _BOTTOM, _GAP = 1.5, 1.15, 0.15, 0.45, 0.42  # inches


@dataclass(frozen=True)
class Exhibit:
    """One image and its adversarial example: arrays (C, H, W) in [0, 1].

    ``words`` stand below the columns: the two classes, the attack, the distance.
    """

    clean: np.ndarray
    adversarial: np.ndarray
    label: str
    prediction: str
    attack: str
    distance: str


@dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy and its interval, in [0, 1], at one eps."""

    eps: float
    accuracy: float
    low: float
    high: float


def example_sheet(exhibits: Sequence[Exhibit], caption: str) -> Figure:
    """Draw images, their adversarial examples, and the perturbations between them.

    Perturbations are drawn around grey, each scaled to its own largest entry.

    Parameters
    ----------
    exhibits : sequence of Exhibit
        A column each.
    caption : str
        One line below.
    """
    rows = ("image", "adversarial", "perturbation")
    with style():
        width = max(_LEFT + len(exhibits) * (_CELL + 0.15) + 0.2, 7.0)
        height = _TOP + len(rows) * (_CELL + _GAP) + _BOTTOM
        figure = Figure(figsize=(width, height))
        for column, exhibit in enumerate(exhibits):
            change = exhibit.adversarial - exhibit.clean
            largest = max(float(np.abs(change).max()), 1e-12)
            pictures = (exhibit.clean, exhibit.adversarial, 0.5 + change / (2 * largest))
            words = (
                exhibit.label,
                exhibit.prediction,
                f"{exhibit.attack}, {exhibit.distance}",
            )
            for row, (picture, word) in enumerate(zip(pictures, words, strict=True)):
                left = _LEFT + column * (_CELL + 0.15)
                top = height - _TOP - row * (_CELL + _GAP)
                axes = figure.add_axes(
                    (left / width, (top - _CELL) / height, _CELL / width, _CELL / height)
                )
                _show(axes, picture)
                axes.set_xlabel(plain(word), fontsize=9, labelpad=3)
        for row, word in enumerate(rows):
            middle = height - _TOP - row * (_CELL + _GAP) - _CELL / 2
            figure.text(
                (_LEFT - 0.1) / width, middle / height, word, ha="right", va="center", fontsize=11
            )
        draw_caption(figure, caption, partial=False)
    return figure


def robustness_curve(
    points: Sequence[CurvePoint], *, norm: str, label: str, caption: str
) -> Figure:
    """Draw robust accuracy against eps, with 95 % intervals.

    Parameters
    ----------
    points : sequence of CurvePoint
        In any order; the one at eps 0 is the clean accuracy.
    norm : str
        The norm of the perturbation; linf is drawn in units of 1/255.
    label : str
        What attacked.
    caption : str
        One line below.
    """
    points = sorted(points, key=lambda point: point.eps)
    scale = 255 if norm == "linf" else 1
    eps = [point.eps * scale for point in points]
    accuracy = np.array([100 * point.accuracy for point in points])
    errors = np.array([[100 * p.low for p in points], [100 * p.high for p in points]])
    with style():
        figure = Figure(figsize=(7.2, 5.2))
        axes = figure.add_axes((0.15, 0.24, 0.81, 0.7))
        axes.errorbar(
            eps,
            accuracy,
            yerr=np.abs(errors - accuracy),
            color=EFFICIENT,
            marker="s",
            markersize=7,
            capsize=4,
            linewidth=2,
        )
        axes.set_xlabel(f"eps ({norm}, in 1/255)" if scale == 255 else f"eps ({norm})")
        axes.set_ylabel(f"% {plain(label)} accuracy")
        axes.set_ylim(-2, 102)
        axes.set_xlim(left=min(0.0, *eps) - 0.02 * max(eps))
        axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
        draw_caption(figure, caption, partial=False)
    return figure


def distance_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], norm: str, eps: float, *, caption: str
) -> Figure:
    """Draw robust accuracy against the distance of minimal perturbations, as steps.

    Parameters
    ----------
    curves : mapping of str to (array, array)
        By their labels: distances, ascending from 0, and accuracies in [0, 1] from there on.
    norm : str
        The norm of the perturbation; linf is drawn in units of 1/255.
    eps : float
        How far was looked.
    caption : str
        One line below.
    """
    scale = 255 if norm == "linf" else 1
    largest = max((float(distances[-1]) for distances, _ in curves.values()), default=0.0)
    end = min(eps, largest * 1.05) or eps
    with style():
        figure = Figure(figsize=(7.2, 5.2))
        axes = figure.add_axes((0.15, 0.24, 0.81, 0.7))
        for number, (label, (distances, accuracy)) in enumerate(curves.items()):
            axes.step(
                scale * np.append(distances, end),
                100 * np.append(accuracy, accuracy[-1]),
                where="post",
                label=plain(label),
                color=STAGE_COLOURS[number % len(STAGE_COLOURS)],
                linewidth=1.8,
            )
        axes.set_xlabel(f"distance ({norm}, in 1/255)" if scale == 255 else f"distance ({norm})")
        axes.set_ylabel("% robust accuracy")
        axes.set_ylim(-2, 102)
        axes.set_xlim(0, scale * end)
        axes.grid(linestyle="--", linewidth=0.6, alpha=0.4)
        axes.legend(fontsize=10)
        draw_caption(figure, caption, partial=False)
    return figure


def _show(axes: Axes, picture: np.ndarray) -> None:
    pixels = np.clip(picture, 0, 1).transpose(1, 2, 0)
    if pixels.shape[2] not in (1, 3):
        pixels = pixels.mean(axis=2, keepdims=True)
    if pixels.shape[2] == 1:
        axes.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
