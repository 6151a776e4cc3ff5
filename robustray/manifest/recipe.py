"""How a model is trained: the recipe of a manifest.

Combinations that make no sense are refused, so that a recipe says what is done. Only ``beta``,
``start_scale``, ``milestones`` and ``gamma`` may stand where nothing asks for them: studies of old
have them there. The defaults are the scaling study's baseline recipe.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robustray.manifest.descent import Ema, Optimizer, Schedule, Share
from robustray.manifest.fields import (
    UNIT,
    Argument,
    BatchSize,
    Epochs,
    Length,
    NameOf,
    Natural,
    Number,
    ObjectiveName,
    Pixels,
    PixelsOrZero,
    PositiveNumber,
    Section,
    Steps,
    StepsOrZero,
    check_lengths,
)
from robustray.registry import OBJECTIVES, SUITES


class ThreatConfig(Section):
    """The perturbations that are allowed: ``||x' - x|| <= eps`` within the pixel box [0, 1]."""

    norm: Literal["linf", "l2"] = "linf"
    eps: PositiveNumber = 8 / 255

    @model_validator(mode="after")
    def _within_the_box(self) -> Self:
        check_lengths(self.lengths(), UNIT)
        return self

    def lengths(self, path: str = "eps") -> tuple[Length, ...]:
        """Return what must not be longer than the box is wide."""
        return (Length(path, self.eps, self.norm),)


class InnerAttack(Section):
    """The inner maximisation: steepest ascent inside the threat model.

    A step is ``step_size`` times the sign of the gradient (linf), or the gradient divided by its
    length (l2). ``start`` and ``start_scale`` give the first point: ``normal`` is
    x + start_scale * N(0, 1), ``uniform`` is drawn uniformly from the ball and clipped to [0, 1].

    ``ascent`` replaces what the objective ascends: TRADES may ascend the cross-entropy (``ce``)
    instead of its divergence. ``statistics: batch`` attacks the network with the statistics of
    the attacked batch in its batch normalizations (training mode; nothing is updated) and not
    with the running ones. Steps after the first ``tenth_after`` are a tenth as long.
    """

    steps: Steps = 10
    step_size: PositiveNumber = 2 / 255
    start: Literal["normal", "uniform"] = "normal"
    start_scale: PositiveNumber = 0.001
    ascent: Literal["kl", "ce"] | None = None
    statistics: Literal["running", "batch"] = "running"
    tenth_after: Steps | None = None

    @model_validator(mode="after")
    def _some_are_shorter(self) -> Self:
        if self.tenth_after is not None and self.tenth_after >= self.steps:
            raise ValueError(f"tenth_after: there are no steps after {self.tenth_after}")
        return self


class Awp(Section):
    """Adversarial weight perturbation (arXiv:2004.05884): the gradient is taken at w + v.

    v ascends the objective in one step of length ``gamma * ||w||``, layer by layer; not during
    the first ``warmup_epochs``.
    """

    gamma: PositiveNumber = 0.005
    warmup_epochs: StepsOrZero = 0


class BatchNormConfig(Section):
    """What batch normalizations do in training.

    ``statistics`` tells what they normalize by where a batch is computed in parts: ``local`` each
    part by its own statistics, as each GPU of the published runs did its share; ``synchronised``
    all parts by those of the whole batch; ``frozen`` (whether in parts or not) by the running
    statistics, which stay as they are while weights and biases learn.

    ``momentum`` is the weight of a new batch's statistics, ``first_momentum`` that of the first
    step of all; null leaves the model's own (0.1). ``updates: adversarial`` means that passes of
    clean images use their batch's statistics and update nothing.
    """

    statistics: Literal["local", "synchronised", "frozen"] = "local"
    momentum: Annotated[Number, Field(gt=0, le=1)] | None = None
    first_momentum: Annotated[Number, Field(gt=0, le=1)] | None = None
    updates: Literal["all", "adversarial"] = "all"

    @model_validator(mode="after")
    def _frozen_updates_nothing(self) -> Self:
        if self.statistics == "frozen" and self != BatchNormConfig.model_construct(
            statistics="frozen"
        ):
            raise ValueError("momentum, first_momentum and updates: frozen statistics have none")
        return self


class Mixture(Section):
    """Batches of labelled images and images of the data set's extra, pseudo-labelled part.

    Each batch holds exactly int(extra * batch_size) extra images, drawn with replacement; the
    others are labelled ones, without replacement in each pass over them. An epoch is
    ceil(epoch_images / batch_size) whole batches (null: as many as labelled images make).
    """

    extra: Share
    epoch_images: Natural | None = None

    def extra_images(self, batch_size: int) -> int:
        """Return the number of extra images in a batch; 0.7 * 1024 gives 716."""
        return int(self.extra * batch_size + 1e-9)


class Augmentation(Section):
    """Random crops after zero padding by ``crop_padding`` pixels, and horizontal flips.

    ``rotation`` turns each image by up to that many degrees either way (nearest pixel).
    ``cutout`` paints a square of that side grey (128) around a random pixel. ``cutmix`` pastes a
    rectangle of another image of the batch into each, and mixes their classes by area: the share
    kept is drawn from Beta(cutmix, cutmix), or with ``cutmix_window`` a square of that side.
    """

    crop_padding: PixelsOrZero = 4
    flip: bool = True
    rotation: Annotated[Number, Field(ge=0, le=180)] = 0.0
    cutout: PixelsOrZero = 0
    cutmix: PositiveNumber | None = None
    cutmix_window: Pixels | None = None

    @model_validator(mode="after")
    def _one_kind_of_cutmix(self) -> Self:
        if self.cutmix is not None and self.cutmix_window is not None:
            raise ValueError("cutmix and cutmix_window: give one of them")
        return self

    @property
    def mixes(self) -> bool:
        """Whether classes are mixed, so that labels are probabilities."""
        return self.cutmix is not None or self.cutmix_window is not None


class Selection(Section):
    """Choosing the best checkpoint by its accuracy on the held-out part of the training set.

    Under a suite; ``clean`` is without one, for networks that need not be robust (FGSM accuracy
    is then measured too). Validation runs after each epoch e (1-based) with e > ``start`` * E.
    """

    start: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    attack: Annotated[str, NameOf(SUITES, others=("clean",))] = Field(
        default="pgd-20", validate_default=False
    )

    @property
    def suite(self) -> str:
        """The suite that validation runs."""
        return "fgsm" if self.attack == "clean" else self.attack


class Guard(Section):
    """Watching for catastrophic overfitting, which single-step training is prone to.

    The network learns to fool the single step (Wong, Rice and Kolter, arXiv:2001.03994, section 5):
    within an epoch it withstands FGSM better than ever, and several steps no longer at all. After
    every ``every`` epochs the network in training meets FGSM, and PGD with ``steps`` steps of
    eps / 4 from a random start, on the first ``images`` training images. It is told to overfit
    where its PGD accuracy is more than ``drop`` below the best of earlier checks, and its FGSM
    accuracy has lost less than half as much since. ``warn`` says so and trains on; ``stop`` ends
    the training there, and the best checkpoint of the epochs so far is selected.
    """

    steps: Steps = 10
    images: Natural = 512
    every: Epochs = 1
    drop: Share = 0.2
    action: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _stronger_than_fgsm(self) -> Self:
        if self.steps < 2:
            raise ValueError("steps: a single one is what training overfits to; take 10")
        return self


class Recipe(Section):
    """How a model is trained. The defaults are the scaling study's baseline recipe.

    ``micro_batches`` is the number of parts in which a batch is computed, one after the other or
    by several workers (``resources.workers``); what they add up to is one step. An objective of a
    user's takes ``objective_arguments``.
    """

    objective: ObjectiveName = Field(default="trades", validate_default=False)
    objective_arguments: dict[str, Argument] | None = None
    beta: PositiveNumber = 6.0
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    threat: ThreatConfig = ThreatConfig()
    inner: InnerAttack = InnerAttack()
    awp: Awp | None = None
    epochs: Epochs = 100
    batch_size: BatchSize = 128
    micro_batches: BatchSize = 1
    mixture: Mixture | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    grad_clip: PositiveNumber | None = 5.0
    batch_norm: BatchNormConfig = BatchNormConfig()
    ema: Ema | None = None
    augmentation: Augmentation = Augmentation()
    selection: Selection = Selection()
    guard: Guard | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    fused_blocks: bool = False

    @model_validator(mode="after")
    def _steps_stay_in_the_box(self) -> Self:
        check_lengths(self.lengths(), UNIT)
        return self

    def lengths(self) -> tuple[Length, ...]:
        """Return what must not be longer than the box is wide."""
        return (
            *self.threat.lengths("threat.eps"),
            Length("inner.step_size", self.inner.step_size, self.threat.norm),
            Length("inner.start_scale", self.inner.start_scale, "linf"),
        )

    @property
    def _facts(self) -> Any:
        """The record of the objective; None if a user's code would be imported for it."""
        return None if OBJECTIVES.is_brought(self.objective) else OBJECTIVES.find(self.objective)

    @model_validator(mode="after")
    def _attack_and_passes_fit(self) -> Self:
        unused = self.inner.changed("ascent", "statistics", "tenth_after")
        if unused and (facts := self._facts):
            if facts.ascent is None:
                raise ValueError(
                    f"inner.{', '.join(unused)}: {self.objective} training has no inner attack"
                )
            if self.inner.ascent is not None and facts.ascent != "kl":
                raise ValueError(
                    f"inner.ascent: {self.objective} always ascends the cross-entropy; only trades "
                    "may choose"
                )
        adversarial = self.batch_norm.updates == "adversarial"
        if adversarial and (facts := self._facts) and facts.forwards < 2:
            raise ValueError(
                "batch_norm.updates: adversarial needs an objective with clean and adversarial "
                f"passes (trades, mart), not {self.objective}"
            )
        if self.objective_arguments and self._facts:
            raise ValueError(f"objective_arguments: {self.objective} takes none")
        return self

    @model_validator(mode="after")
    def _labels_and_images_fit(self) -> Self:
        soft = self.label_smoothing or self.augmentation.mixes
        if soft and (facts := self._facts) and facts.one_class:
            if self.label_smoothing:
                raise ValueError(
                    f"label_smoothing: {self.objective}'s boosted cross-entropy has none"
                )
            raise ValueError(
                f"augmentation.cutmix: {self.objective} weighs images by the probability of their "
                "one class"
            )
        if self.mixture and not 0 < self._extra_images < self.batch_size:
            raise ValueError(
                f"mixture.extra: {self._extra_images} of {self.batch_size} images are no mixture"
            )
        return self

    @model_validator(mode="after")
    def _epochs_fit(self) -> Self:
        schedule, over = self.schedule, self.schedule.over or self.epochs
        if over < self.epochs:
            raise ValueError(f"schedule.over: {over} ends before the {self.epochs} epochs")
        cycled = schedule.has_cycle and schedule.momentum is not None
        if cycled and not self.optimizer.momentum:
            raise ValueError("schedule.momentum: null where optimizer.momentum is 0")
        for name in ("schedule", "ema", "awp"):
            part = getattr(self, name)
            if part is not None and part.warmup_epochs >= self.epochs:
                raise ValueError(
                    f"{name}.warmup_epochs: {part.warmup_epochs:g} of {self.epochs} epochs leave "
                    "none after it"
                )
        return self

    @model_validator(mode="after")
    def _compiled_or_fused(self) -> Self:
        if self.compile and self.fused_blocks:
            raise ValueError("compile and fused_blocks: torch compiles no fused block; take one")
        return self

    @model_validator(mode="after")
    def _guard_has_something_to_watch(self) -> Self:
        guard = self.guard
        if guard is None:
            return self
        if (facts := self._facts) and facts.ascent is None:
            raise ValueError(f"guard: {self.objective} training has no inner attack to overfit to")
        if guard.action == "stop" and self.selection.start:
            raise ValueError(
                "guard.action: stop needs a checkpoint to go back to; set selection.start: 0"
            )
        if guard.every > self.epochs:
            raise ValueError(f"guard.every: {guard.every} of {self.epochs} epochs is never")
        return self

    @property
    def _extra_images(self) -> int:
        return self.mixture.extra_images(self.batch_size) if self.mixture else 0
