from .accuracy import accuracy_figure
from .curves import curves_figure
from .frontier import Correlation, efficient, inefficient, kendall
from .report import columns, write_provenance, write_report, write_table
from .rows import Counts, GridKind, Status, StudyReport, TrialRow
from .shares import shares_figure
from .style import render, text_table

__all__ = [
    "Correlation",
    "Counts",
    "GridKind",
    "Status",
    "StudyReport",
    "TrialRow",
    "accuracy_figure",
    "columns",
    "curves_figure",
    "efficient",
    "inefficient",
    "kendall",
    "render",
    "shares_figure",
    "text_table",
    "write_provenance",
    "write_report",
    "write_table",
]
