"""The table of a study for the terminal, and the words that the HTML page shares with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robustray.reports.frontier import Correlation, kendall
from robustray.reports.rows import TrialRow, count, headline, judged, metric_names
from robustray.reports.style import metric_label

_MISSING = "-"


def amount(number: float) -> str:
    """Write a count of parameters or MACs in three figures: 5.25G, 847M, 1.2k."""
    size, letter = next(
        ((s, n) for s, n in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if number >= s), (1.0, "")
    )
    value = number / size
    return (f"{value:#.3g}" if value < 999.5 else f"{value:.0f}").rstrip(".") + letter


def percent(accuracy: float | None) -> str:
    """Write an accuracy in [0, 1] as percent with two places; a dash where it is missing."""
    return _MISSING if accuracy is None else f"{100 * accuracy:.2f}"


def stages(setting: Iterable[float]) -> str:
    """Write one value per stage: "4-4-4"."""
    return "-".join(f"{value:g}" for value in setting)


def correlation(rows: Sequence[TrialRow], metric: str | None) -> Correlation | None:
    """Return Kendall's tau between MACs and the metric over the judged rows."""
    found = judged(rows, metric)
    return kendall([row.macs for row in found], [row.metrics[str(metric)] for row in found])


def correlation_words(result: Correlation | None) -> str:
    """Write Kendall's tau with its p-value and number of trials; "n/a" without."""
    if result is None:
        return "n/a (fewer than 3 trials, or no differences between them)"
    tail = "p < 0.001" if result.p_value < 0.001 else f"p = {result.p_value:.3f}"
    return f"{result.tau:.3f} ({tail}, n = {result.n})"


def ranked(rows: Iterable[TrialRow], metric: str | None) -> list[TrialRow]:
    """Return rows from the highest accuracy to the lowest, those without one last, by name."""
    return sorted(
        rows, key=lambda r: (metric not in r.metrics, -r.metrics.get(str(metric), 0.0), r.name)
    )


def text_table(
    rows: Sequence[TrialRow],
    limit: int | None = 20,
    *,
    metric: str | None = None,
    planned_trials: int | None = None,
) -> str:
    """Return an aligned table, best trials first, accuracies in percent.

    Parameters
    ----------
    rows : sequence of TrialRow
        The trials.
    limit : int or None
        With more rows than this the best and the worst limit / 2 of those with a result are
        shown; None: all.
    metric : str or None
        The accuracy to sort by; None: the last attack of the rows.
    planned_trials : int or None
        Trials that were planned; None: as many as there are rows.

    Returns
    -------
    str
        Lines without a line break at the end; the first says "PARTIAL" where results are missing.
    """
    metric = metric or headline(rows)
    ordered = ranked(rows, metric)
    metrics = metric_names(rows)
    header = ["trial", "depths", "widths", "params", "MACs", *map(metric_label, metrics)]
    lines = [_cells(row, metrics) for row in ordered]
    number = sum(metric in row.metrics for row in ordered)
    counts = count(rows, metric, planned_trials)
    foot = f"{counts}; Kendall's tau of MACs and {metric_label(metric or 'accuracy')}: "
    return "\n".join([
        *(["PARTIAL"] if counts.partial else []),
        *_shortened(_aligned([[*header, "epoch", "status"], *lines]), limit, number),
        foot + correlation_words(correlation(rows, metric)),
    ])  # fmt: skip


def _cells(row: TrialRow, metrics: Sequence[str]) -> list[str]:
    epoch = _MISSING if row.selected_epoch is None else str(row.selected_epoch)
    return [
        row.name,
        stages(row.depths),
        stages(row.widths),
        amount(row.parameters),
        amount(row.macs),
        *(percent(row.metrics.get(metric)) for metric in metrics),
        epoch,
        row.status,
    ]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Pad the cells: words to the left (the first three and the last), numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    words = {0, 1, 2, len(widths) - 1}
    return [
        "  ".join(
            cell.ljust(width) if place in words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


def _shortened(lines: list[str], limit: int | None, judged: int) -> list[str]:
    """Keep the head and the best and worst lines of those, at the start, that have a result."""
    head, body = lines[0], lines[1:]
    if limit is None or len(body) <= limit:
        return lines
    best = min((limit + 1) // 2, judged)
    worst = min(limit // 2, judged - best)
    hidden = len(body) - best - worst
    return [head, *body[:best], f"... {hidden} more ...", *body[judged - worst : judged]]
