"""Data sets as uint8 tensors with verified origin, and batches that can be reproduced."""

from robustray.data.batches import Batch, EpochBatches, eval_batches, steps_per_epoch
from robustray.data.dataset import ROLES, Dataset, Split, digest_of
from robustray.data.load import (
    DataFacts,
    data_root,
    describe,
    load_dataset,
    needed_files,
    needed_forms,
    official_names,
)

__all__ = [
    "ROLES",
    "Batch",
    "DataFacts",
    "Dataset",
    "EpochBatches",
    "Split",
    "data_root",
    "describe",
    "digest_of",
    "eval_batches",
    "load_dataset",
    "needed_files",
    "needed_forms",
    "official_names",
    "steps_per_epoch",
]
