"""The figures of an evaluation, in the order in which they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from robustray.evaluation.distances import curves_of, find_distances
from robustray.evaluation.pictures.curves import (
    CurvePoint,
    curve_title,
    distance_curves,
    distance_title,
    robustness_curve,
)
from robustray.evaluation.pictures.exhibits import find_exhibits
from robustray.evaluation.pictures.fates import (
    class_figure,
    class_title,
    count_classes,
    count_fates,
    waterfall_figure,
    waterfall_title,
)
from robustray.evaluation.pictures.sheet import example_sheet, sheet_title
from robustray.evaluation.plan import EvaluationPlan
from robustray.evaluation.units.merge import Merged
from robustray.evaluation.units.store import LoadedUnit, UnitStore
from robustray.reports.canvas import TitledFigure
from robustray.reports.words import eps_text

_FATES = (
    "From above: all images, those that are misclassified without any attack, those that each "
    "attack is the first to break, and those that withstand all of them, with a 95 % interval."
)
_CLASSES = "The most robust class is first. Misclassified images are so without any attack."
_EXAMPLES = (
    "Below each image the class that the network gives it; below each perturbation the attack and "
    "its size. Perturbations are scaled to their largest entry."
)
_CURVE = "Every eps is judged by itself. Bars: 95 % intervals."
_DISTANCES = "The share of images for which no smaller perturbation was found."


def evaluation_figures(
    plan: EvaluationPlan,
    merged: Merged,
    loaded: Sequence[LoadedUnit],
    units: UnitStore,
    points: Sequence[CurvePoint] = (),
    *,
    bare: bool = False,
) -> list[TitledFigure]:
    """Draw what an evaluation has to show.

    Parameters
    ----------
    plan : EvaluationPlan
        The evaluation.
    merged, loaded, units
        Verdicts of its main task, the units they are from, and where adversarial examples are.
    points : sequence of CurvePoint
        Of its curve over eps, where it has one.
    bare : bool
        Without title and caption inside, for a page that says both itself.
    """
    task = plan.tasks[0]
    threat = f"{task.norm}, eps = {eps_text(task.eps)}"
    caption = f"{plan.images.label}, {task.count:,} images; {threat}; {plan.suite.name}"
    figures = []
    for name, draw, title, words in _planned(plan, merged, loaded, units, points):
        inside: dict[str, Any] = {"title": f"{title}.", "caption": caption}
        if name in ("waterfall", "classes"):
            inside["partial"] = merged.partial
        figure = draw(**({} if bare else inside))
        if figure is not None:
            figures.append(TitledFigure(name, figure, title, words))
    return figures


_Planned = tuple[str, Callable[..., Figure | None], str, str]


def _planned(
    plan: EvaluationPlan,
    merged: Merged,
    loaded: Sequence[LoadedUnit],
    units: UnitStore,
    points: Sequence[CurvePoint],
) -> Iterator[_Planned]:
    """Yield name, function, title and words of the figures that there may be."""
    task, images = plan.tasks[0], plan.images
    fates = count_fates(merged, task.labels[1:])
    yield "waterfall", partial(waterfall_figure, fates), waterfall_title(fates), _FATES
    if points:
        draw = partial(robustness_curve, points, norm=task.norm, label=plan.wanted[-1].suite.name)
        yield "curve", draw, curve_title(points, task.norm), _CURVE
    if distances := find_distances(task, merged):
        curves = curves_of(distances)
        draw = partial(distance_curves, curves, task.norm, task.eps)
        yield "distances", draw, distance_title(curves, task.norm), _DISTANCES
    classes = count_classes(merged, images.class_names)
    yield "classes", partial(class_figure, classes), class_title(classes), _CLASSES
    if exhibits := find_exhibits(merged, loaded, units, images, task):
        yield "examples", partial(example_sheet, exhibits), sheet_title(exhibits), _EXAMPLES
