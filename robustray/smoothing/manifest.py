"""Manifests of kind Mixing: two bases, the network that weighs them, and how the three are judged.

The defaults of the training are the published ones for CIFAR-10: Bai, Anderson, Kim and Sojoudi,
"Improving the accuracy-robustness trade-off of classifiers via adaptive smoothing" (2024).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustray.manifest.evaluation import (
    JudgedThreat,
    SuiteItems,
    WeightsConfig,
    suite_lengths,
)
from robustray.manifest.fields import (
    BatchSize,
    Code,
    Epochs,
    Extent,
    Length,
    Natural,
    Number,
    Pixels,
    PositiveNumber,
    Section,
    Seed,
    Steps,
    StepsOrZero,
    check_length,
    check_lengths,
)
from robustray.manifest.job import DataConfig, Manifest
from robustray.manifest.network import MixingNetworkConfig, MixtureConstants, ModelConfig
from robustray.manifest.recipe import Augmentation, Recipe

Weight = Annotated[Number, Field(ge=0, le=1)]
NotNegative = Annotated[Number, Field(ge=0)]


class BaseConfig(Section):
    """A base of the mixture: weights that are there, or a recipe by which the job trains it."""

    model: ModelConfig
    weights: WeightsConfig | None = None
    recipe: Recipe | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.weights is None) == (self.recipe is None):
            raise ValueError("give weights, or a recipe to train with: one of them")
        return self


class TrainingAttack(Section):
    """How training images are attacked, in linf.

    An image's radius is eps (eps_low + eps_span u), u uniform in [0, 1). A batch's iterations are
    chi-squared with ``iterations_df`` degrees of freedom, plus ``iterations_extra``, rounded half
    to even, at least 1. The weight of gamma's part of an image's loss is uniform in
    [0, weight_max). After an attack with the cross-entropy come ``n_targets`` towards the 2nd,
    3rd, ... class of the clean image.

    ``method: pgd`` takes steps of ``step_factor`` times radius / iterations with a momentum that
    is uniform in [momentum_low, momentum_low + momentum_span); ``apgd`` needs neither.
    ``never_fooled`` says what stands for an image that no iterate of APGD fooled: the point of
    the largest loss (``best``), or as published the random ``start``, a noisy image that counts
    as attacked. ``chunk`` images are attacked at a time, wherever that happens.
    """

    method: Literal["apgd", "pgd"] = "apgd"
    eps: Annotated[Number, Field(gt=0, le=1)] = 8 / 255
    eps_low: NotNegative = 0.4
    eps_span: NotNegative = 0.7
    iterations_df: StepsOrZero = 75
    iterations_extra: StepsOrZero = 0
    weight_max: Weight = 0.4
    n_targets: StepsOrZero = 9
    step_factor: PositiveNumber = 5.0
    momentum_low: Weight = 0.0
    momentum_span: Weight = 0.9
    never_fooled: Literal["best", "start"] = "best"
    chunk: BatchSize = 50

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.eps_low + self.eps_span <= 0:
            raise ValueError("eps_low and eps_span are not both 0")
        largest = self.eps * (self.eps_low + self.eps_span)
        check_length(Length("eps_span", largest, "linf"))
        if self.method == "apgd":
            reason = "is of method pgd"
            self.refuse(reason, "step_factor", "momentum_low", "momentum_span")
        else:
            self.refuse("is of method apgd", "never_fooled")
        return self


class MixingSettings(Section):
    """How a mixing network is trained.

    ``batch_size`` clean images are attacked in each round; with A attacks on each, the round
    trains on them, on (A - 1) times as many other clean images, and on the attacked ones, in 2 A
    minibatches of which ``accumulation`` make a step of AdamW. The loss is bce l_B + ce l_CE +
    product l_B l_CE, times ``clean_scale`` or ``attacked_scale``; ``clip`` bounds the norm of a
    step's gradient. While it is trained, gamma is gamma_scale times the normalised output plus
    gamma_bias.

    A round's attacked images are made against the mixture as it was ``ahead`` rounds before, so
    that other processes can make them meanwhile (``resources.workers``); 0: as it is. What
    ``segment`` rounds came to is kept together, and the look ahead begins anew after it.
    """

    epochs: Epochs = 3
    batch_size: Annotated[BatchSize, Field(ge=2)] = 200
    accumulation: Steps = 4
    lr: PositiveNumber = 5e-5
    weight_decay: NotNegative = 1e-5
    bce: NotNegative = 1.5
    ce: NotNegative = 0.0
    product: NotNegative = 0.3
    clean_scale: NotNegative = 1.0
    attacked_scale: NotNegative = 1.0
    clip: PositiveNumber = 10.0
    gamma_scale: PositiveNumber = 2.0
    gamma_bias: Number = 0.4
    ahead: StepsOrZero = 0
    segment: Steps = 50
    attack: TrainingAttack = TrainingAttack()
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _augmentation_moves_pixels(self) -> Self:
        if self.augmentation.cutout or self.augmentation.mixes:
            raise ValueError("augmentation: mixing networks train without cutout and cutmix")
        return self


class Certified(Section):
    """Certified l2 radii: the robust base under Gaussian noise, mixed with fixed weights.

    ``selection`` noisy copies of each image choose its class, ``samples`` others bound its
    probability, each bound wrong with probability ``error``. ``first`` images are certified.
    """

    sigma: Annotated[PositiveNumber, Field(le=1)] = 0.25
    selection: Steps = 100
    samples: Annotated[Natural, Field(le=100_000_000)] = 1000
    error: Annotated[Number, Field(gt=0, lt=1)] = 0.001
    alphas: Annotated[tuple[Weight, ...], Field(min_length=1)] = (0.67, 0.76, 1.0)
    first: Natural = 100


class Multipliers(Section):
    """The choice of the multiplier R: rules of mixing over a grid of trade-offs.

    Each is judged on clean images, on those that ``suite`` made against either base, and under
    ``suite`` itself. See ``robustray.smoothing.multipliers``.
    """

    rules: Annotated[
        tuple[Literal["logits", "softmax", "gradient", "gradient-ratio"], ...], Field(min_length=1)
    ] = ("logits", "softmax", "gradient", "gradient-ratio")
    trade_offs: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)] = (0.1, 0.3, 1, 3, 10)
    suite: SuiteItems = ({"name": "pgd-20"},)  # type: ignore[assignment]
    first: Natural = 200


class Judging(Section):
    """How the mixture is judged on the ``first`` test images, beside its bases.

    Both bases and fixed weights ``alphas`` under ``suite``, the mixture under ``suite`` and under
    ``adaptive`` too. ``certified`` adds certified radii, ``multipliers`` other rules of mixing.
    """

    first: Natural = 1000
    threat: JudgedThreat = JudgedThreat()
    suite: SuiteItems = ({"name": "autoattack-standard"},)  # type: ignore[assignment]
    adaptive: SuiteItems | None = ({"name": "smoothing-adaptive"},)  # type: ignore[assignment]
    alphas: Annotated[tuple[Weight, ...], Field(min_length=1)] = (0.5, 0.75, 0.9)
    batch_size: BatchSize = 128
    certified: Certified | None = None
    multipliers: Multipliers | None = None

    def lengths(self) -> tuple[Length, ...]:
        """Return what must not be longer than the box is wide."""
        found = self.threat.lengths("threat.eps")
        suites = {"suite": self.suite, "adaptive": self.adaptive or ()}
        suites |= {"multipliers.suite": self.multipliers.suite} if self.multipliers else {}
        for path, items in suites.items():
            found += suite_lengths(items, self.threat.norm, path)
        return found

    @model_validator(mode="after")
    def _inner_weights(self) -> Self:
        if not all(0 < alpha < 1 for alpha in self.alphas):
            raise ValueError("alphas: between 0 and 1; both bases are judged in any case")
        if self.multipliers is not None and self.threat.norm == "l1":
            raise ValueError("multipliers: gradients are measured for linf and l2 only")
        if self.adaptive is not None and self.threat.norm != "linf":
            raise ValueError("adaptive: its attacks are for linf; set it to null for another norm")
        return self


class Mixing(Manifest):
    """A manifest of kind Mixing: train a network that mixes two others, and judge all three.

    ``constants`` are those of the mixture as it is judged; those of its training stand in
    ``recipe``. Of ``resources.workers``, one trains and the others make attacked images.
    """

    code: Code = Field(default_factory=dict)
    seed: Seed = 0
    data: DataConfig
    accurate: BaseConfig
    robust: BaseConfig
    mixing: MixingNetworkConfig = MixingNetworkConfig()
    constants: MixtureConstants = MixtureConstants()
    policy_graph: bool = True
    resize: Pixels | None = None
    recipe: MixingSettings = MixingSettings()
    judging: Judging = Judging()

    @model_validator(mode="after")
    def _lengths_fit_the_images(self) -> Self:
        extent, judging = Extent.of(self.data.name), self.judging
        for role in ("accurate", "robust"):
            recipe = getattr(self, role).recipe
            check_lengths(recipe.lengths() if recipe else (), extent, f"{role}.recipe.")
        check_lengths(judging.lengths(), extent, "judging.")
        return self

    @model_validator(mode="after")
    def _weights_change(self) -> Self:
        if self.constants.gamma is not None:
            raise ValueError("constants.gamma: the mixing network gives gamma")
        if self.constants.alpha_scale == 0:
            raise ValueError("constants.alpha_scale: 0 would leave the mixing network out")
        return self
