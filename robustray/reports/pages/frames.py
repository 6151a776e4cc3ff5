"""Tables that a job left, as a page shows them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pandas as pd

from robustray.reports.pages.tables import Cell, Column, table_html


def read_table(files: Mapping[str, bytes], name: str) -> pd.DataFrame | None:
    """Return one of a job's CSV tables; None where it left none of that name."""
    return pd.read_csv(io.BytesIO(files[name])) if name in files else None


def frame_html(table: pd.DataFrame | None) -> str:
    """Return a table as it is: words, and numbers in four figures; nothing where there is none."""
    if table is None:
        return ""
    columns = [
        Column(str(name).replace("_", " "), pd.api.types.is_numeric_dtype(table[name]))
        for name in table
    ]
    return table_html(
        columns,
        (
            [_cell(value, column.numeric) for column, value in zip(columns, row, strict=True)]
            for row in table.itertuples(index=False)
        ),
    )


def _cell(value: Any, numeric: bool) -> Cell:
    if pd.isna(value):
        return Cell("")
    if not numeric:
        return Cell(str(value))
    whole = float(value).is_integer()
    return Cell(f"{value:,.0f}" if whole else f"{value:.4g}", float(value))
