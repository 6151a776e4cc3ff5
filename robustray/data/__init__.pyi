from .batches import Batch, EpochBatches, eval_batches, steps_per_epoch
from .dataset import ROLES, Dataset, Split, digest_of
from .load import (
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
