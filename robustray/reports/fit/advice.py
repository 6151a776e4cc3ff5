"""What a fit advises: which settings to train next, and what a network of some cost would give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from robustray.reports.fit.figure import even_shape
from robustray.reports.fit.surface import FEWEST, Prediction, Shape, Surface, fit_surface
from robustray.reports.rows import TrialRow, judged
from robustray.reports.words import amount, metric_label

_NEXT = 5


def advise(
    rows: Sequence[TrialRow], metric: str | None, macs: float | None = None
) -> dict[str, Any]:
    """Return what a study's finished networks suggest, as scripts read it.

    Parameters
    ----------
    rows : sequence of TrialRow
        All trials of the study.
    metric : str or None
        The accuracy that it is judged by.
    macs : float, optional
        A cost that the study need not have: what would a network of it give?

    Returns
    -------
    dict
        "judged_by", "networks", and what the fit found, or None under "fit" where there is none.
    """
    surface, known = fit_surface(rows, metric), judged(rows, metric)
    found: dict[str, Any] = {"judged_by": metric, "networks": len(known), "fit": None}
    if surface is None:
        return found
    low, high = surface.macs
    found["fit"] = {
        "error": surface.error,
        "error_of_the_mean": surface.blind,
        "shares_of": list(surface.axes),
        "macs": [low, high],
    }
    found["next"] = _next(surface, rows, {row.name for row in known})
    if macs is not None:
        found["at"] = _at(surface, macs)
    return found


def describe_advice(found: dict[str, Any], study: str) -> str:
    """Write what `advise` found as text."""
    if found["fit"] is None:
        return (
            f"{study}: {found['networks']} networks are judged; a fit takes {FEWEST}, and more "
            "different ones than it has weights. Train some more: robustray run MANIFEST"
        )
    fit, judge = found["fit"], metric_label(found["judged_by"])
    lines = [
        f"{study}: ridge regression of {judge} accuracy on log MACs"
        + "".join(f", shares of {by}" for by in fit["shares_of"]),
        f"  from {found['networks']} networks of {amount(fit['macs'][0])} to "
        f"{amount(fit['macs'][1])} MACs; one that is left out is predicted within "
        f"{100 * fit['error']:.1f} points (by their mean: {100 * fit['error_of_the_mean']:.1f})",
    ]
    if fit["error"] >= fit["error_of_the_mean"]:
        lines.append("  WARNING: the fit predicts no better than the mean: do not rely on it")
    return "\n".join([*lines, "", *_next_lines(found["next"]), *_at_lines(found.get("at"))])


def _next(
    surface: Surface, rows: Sequence[TrialRow], known: Collection[str]
) -> list[dict[str, Any]]:
    """Return the most promising trials that are not judged: the best by expected accuracy.

    Those that were stopped for good are left out, and those with other stages than the fit's.
    """
    left = [row for row in rows if row.name not in known and row.status != "stopped"]
    left = [row for row in left if surface.fits(Shape.of(row))]
    if not left:
        return []
    shapes = [Shape.of(row) for row in left]
    pairs = zip(left, shapes, surface.predict(shapes), strict=True)
    found = [
        {"name": row.name, "status": row.status, "macs": row.macs}
        | asdict(expected)
        | {"beyond": _beyond(surface, shape.macs)}
        for row, shape, expected in pairs
    ]
    return sorted(found, key=lambda one: (-one["accuracy"], one["macs"], one["name"]))[:_NEXT]


def _at(surface: Surface, macs: float) -> dict[str, Any]:
    """Return the best of the study's divisions at a cost, and an even one."""
    shapes = sorted({(shape.width, shape.depth) for shape in surface.shapes})
    found = [Shape(macs, *shape) for shape in shapes]
    expected = surface.predict(found)
    best = max(range(len(found)), key=lambda place: expected[place].accuracy)
    even = surface.predict([even_shape(surface, macs)])[0]
    return {
        "macs": macs,
        "beyond": _beyond(surface, macs),
        "best": _division(surface, found[best], expected[best]),
        "even": asdict(even),
    }


def _division(surface: Surface, shape: Shape, expected: Prediction) -> dict[str, Any]:
    shares = {f"{by}_shares": list(shape.share(by)) for by in surface.axes}
    return {**shares, **asdict(expected)}


def _beyond(surface: Surface, macs: float) -> float:
    """Return how many times a cost lies outside those that were fitted; 1: it is among them."""
    low, high = surface.macs
    return max(macs / high, low / macs, 1.0)


def _next_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    if not found:
        return ["next: no trial of the grid is left that such a fit says anything of"]
    lines = ["next: the most promising trials that are not judged, and what they may have"]
    for one in found:
        lines.append(f"  {one['name']}: {_range(one)}, {amount(one['macs'])} MACs{_warn(one)}")
    return lines


def _at_lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    best = found["best"]
    shares = [
        f"{key.partition('_')[0]} " + "-".join(f"{100 * share:.0f}" for share in best[key]) + " %"
        for key in ("width_shares", "depth_shares")
        if key in best
    ]
    lines = ["", f"at {amount(found['macs'])} MACs{_warn(found)}:"]
    if shares:
        lines.append(f"  best division of this study ({', '.join(shares)}): {_range(best)}")
    return [*lines, f"  an even division: {_range(found['even'])}"]


def _range(one: dict[str, Any]) -> str:
    """Write an expected accuracy, its interval, and that of a single network."""
    words = [f"{100 * one[key]:.1f}" for key in ("accuracy", "low", "high", "one_low", "one_high")]
    return f"{words[0]} % [{words[1]}, {words[2]}], a single network [{words[3]}, {words[4]}]"


def _warn(one: dict[str, Any]) -> str:
    if one["beyond"] <= 1:
        return ""
    times = f"{one['beyond']:,.{0 if one['beyond'] >= 100 else 2}f}"
    return f", EXTRAPOLATED: {times} times outside the networks of the fit, if its line goes on"
