"""Where a page says that MLflow shows its run."""

from __future__ import annotations

from robustray.reports.rows import Link
from robustray.tracking import runs_page, ui_command


def find_runs(uri: str | None, experiment: str) -> tuple[list[tuple[str, str]], list[Link]]:
    """Return the command that serves MLflow's pages, if one is needed, and their address.

    Parameters
    ----------
    uri : str or None
        The tracking URI; None: there is nothing to show.
    experiment : str
        The experiment's name.
    """
    if uri is None:
        return [], []
    command = ui_command(uri)
    start = [] if command is None else [("Start MLflow, which shows the runs:", command)]
    about = "the runs" if command is None else "the runs, once MLflow is started as above"
    return start, [Link("MLflow", runs_page(uri, experiment), about)]
