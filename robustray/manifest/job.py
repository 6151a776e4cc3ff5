"""What manifests of every kind say, and the data sets that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from robustray.errors import ManifestError, below
from robustray.manifest.explaining import check_options
from robustray.manifest.fields import (
    Argument,
    DataName,
    KindName,
    Natural,
    Number,
    Pixels,
    PositiveNumber,
    Section,
    Workers,
)
from robustray.registry import DATASETS, MODELS

Side = Pixels | tuple[Pixels, Pixels]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


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


class Transform(Section):
    """How images are resized and cut: all to one size, whatever they were.

    The shorter side becomes ``resize`` pixels, by ``interpolation`` (antialiased); then the central
    square of ``crop`` pixels (default: ``resize``) is cut out. Height and width stand in place of
    one number where they differ; images that are resized to a pair are stretched. Without
    ``resize`` the centre is cut out as it is.
    """

    resize: Side | None = None
    crop: Side | None = None
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _says_a_size(self) -> Self:
        if self.resize is None:
            if self.crop is None:
                raise ValueError("give resize, or crop, or both")
            self.refuse("nothing is resized", "interpolation")
        elif any(cut > whole for cut, whole in zip(self.size, _pair(self.resize), strict=True)):
            raise ValueError(f"crop: {self.crop} is larger than resize: {self.resize}")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        side = self.crop or self.resize
        assert side is not None
        return _pair(side)


def _pair(side: int | tuple[int, int]) -> tuple[int, int]:
    return side if isinstance(side, tuple) else (side, side)


def declared_transform(name: str, options: Mapping[str, Any]) -> Transform:
    """Return how a network declares that its images are prepared.

    Parameters
    ----------
    name : str
        As in a manifest's ``model``: "timm:resnet50".
    options : mapping
        What it is built with.

    Raises
    ------
    ManifestError
        If it declares nothing.
    """
    library = MODELS.library(name)
    if library is None:
        raise ManifestError(
            f"{name} declares no input; give resize, or crop, or both", path="data.transform"
        )
    facts = library.input(MODELS.within(name), options)
    height, width = facts.size
    found = {"resize": facts.resize, "crop": height if height == width else (height, width)}
    if facts.resize is not None:
        found["interpolation"] = facts.interpolation
    with below("data.transform"):
        return Transform.model_validate(found)


class DataConfig(Section):
    """The data set, its held-out validation part, and labelled subsets of it.

    ``name`` is that of an official set, ``folder`` for a folder of images, ``npz`` for files of
    arrays, or that of a function of a user's (``package.module:function``); ``arguments`` are those
    of the function. ``transform`` resizes and cuts every image, or is ``model``: as the network
    declares its input. Images are then read, or changed, as batches need them.
    ``parts`` names official files of the training set ("data_batch_1"); ``train_limit`` and
    ``test_limit`` take the first images only. Each of them changes the label that stands beside
    every number (``cifar10[data_batch_1][:4000]``).
    """

    name: DataName
    arguments: dict[str, Argument] | None = None
    validation: Natural = 1024
    parts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    train_limit: Natural | None = None
    test_limit: Natural | None = None
    extra: ExtraData | None = None
    download: bool = False
    transform: Transform | Literal["model"] | None = None

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


Retry = Annotated[int, Field(ge=0, le=1000)]
Patience = Annotated[PositiveNumber, Field(le=1_000_000)]


class Retries(Section):
    """How often a trial is tried again after each kind of failure, and the back-off between.

    Waits are ``backoff_seconds * 2**k`` with k earlier failures of that kind, at most
    ``backoff_limit_seconds``. An error of the user's or the program's is never retried unless
    ``user_error`` says so.
    """

    preemption: Retry = 20
    out_of_memory: Retry = 1
    storage: Retry = 5
    user_error: Retry = 0
    backoff_seconds: Patience = 5.0
    backoff_limit_seconds: Patience = 300.0


def _whole_or_share(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError("CPUs and GPUs are whole numbers, or a fraction below 1")
    return value


class Resources(Section):
    """What one trial takes, and how failures are handled.

    ``workers`` train a trial together; ``gpus`` and ``cpus`` are of each of them. Where the
    cluster has no room for all of them an attempt may begin with fewer, down to ``min_workers``
    (null: it waits for all). No part of a study's identity; but the order of sums follows the
    number of workers, and on CPUs that of threads follows ``cpus``, and with them the last bit of
    every sum.
    """

    workers: Workers = 1
    min_workers: Workers | None = None

    gpus: Annotated[Number, Field(ge=0), AfterValidator(_whole_or_share)] = 1.0
    cpus: Annotated[PositiveNumber, AfterValidator(_whole_or_share)] = 1.0
    max_concurrent: Workers | None = None
    wait_minutes: Patience = 30.0
    retries: Retries = Retries()

    @model_validator(mode="after")
    def _one_device_each(self) -> Self:
        if self.workers > 1 and self.gpus not in (0, 1):
            raise ValueError(f"each of {self.workers} workers takes 1 GPU or none: gpus: 1 or 0")
        if self.min_workers and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers: {self.min_workers} is more than workers: {self.workers}"
            )
        return self


Folder = Annotated[str, Field(min_length=1, max_length=4000)]


class Tracking(Section):
    """Where a run is shown beside MLflow, and which checkpoints MLflow gets as models.

    ``tensorboard`` and ``wandb`` name folders on the driver's machine; each needs its package.
    ``models`` are the study's ``best`` network, ``all`` checkpoints whose bytes are kept, or
    ``none``. No part of a study's identity.
    """

    tensorboard: Folder | None = None
    wandb: Folder | None = None
    models: Literal["best", "all", "none"] = "best"


class Manifest(Section):
    """A manifest of any kind, which adds fields of its own.

    A kind whose results depend on a user's code has the field ``code`` too: `pin_code` fills it in.
    """

    kind: KindName
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    description: str = ""
    resources: Resources = Resources()
    tracking: Tracking = Tracking()

    @classmethod
    def spell_out(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return a document with its short forms written as sections, before ``--set``."""
        return document

    def needed_data(self) -> DataConfig | None:
        """Return the data set whose files a run needs, as far as the manifest names one."""
        data = getattr(self, "data", None)
        return data if isinstance(data, DataConfig) else None

    def named_models(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return names and options of the networks that take the data set's images."""
        model: Any = getattr(self, "model", None)
        return [] if model is None else [(model.name, model.options())]

    def settled(self) -> Self:
        """Return the manifest with what ``data.transform: model`` stands for in its place.

        Raises
        ------
        ManifestError
            If no network, or not each one alike, declares how its images are prepared.
        """
        data: Any = getattr(self, "data", None)
        if getattr(data, "transform", None) != "model":
            return self
        found = [declared_transform(name, options) for name, options in self.named_models()]
        if not found:
            raise ManifestError(
                "no network is named here that declares its input; give resize, or crop, or both",
                path="data.transform",
            )
        if different := [one for one in found if one != found[0]]:
            words = " and ".join(str(one) for one in (found[0], different[0]))
            raise ManifestError(f"the networks declare {words}", path="data.transform")
        return self.model_copy(update={"data": data.model_copy(update={"transform": found[0]})})
