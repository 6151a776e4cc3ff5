"""The data sets that manifests name."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from robustray.manifest.explaining import check_options
from robustray.manifest.fields import Argument, DataName, Natural, Number, Pixels, Section
from robustray.registry import DATASETS


class ExtraData(Section):
    """Pseudo-labelled images beside the official ones; the recipe's ``mixture`` uses them.

    ``file`` lies in the folder of data files: an ``.npz`` with ``image`` (N, H, W, C) uint8 and
    ``label`` (N,), or a ``.pickle`` of a dict with ``data`` and ``extrapolated_targets``, as the
    500K images of arXiv:1905.13736 are published. ``sha256`` is checked if it is given; ``limit``
    takes the first images only.
    """

    file: Annotated[str, Field(pattern=r"\.(npz|pickle)$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    limit: Natural | None = None


class DataConfig(Section):
    """The data set, its held-out validation part, and labelled subsets of it.

    ``name`` is that of an official set, ``folder`` for a folder of images, or that of a function
    of a user's (``package.module:function``); ``arguments`` are those of the function.
    ``parts`` names official files of the training set ("data_batch_1"); ``train_limit`` and
    ``test_limit`` take the first images only. Each of them changes the label that stands beside
    every number ("cifar10[data_batch_1][:4000]").
    """

    name: DataName
    arguments: dict[str, Argument] | None = None
    validation: Natural = 1024
    parts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    train_limit: Natural | None = None
    test_limit: Natural | None = None
    extra: ExtraData | None = None
    download: bool = False

    @model_validator(mode="after")
    def _options_of_the_set(self) -> Self:
        if not DATASETS.is_brought(self.name):  # a user's code is not imported for this
            check_options(DATASETS.options(self.name), self.arguments or {}, "arguments")
        return self


class FolderData(Section):
    """Images of one's own with a number for each: a CSV file beside them.

    ``table`` has a column with the images' paths (below ``root``), one with the number
    (``target``) and, if splits go by subject, one with the subject. Class 1 is target below
    ``threshold`` where ``below`` is set, else above it. ``splits`` gives files with one subject
    or path on each line.
    """

    root: Annotated[str, Field(min_length=1)]
    table: Annotated[str, Field(min_length=1)]
    path: str = "path"
    target: str = "target"
    subject: str | None = None
    threshold: Number = 0.7
    below: bool = True
    size: Pixels = 256
    crop: Pixels = 224
    validation: str | None = None
    test: str | None = None
