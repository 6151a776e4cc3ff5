"""What is known of each example after a unit, its one form in bytes, and intervals of shares.

A table, a row for each example of the range:

==================  ======  ==================================================================
column              type    meaning
==================  ======  ==================================================================
index               int64   official position of the image
label               int64   its class
clean_prediction    int64   the class that the model gives the image itself
status              string  clean pass: "correct", "misclassified"; attack: "robust", "broken",
                            or "not_run" where an earlier unit had decided
robust              bool    no attack up to this one has broken it
broken_by           string  the first attack that broke a correctly classified image
prediction          int64   class of the adversarial example; none where this unit broke nothing
forwards, backwards int64   logical passes that this unit spent on it
flawed              int64   gradients of this unit that were not finite
distance            float   size of the perturbation that this unit found; none if not run
==================  ======  ==================================================================
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robustray.errors import CorruptObjectError
from robustray.files import parquet_bytes

CORRECT, MISCLASSIFIED = "correct", "misclassified"
ROBUST, BROKEN, NOT_RUN = "robust", "broken", "not_run"

_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("clean_prediction", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("robust", pa.bool_(), nullable=False),
        pa.field("broken_by", pa.string()),
        pa.field("prediction", pa.int64()),
        pa.field("forwards", pa.int64(), nullable=False),
        pa.field("backwards", pa.int64(), nullable=False),
        pa.field("flawed", pa.int64(), nullable=False),
        pa.field("distance", pa.float32()),
    ]
)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The columns as arrays (N,); NaN for no ``distance``, -1 for no ``prediction``."""

    index: np.ndarray
    label: np.ndarray
    clean_prediction: np.ndarray
    status: np.ndarray
    robust: np.ndarray
    broken_by: np.ndarray
    prediction: np.ndarray
    forwards: np.ndarray
    backwards: np.ndarray
    flawed: np.ndarray
    distance: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def clean_correct(self) -> np.ndarray:
        """Bool (N,): whether the image itself is classified correctly."""
        return self.clean_prediction == self.label

    def counts(self) -> dict[str, int]:
        """Return totals, for records and schedules."""
        attacked = self.status != NOT_RUN
        return {
            "examples": len(self),
            "clean_correct": int(self.clean_correct.sum()),
            "attacked": int(attacked.sum()),
            "broken": int((self.status == BROKEN).sum()),
            "robust": int(self.robust.sum()),
            "unconfirmed": int((self.prediction == self.label).sum()),
            "forwards": int(self.forwards.sum()),
            "backwards": int(self.backwards.sum()),
            "flawed": int(self.flawed.sum()),
        }

    def to_bytes(self) -> bytes:
        """Write it as Parquet; see `robustray.files.parquet_bytes`."""
        missing = {"distance": np.isnan(self.distance), "prediction": self.prediction < 0}
        arrays = [
            pa.array(getattr(self, field.name), field.type, mask=missing.get(field.name))
            for field in _SCHEMA
        ]
        return parquet_bytes(pa.table(arrays, schema=_SCHEMA))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises
        ------
        CorruptObjectError
            When it is something else.
        """
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise CorruptObjectError(f"not a table of verdicts: {error}") from error
        if table.schema.names != _SCHEMA.names:
            raise CorruptObjectError(f"not a table of verdicts: columns {table.schema.names}")
        columns = {name: table.column(name) for name in _SCHEMA.names}
        columns["prediction"] = pc.fill_null(columns["prediction"], -1)
        return cls(**{name: column.to_numpy().copy() for name, column in columns.items()})


def clean_verdicts(
    index: np.ndarray, label: np.ndarray, prediction: np.ndarray, correct: np.ndarray
) -> Verdicts:
    """Return the verdicts of a clean pass: arrays (N,) of integers, and which are correct."""
    count = len(index)
    return Verdicts(
        index=index,
        label=label,
        clean_prediction=prediction,
        status=np.where(correct, CORRECT, MISCLASSIFIED).astype(object),
        robust=correct,
        broken_by=np.full(count, None, object),
        prediction=np.full(count, -1, np.int64),
        forwards=np.ones(count, np.int64),
        backwards=np.zeros(count, np.int64),
        flawed=np.zeros(count, np.int64),
        distance=np.full(count, np.nan, np.float32),
    )


@dataclass(frozen=True, eq=False)
class RangeFindings:
    """What an attack found on some rows of a range: arrays as long as ``rows``.

    ``prediction`` is the class of the adversarial example, -1 where there is none.
    """

    rows: np.ndarray
    success: np.ndarray
    prediction: np.ndarray
    forwards: np.ndarray
    backwards: np.ndarray
    flawed: np.ndarray
    distance: np.ndarray


def open_rows(before: Verdicts, attack_all: bool) -> np.ndarray:
    """Return the rows that the next attack runs on, ascending."""
    return np.arange(len(before)) if attack_all else np.flatnonzero(before.robust)


def attacked_verdicts(
    before: Verdicts, found: RangeFindings, name: str, *, attack_all: bool, first: bool
) -> Verdicts:
    """Return the verdicts after one more attack.

    Parameters
    ----------
    before : Verdicts
        Of the unit before.
    found : Found
        What the attack found on the rows that were open.
    name : str
        The attack's name.
    attack_all : bool
        Whether misclassified images are attacked too. An image is then robust if each attack's
        final point is classified correctly, whatever the model says of the image itself.
    first : bool
        Whether it is the first attack of its suite.
    """
    count, rows = len(before), found.rows
    robust = np.ones(count, bool) if attack_all and first else before.robust.copy()
    newly = rows[robust[rows] & found.success]
    robust[rows] &= ~found.success
    broken_by = before.broken_by.copy()
    broken_by[newly[before.clean_correct[newly]]] = name
    status = np.full(count, NOT_RUN, object)
    status[rows] = np.where(found.success, BROKEN, ROBUST)
    return Verdicts(
        index=before.index,
        label=before.label,
        clean_prediction=before.clean_prediction,
        status=status,
        robust=robust,
        broken_by=broken_by,
        prediction=_placed(found.prediction, rows, count, -1, np.int64),
        forwards=_placed(found.forwards, rows, count, 0, np.int64),
        backwards=_placed(found.backwards, rows, count, 0, np.int64),
        flawed=_placed(found.flawed, rows, count, 0, np.int64),
        distance=_placed(found.distance, rows, count, np.nan, np.float32),
    )


def _placed(values: np.ndarray, rows: np.ndarray, count: int, rest: Any, kind: Any) -> np.ndarray:
    column = np.full(count, rest, kind)
    column[rows] = values
    return column
