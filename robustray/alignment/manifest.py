"""Manifests of kind Alignment: delta-x, alignment, and the penalty that raises it.

Lengths and step sizes are in the study's own scale: images in [-1, 1] (twice that of [0, 1]), raw
coordinates for the spheres.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robustray.alignment.stages import (
    AlignmentEvaluation,
    ClassifierTraining,
    Comparison,
    ConditionalGeneratorTraining,
    GeneratorTraining,
    Made,
    Probe,
    Projection,
    Projections,
)
from robustray.manifest.fields import (
    Argument,
    Code,
    Extent,
    NameOf,
    Natural,
    Section,
    Seed,
    check_lengths,
)
from robustray.manifest.job import FolderData, Manifest
from robustray.manifest.network import ModelConfig
from robustray.registry import DATASETS

Stage = Literal[
    "classifier",
    "generator",
    "conditional_generator",
    "projections",
    "evaluation",
    "comparison",
    "probe",
]
STAGE_SECTION: dict[str, str] = {
    "classifier": "training",
    "generator": "generator",
    "conditional_generator": "conditional_generator",
    "projections": "projections",
    "evaluation": "evaluation",
    "comparison": "comparison",
    "probe": "probe",
}
# Of the sets that are made, or cut out of another; points of the outer sphere have length 1.3.
_SHAPES = {"mnist35": (1, 28, 28), "squares": (1, 224, 224), "squares32": (1, 32, 32)}
_SPHERES_DIAMETER = 2.6
_OWN = ("spheres", *_SHAPES, "imagenet", "folder")


class AlignmentData(Section):
    """The data set of the study, and how much of it.

    ``name`` is one of the study's own (its ``folder`` is a table of images with numbers), or any
    data set that a sweep may name; ``arguments`` are those of a function of a user's.
    ``train_limit`` and ``first`` take the first images only, of the training set and of the
    judged split; each changes the label that stands beside the numbers. ``preprocessing`` is
    ImageNet's: the shorter side to 256 and the central 224 pixels, or the central 288 as they are.
    """

    name: Annotated[str, NameOf(DATASETS, others=_OWN)]
    arguments: dict[str, Argument] | None = None
    split: Literal["validation", "test"] = "test"
    train_limit: Natural | None = None
    first: Natural | None = None
    folder: FolderData | None = None
    preprocessing: Literal["Res256Crop224", "Crop288"] = "Res256Crop224"
    download: bool = False

    def extent(self) -> Extent:
        """Return where its examples lie: images in [-1, 1], points within the outer sphere."""
        if self.name == "spheres":
            return Extent(-math.inf, math.inf, diameter=_SPHERES_DIAMETER)
        if self.folder is not None:
            return Extent(-1, 1, self.folder.crop**2)
        if self.name == "imagenet":
            return Extent(-1, 1, 3 * (288 if self.preprocessing == "Crop288" else 224) ** 2)
        made = _SHAPES.get(self.name)
        return Extent(-1, 1, math.prod(made) if made else Extent.of(self.name).size)

    @model_validator(mode="after")
    def _settings_of_the_set(self) -> Self:
        if (self.name == "folder") != (self.folder is not None):
            raise ValueError("the section folder goes with name: folder, and with no other")
        if self.name != "imagenet":
            self.refuse(f"{self.name} has no choice of it", "preprocessing")
        if self.name in _OWN:
            self.refuse(f"{self.name} takes none", "arguments")
        return self


class DeltaX(Section):
    """Where delta-x comes from.

    ``exact`` is the formula (spheres, squares, squares32); ``direct`` a residual generator's
    output; ``projected`` the projection on a conditional generator's images minus the image;
    ``nearest`` the nearest training image of the other class minus the image: the only one that
    needs no generator on real data, and an upper bound of the length.
    """

    source: Literal["exact", "direct", "projected", "nearest", "none"] = "none"
    generator: Made | None = None
    projection: Projection = Projection()

    @model_validator(mode="after")
    def _generator_where_one_is_used(self) -> Self:
        needs = self.source in ("direct", "projected")
        if needs != (self.generator is not None):
            word = "needs a" if needs else "uses no"
            raise ValueError(f"generator: source {self.source} {word} generator")
        if self.source != "projected":
            self.refuse(f"source {self.source} projects nothing", "projection")
        return self


class Alignment(Manifest):
    """A manifest of kind Alignment: one stage, done by one job.

    Stages: train a ``classifier``; train a residual ``generator`` or a ``conditional_generator``;
    compute ``projections`` for later stages; an ``evaluation`` of a classifier; a ``comparison``
    of finished jobs on one page; a ``probe`` of any networks. Each has the section of its
    settings, and no other's; ``training`` may be followed by an ``evaluation``.
    """

    code: Code = Field(default_factory=dict)
    seed: Seed = 0
    stage: Stage
    data: AlignmentData
    model: ModelConfig | None = None
    weights: Made | None = None
    delta_x: DeltaX = DeltaX()
    training: ClassifierTraining | None = None
    generator: GeneratorTraining | None = None
    conditional_generator: ConditionalGeneratorTraining | None = None
    projections: Projections | None = None
    evaluation: AlignmentEvaluation | None = None
    comparison: Comparison | None = None
    probe: Probe | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_section(cls, document: Any) -> Any:
        """Let a stage without settings have the defaults, where there are any."""
        if not isinstance(document, dict):
            return document
        section = STAGE_SECTION.get(str(document.get("stage")))
        if section in (
            "training",
            "conditional_generator",
            "projections",
            "evaluation",
            "probe",
        ):
            document = {**document, section: document.get(section) or {}}
        return document

    @model_validator(mode="after")
    def _sections_of_the_stage(self) -> Self:
        allowed = {STAGE_SECTION[self.stage]}
        if self.stage == "classifier":
            allowed.add("evaluation")
        for section in STAGE_SECTION.values():
            given = getattr(self, section) is not None
            if given and section not in allowed:
                raise ValueError(f"{section}: not a section of stage {self.stage}")
        if getattr(self, STAGE_SECTION[self.stage]) is None:
            raise ValueError(f"{STAGE_SECTION[self.stage]} is missing: stage {self.stage} needs it")
        return self

    @model_validator(mode="after")
    def _lengths_fit_the_data(self) -> Self:
        extent = self.data.extent()
        if self.training is not None:
            check_lengths(self.training.attack.lengths(), extent, "training.attack.")
            check_lengths(self.training.validation.lengths(), extent, "training.validation.")
        for number, attack in enumerate(self.evaluation.attacks if self.evaluation else ()):
            check_lengths(attack.lengths(), extent, f"evaluation.attacks[{number}].")
        return self

    @model_validator(mode="after")
    def _nothing_is_missing(self) -> Self:
        if self.weights is not None and self.stage != "evaluation":
            raise ValueError(f"weights: stage {self.stage} judges none; stage evaluation does")
        if self.model is not None and self.stage not in ("classifier", "evaluation"):
            raise ValueError(f"model: stage {self.stage} has no choice of it")
        exact = ("spheres", "squares", "squares32")
        if self.delta_x.source == "exact" and self.data.name not in exact:
            raise ValueError(f"delta_x.source: exact is known of {', '.join(exact)} only")
        penalised = self.training is not None and self.training.method == "l_alpha"
        if penalised and self.delta_x.source == "none":
            raise ValueError("delta_x.source: l_alpha needs a delta-x")
        if self.evaluation is not None and self.stage == "evaluation" and self.weights is None:
            estimated = self.delta_x.source in ("direct", "projected")
            if not estimated or self.evaluation.attacks or self.evaluation.linearity:
                raise ValueError(
                    "weights: an evaluation needs a classifier's; name a run or a file. Without "
                    "any, and without attacks, a generator's delta-x is judged"
                )
        if self.stage == "projections" and self.delta_x.source != "projected":
            raise ValueError("delta_x.source: projections are made with source projected")
        if self.stage in ("projections", "conditional_generator") and self.data.name == "imagenet":
            raise ValueError(
                f"stage: {self.stage} has no imagenet; an evaluation projects its images on the "
                "classes that it needs, with BigGAN-deep"
            )
        if self.stage == "probe":
            assert self.probe is not None
            if not self.probe.studies:
                raise ValueError("probe.studies: name one at least; an evaluation judges weights")
            if self.delta_x.source == "none":
                raise ValueError("delta_x.source: a probe needs a delta-x; nearest needs nothing")
        if self.resources.workers > 1:
            raise ValueError("resources.workers: a stage has one worker")
        return self
