"""Reports of a study: canonical tables, frontiers, figures, an HTML page and a text table.

Input are plain rows; where they come from is not this package's business.
"""

from robustray.reports.curves import curves_figure
from robustray.reports.figures import scale_figure
from robustray.reports.frontier import Correlation, efficient, inefficient, kendall
from robustray.reports.report import write_report
from robustray.reports.rows import Counts, GridKind, Status, StudyReport, TrialRow
from robustray.reports.style import render
from robustray.reports.table import write_provenance, write_table
from robustray.reports.text import text_table

__all__ = [
    "Correlation",
    "Counts",
    "GridKind",
    "Status",
    "StudyReport",
    "TrialRow",
    "curves_figure",
    "efficient",
    "inefficient",
    "kendall",
    "render",
    "scale_figure",
    "text_table",
    "write_provenance",
    "write_report",
    "write_table",
]
