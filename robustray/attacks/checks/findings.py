"""What a check of a judgement has found, as data that stands beside every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal["ok", "info", "warning", "error"]


class JudgementWarning(UserWarning):
    """A robust accuracy that means little: the network or the images seem not to be as intended."""


@dataclass(frozen=True)
class Finding:
    """What one check has measured.

    Attributes
    ----------
    check : str
        Its name.
    severity : {"ok", "info", "warning", "error"}
        "error": the robust accuracy can't be believed; "warning": it may be too high, or be that
        of a network that does not work; "info": the check could not be made.
    measured, threshold : float
        ``measured`` above ``threshold`` is a finding.
    message : str
        What it means, and what to do.
    """

    check: str
    severity: Severity
    measured: float
    threshold: float
    message: str

    def __post_init__(self) -> None:
        assert self.severity in get_args(Severity)


def graded(
    check: str,
    measured: float,
    threshold: float,
    message: str,
    *,
    fine: str,
    grave: float | None = None,
) -> Finding:
    """Return a finding: "ok" up to the threshold, "error" above ``grave``, else "warning"."""
    severity: Severity = "ok"
    if measured > threshold:
        severity = "error" if grave is not None and measured > grave else "warning"
    words = fine if severity == "ok" else message
    return Finding(check, severity, float(measured), float(threshold), words)
