"""The settings of each stage of an alignment study (see ``robustray.alignment.manifest``)."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from robustray.manifest.descent import Momentum
from robustray.manifest.fields import (
    Address,
    BatchSize,
    Channels,
    Epochs,
    Length,
    Natural,
    NaturalOrZero,
    Number,
    PositiveNumber,
    Section,
    Steps,
    StepsOrZero,
)


class Reference(Section):
    """What another job made: ``run`` is its name, or its id where several have that name.

    Or a file of weights: ``uri`` is a path or ``s3://bucket/prefix/file``, with its ``sha256``
    (hexadecimal) if it is to be checked.
    """

    run: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] | None = None
    uri: Address | None = None
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


class Projection(Section):
    """Projecting an image on what a conditional generator draws of a class (spec of Eq. 15).

    ``initial_steps`` of Adam without a penalty on z, then ``steps`` of a new Adam with
    ``penalty`` times the mean square of z.
    """

    initial_steps: Steps = 600
    initial_lr: PositiveNumber = 0.2
    steps: StepsOrZero = 150
    lr: PositiveNumber = 0.2
    penalty: Annotated[Number, Field(ge=0)] = 0.03


class AlignmentOptimizer(Section):
    """Adam or SGD, without weight decay or schedule, as published."""

    name: Literal["adam", "sgd"] = "adam"
    lr: PositiveNumber = 1e-4
    betas: tuple[Momentum, Momentum] = (0.0, 0.9)
    momentum: Momentum = 0.9

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        self.refuse(f"not of {self.name}", "momentum" if self.name == "adam" else "betas")
        return self


class PgdTraining(Section):
    """PGD on each batch of training: ``steps`` of ``step_size`` from a random start."""

    norm: Literal["linf", "l2"] = "linf"
    eps: PositiveNumber = 0.3
    step_size: PositiveNumber = 0.02
    steps: Steps = 40

    def lengths(self) -> tuple[Length, ...]:
        """Return what must not be longer than the images are wide."""
        norm = self.norm
        return Length("eps", self.eps, norm), Length("step_size", self.step_size, norm)


class CurveAttack(Section):
    """One attack at several strengths: a curve of accuracy against epsilon.

    ``step_size`` and ``steps`` are of pgd, ``queries`` of square. For ``stadv`` each eps is the
    weight of the flow's smoothness (large is weak); ``cw`` has no eps, and finds distances.
    """

    attack: Literal["pgd", "square", "stadv", "cw"] = "pgd"
    norm: Literal["linf", "l2"] = "linf"
    eps: tuple[PositiveNumber, ...] = ()
    step_size: PositiveNumber = 0.02
    steps: Steps = 40
    queries: Steps = 5000

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.attack != "pgd":
            self.refuse(f"not of {self.attack}", "step_size")
        if self.attack == "square":
            self.refuse("square counts queries", "steps")
        else:
            self.refuse(f"not of {self.attack}", "queries")
        if (self.attack == "cw") == bool(self.eps):
            raise ValueError("eps: cw takes none, every other attack at least one")
        if self.attack == "cw" and self.norm != "l2":
            raise ValueError("norm: cw finds l2 distances")
        if len(set(self.eps)) != len(self.eps):
            raise ValueError("eps: the same strength appears twice")
        return self

    def lengths(self) -> tuple[Length, ...]:
        """Return what must not be longer than the images are wide; a flow's weight is none."""
        sizes = () if self.attack == "stadv" else self.eps
        eps = (Length(f"eps[{number}]", size, self.norm) for number, size in enumerate(sizes))
        return (*eps, Length("step_size", self.step_size, self.norm))

    @property
    def label(self) -> str:
        """What it is called in tables: "pgd-linf"."""
        return self.attack if self.attack == "stadv" else f"{self.attack}-{self.norm}"


class AlignmentEvaluation(Section):
    """What is measured: curves of attacks, alignment, and the linearity study."""

    attacks: tuple[CurveAttack, ...] = ()
    linearity: bool = False
    batch_size: BatchSize = 100

    @model_validator(mode="after")
    def _different_attacks(self) -> Self:
        labels = [attack.label for attack in self.attacks]
        if len(set(labels)) != len(labels):
            raise ValueError("attacks: the same attack appears twice; give it more eps")
        return self


class ClassifierTraining(Section):
    """How a classifier is trained.

    ``baseline`` minimises the cross-entropy, ``pgd`` that of adversarial images, ``l_alpha`` the
    cross-entropy minus ``penalty`` times the mean cosine between the input's gradient and delta-x
    (Eq. 9). ``steps_per_epoch`` null is one pass. ``batch_norm: frozen`` keeps the running
    statistics, as published for all but CIFAR-10. The best epoch from ``selection_start`` on has
    the largest epsilon_50 on the validation images: ``published`` by the published formula alone,
    ``guarded`` by the corrected one among the epochs whose clean accuracy is at most
    ``guard`` below the best. ``alignment`` says where every variant of alpha is measured in each
    epoch: on the ``validation`` images after it, or on ``both``, these and the clean images of each
    training batch before it is used. It changes nothing of the training.
    """

    method: Literal["baseline", "pgd", "l_alpha"] = "baseline"
    optimizer: AlignmentOptimizer = AlignmentOptimizer()
    batch_size: BatchSize = 12
    epochs: Epochs = 30
    steps_per_epoch: Steps | None = 200
    batch_norm: Literal["frozen", "updated"] = "frozen"
    attack: PgdTraining = PgdTraining()
    penalty: PositiveNumber = 0.1
    validation: CurveAttack = CurveAttack(eps=(0.02, 0.06, 0.1, 0.2))
    validation_first: Natural | None = None
    selection: Literal["guarded", "published"] = "guarded"
    selection_start: Epochs = 1
    guard: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    alignment: Literal["none", "validation", "both"] = "none"

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.method != "pgd":
            self.refuse(f"method {self.method} attacks nothing in training", "attack")
        if self.method != "l_alpha":
            self.refuse(f"method {self.method} has no penalty", "penalty")
        if self.selection == "published":
            self.refuse("the published selection has no guard", "guard")
        if self.selection_start > self.epochs:
            raise ValueError(f"selection_start: there are {self.epochs} epochs")
        if self.validation.attack == "cw":
            raise ValueError("validation: epsilon_50 needs an attack with eps")
        return self


class GeneratorTraining(Section):
    """How a residual generator and its critic are trained (VR-GAN; Eqs. 11 to 13).

    The generator's loss is ``adversarial`` times its cross-entropy plus ``length`` times the mean
    of ||delta-x|| / sqrt(n); the critic's weighs real images by ``real`` and generated ones by
    ``fake``. ``critic`` is what the critic starts from; null: from its initial weights.
    ``critic_lr`` is its learning rate; null: ``lr``, as published.
    ``downsamplings`` is the U-Net's depth. What is judged and kept is the moving average of the
    generator's weights with decay ``average``; 0: the weights themselves, as published. The
    selected epoch has the lowest loss on the validation examples, or over its own training batches
    (``published``), or is the ``last``.
    """

    critic: Made | None = None
    lr: PositiveNumber = 1e-4
    critic_lr: PositiveNumber | None = None
    betas: tuple[Momentum, Momentum] = (0.0, 0.9)
    batch_size: BatchSize = 12
    epochs: Epochs = 30
    steps_per_epoch: Steps = 200
    adversarial: PositiveNumber = 0.3
    length: Annotated[Number, Field(ge=0)] = 0.5
    real: PositiveNumber = 1.0
    fake: Annotated[Number, Field(ge=0)] = 0.01
    downsamplings: Annotated[Natural, Field(le=16)] = 4
    average: Momentum = 0.0
    selection: Literal["validation", "published", "last"] = "validation"


class ConditionalGeneratorTraining(Section):
    """How a class-conditional generator is trained (multi-hinge BigGAN at 32 pixels)."""

    channels: Channels = 64
    latent: Channels = 128
    batch_size: BatchSize = 50
    critic_steps: Steps = 4
    iterations: Annotated[Natural, Field(le=100_000_000)] = 125_000
    every: Annotated[Natural, Field(le=100_000_000)] = 1000
    lr: PositiveNumber = 2e-4
    betas: tuple[Momentum, Momentum] = (0.0, 0.999)
    feature_matching: Annotated[Number, Field(ge=0)] = 1.0
    hinge: Annotated[Number, Field(ge=0)] = 0.05


class Probe(Section):
    """Alignment of the networks that studies trained.

    Does it predict robust accuracy? Every accuracy in the studies' results is compared with it.
    Networks of a study take images in [0, 1], and get the study's own images so.
    """

    studies: tuple[str, ...] = ()
    batch_size: BatchSize = 100


class Projections(Section):
    """Which images are projected on which classes, and kept in the store for later stages.

    ``splits`` of the data set, each as far as ``data`` says; ``classes`` null is all of them. The
    settings are those of ``delta_x.projection``, the actors those of ``resources.max_concurrent``.
    """

    splits: Annotated[tuple[Literal["train", "validation", "test"], ...], Field(min_length=1)] = (
        "train",
        "test",
    )
    classes: tuple[NaturalOrZero, ...] | None = None

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name in ("splits", "classes"):
            values = getattr(self, name) or ()
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: the same one appears twice")
        if self.classes == ():
            raise ValueError("classes: null is all of them; an empty list is none")
        return self


class Comparison(Section):
    """Finished jobs whose methods are put side by side: names, or ids."""

    jobs: Annotated[tuple[str, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.jobs)) != len(self.jobs):
            raise ValueError("jobs: the same one appears twice")
        return self
