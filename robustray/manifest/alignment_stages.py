"""Settings of what an alignment study is made of: data in folders, generators, projections."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from robustray.manifest.fields import Natural, NaturalOrZero, Number, PositiveNumber, Section
from robustray.manifest.recipe import Momentum


class Reference(Section):
    """What another job made: ``run`` is its name, or its id where several have that name.

    Or a file of weights: ``uri`` is a path or ``s3://bucket/prefix/file``, with its ``sha256``
    (hexadecimal) if it is to be checked.
    """

    run: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] | None = None
    uri: Annotated[str, Field(min_length=1)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.run is None) == (self.uri is None):
            raise ValueError("give either run or uri")
        if self.run is not None:
            self.refuse("only for a uri; what a run made is checked by itself", "sha256")
        return self


def _reference(value: object) -> object:
    """Read "name" as {run: name}, and what looks like a file as {uri: file}."""
    if not isinstance(value, str):
        return value
    return {"uri": value} if re.search(r"[/.]", value) else {"run": value}


Made = Annotated[Reference, BeforeValidator(_reference)]


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
    size: Natural = 256
    crop: Natural = 224
    validation: str | None = None
    test: str | None = None


class Projection(Section):
    """Projecting an image on what a conditional generator draws of a class (spec of Eq. 15).

    ``initial_steps`` of Adam without a penalty on z, then ``steps`` of a new Adam with
    ``penalty`` times the mean square of z.
    """

    initial_steps: Natural = 600
    initial_lr: PositiveNumber = 0.2
    steps: NaturalOrZero = 150
    lr: PositiveNumber = 0.2
    penalty: Annotated[Number, Field(ge=0)] = 0.03


class GeneratorTraining(Section):
    """How a residual generator and its critic are trained (VR-GAN; Eqs. 11 to 13).

    The generator's loss is ``adversarial`` times its cross-entropy plus ``length`` times the mean
    of ||delta-x|| / sqrt(n); the critic's weighs real images by ``real`` and generated ones by
    ``fake``. ``critic`` is what the critic starts from; null: from its initial weights.
    ``downsamplings`` is the U-Net's depth. The selected epoch has the lowest loss: over its own
    training batches (``published``), or on the validation examples.
    """

    critic: Made | None = None
    lr: PositiveNumber = 1e-4
    betas: tuple[Momentum, Momentum] = (0.0, 0.9)
    batch_size: Natural = 12
    epochs: Natural = 30
    steps_per_epoch: Natural = 200
    adversarial: PositiveNumber = 0.3
    length: Annotated[Number, Field(ge=0)] = 0.5
    real: PositiveNumber = 1.0
    fake: Annotated[Number, Field(ge=0)] = 0.01
    downsamplings: Natural = 4
    selection: Literal["validation", "published"] = "validation"


class ConditionalGeneratorTraining(Section):
    """How a class-conditional generator is trained (multi-hinge BigGAN at 32 pixels)."""

    channels: Natural = 64
    latent: Natural = 128
    batch_size: Natural = 50
    critic_steps: Natural = 4
    iterations: Natural = 125_000
    every: Natural = 1000
    lr: PositiveNumber = 2e-4
    betas: tuple[Momentum, Momentum] = (0.0, 0.999)
    feature_matching: Annotated[Number, Field(ge=0)] = 1.0
    hinge: Annotated[Number, Field(ge=0)] = 0.05
