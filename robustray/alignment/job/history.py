"""What each epoch of a training gave, from the journal that its commits carry."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from robustray.alignment.pages.epochs import epochs_figure
from robustray.reports.style import render
from robustray.store import CheckpointRecord


def epoch_table(records: Iterable[CheckpointRecord]) -> pd.DataFrame:
    """Return the metrics of each committed epoch, by epoch; the column "epoch" comes first.

    They are the same however often the training was interrupted.
    """
    events = (event for record in records for event in record.info["journal"])
    found = {one["epoch"]: one["metrics"] for one in events if one["event"] == "epoch"}
    return pd.DataFrame([{"epoch": epoch, **found[epoch]} for epoch in sorted(found)])


def epoch_files(
    records: Iterable[CheckpointRecord],
    *,
    selected: int | None = None,
    title: str = "",
    word: str = "Epoch",
) -> dict[str, bytes]:
    """Return the table of a training's epochs, and its figure where there are two at least.

    Parameters
    ----------
    records : iterable of CheckpointRecord
        All that the training committed.
    selected, title, word
        As in `epochs_figure`.
    """
    table = epoch_table(records)
    files = {"epochs.csv": table.to_csv(index=False).encode()}
    if len(table) > 1:
        columns = {name: table[name].to_numpy() for name in table}
        figure = epochs_figure(columns, selected=selected, title=title, word=word)
        files["epochs.png"] = render(figure)
    return files
