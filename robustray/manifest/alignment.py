"""Settings of what an alignment study is made of: data in folders, generators, projections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robustray.manifest.fields import Natural, NaturalOrZero, Number, PositiveNumber, Section
from robustray.manifest.recipe import Momentum


class FolderData(Section):
    """Images of one's own with a number for each: a CSV file beside them.

    ``table`` has a column with the images' paths (below ``root``), one with the number
    (``target``) and, if splits go by subject, one with the subject. Class 1 is target below
    ``threshold`` where ``below`` is set, else above it. ``validation`` and ``test`` are files
    with one subject or path on each line.
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
    """Projecting an image on what a conditional generator draws of a class (Eq. 15).

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
    ``fake``. The selected epoch has the lowest loss: over its own training batches
    (``published``), or on the validation examples.
    """

    lr: PositiveNumber = 1e-4
    betas: tuple[Momentum, Momentum] = (0.0, 0.9)
    batch_size: Natural = 12
    epochs: Natural = 30
    steps_per_epoch: Natural = 200
    adversarial: PositiveNumber = 0.3
    length: Annotated[Number, Field(ge=0)] = 0.5
    real: PositiveNumber = 1.0
    fake: Annotated[Number, Field(ge=0)] = 0.01
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
