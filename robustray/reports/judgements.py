"""Several evaluations of one network side by side: what each leaves, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustray.files import csv_bytes

_ALARMS = ("warning", "error")


@dataclass(frozen=True)
class Judgement:
    """One evaluation.

    Attributes
    ----------
    label : str
        What it is called: the evaluation's name.
    suite, surrogate, batches : str
        What attacked, where gradients came from, and the declared batches, if any.
    images : int
        How many were judged.
    clean, robust : float
        Accuracies in [0, 1].
    interval : (float, float)
        95 % interval of the robust accuracy.
    findings : list of mapping
        Of the audit, with "check", "severity", "measured" and "message".
    curve : list of (float, float, float, float)
        eps, accuracy and the ends of its interval; may be empty.
    columns : list of (str, float)
        Of an independent suite: each column with the robust accuracy under it alone.
    published : str
        What a library publishes of the network, in words.
    """

    label: str
    suite: str
    surrogate: str
    batches: str
    images: int
    clean: float
    robust: float
    interval: tuple[float, float]
    findings: Sequence[Mapping[str, Any]] = ()
    curve: Sequence[tuple[float, float, float, float]] = field(default_factory=list)
    columns: Sequence[tuple[str, float]] = ()
    published: str = ""

    @property
    def alarms(self) -> list[Mapping[str, Any]]:
        """Findings that make the number doubtful."""
        return [finding for finding in self.findings if finding["severity"] in _ALARMS]

    def share(self, check: str) -> float | None:
        """Return what a check has measured, or None where it was not made."""
        for finding in self.findings:
            if finding["check"] == check and finding["severity"] != "info":
                return float(finding["measured"])
        return None


def table_text(rows: Sequence[Judgement]) -> str:
    """Return the table for a terminal, findings below it."""
    lines = [_HEADS, *(_words(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(_HEADS))]
    text = ["  ".join(f"{w:<{n}}" for w, n in zip(line, widths, strict=True)) for line in lines]
    seen: dict[str, str] = {}
    for row in rows:
        for finding in row.alarms:
            seen.setdefault(finding["check"], f"{finding['severity']}: {finding['message']}")
    said = [*_published(rows), *(f"{check}: {words}" for check, words in seen.items())]
    return "\n".join([*text, "", *said])


def table_csv(rows: Sequence[Judgement]) -> bytes:
    """Return the table as CSV; fractions, empty where there is no value."""
    lines: list[tuple[object, ...]] = [_COLUMNS]
    for row in rows:
        low, high = row.interval
        shares = (row.share("zero_gradient"), row.share("nan_gradient"))
        alarms = " ".join(finding["check"] for finding in row.alarms)
        suite = " ".join([row.suite, *(f"{name}={under}" for name, under in row.columns)])
        words = (row.label, suite, row.surrogate, row.batches, row.images)
        numbers = (row.clean, row.robust, low, high, *("" if s is None else s for s in shares))
        lines.append((*words, *numbers, alarms))
    return csv_bytes(lines)


_COLUMNS = (
    "evaluation", "suite", "surrogate", "batches", "images", "clean", "robust", "robust_low",
    "robust_high", "zero_gradient", "nan_gradient", "findings",
)  # fmt: skip
_HEADS = (
    "Evaluation", "Suite", "Gradients", "Batches", "Clean %", "Robust %", "95 %", "Zero grad. %",
    "NaN grad. %", "Findings",
)  # fmt: skip


def _published(rows: Sequence[Judgement]) -> list[str]:
    return list(dict.fromkeys(row.published for row in rows if row.published))


def _words(row: Judgement) -> tuple[str, ...]:
    shares = (row.share("zero_gradient"), row.share("nan_gradient"))
    return (
        row.label,
        row.suite + "".join(f", {name} {100 * under:.2f} %" for name, under in row.columns),
        row.surrogate,
        row.batches or "-",
        f"{100 * row.clean:.2f}",
        f"{100 * row.robust:.2f}",
        f"{100 * row.interval[0]:.1f}–{100 * row.interval[1]:.1f}",
        *("-" if share is None else f"{100 * share:.0f}" for share in shares),
        ", ".join(finding["check"] for finding in row.alarms)
        or ("none" if row.findings else "not audited"),
    )
