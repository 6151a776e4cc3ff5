"""The networks of a study, built from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from robustray.alignment.manifest import Alignment, AlignmentData
from robustray.alignment.splits import StudySplit
from robustray.errors import ManifestError
from robustray.models import create_model
from robustray.models.architectures.biggan import BigGanDeep
from robustray.models.architectures.conditional_networks import ConditionalGenerator
from robustray.models.architectures.residual_generators import SphereGenerator, UNetGenerator

# Of published classifiers: one logit for two classes; images in [-1, 1], points anywhere.
_STUDY_NETWORKS = ("gd_spheres_mlp", "gd_resnet18")  # the others of the catalogue take [0, 1]
_BINARY = ("spheres", "squares", "mnist35", "folder")


def box_of(manifest: Alignment) -> tuple[float, float] | None:
    """Return the least and largest value of a pixel; points on spheres have none."""
    return None if manifest.data.name == "spheres" else (-1.0, 1.0)


def is_binary(manifest: Alignment) -> bool:
    """Tell whether the study's classifier of this data has one logit."""
    return manifest.data.name in _BINARY and manifest.model is None


def takes_unit_images(manifest: Alignment) -> bool:
    """Tell whether the manifest's network takes images in [0, 1], as the catalogue's do."""
    return manifest.model is not None and manifest.model.name not in _STUDY_NETWORKS


def build_classifier(manifest: Alignment, split: StudySplit) -> nn.Module:
    """Build the manifest's network, or the study's for this data.

    Raises
    ------
    ManifestError
        If the catalogue has no such network.
    """
    data, binary = manifest.data.name, is_binary(manifest)
    facts = {"num_classes": 1 if binary else split.num_classes}
    if data != "spheres":
        facts["in_channels"] = split.image_shape[0]
    try:
        if manifest.model is not None:
            return create_model(manifest.model.name, **facts, **manifest.model.options())
        if data == "spheres":
            return create_model("gd_spheres_mlp", **facts)
        small = split.image_shape[0] == 3 and split.image_shape[-1] <= 32
        style = {"normalisation": "direct" if binary else "indirect"}
        return create_model("gd_resnet18", small_images=small, **style, **facts)
    except (ValueError, TypeError) as error:
        raise ManifestError(str(error), path="model") from error


def build_generator(data: AlignmentData, made: Mapping[str, Any]) -> nn.Module:
    """Build a residual generator for a data set."""
    if data.name == "spheres":
        return SphereGenerator()
    published = 2 if data.name == "mnist35" else 4  # 28 pixels can be halved twice
    return UNetGenerator(int(made.get("downsamplings", published)))


def build_conditional(
    split: StudySplit, made: Mapping[str, Any]
) -> ConditionalGenerator | BigGanDeep:
    """Build a class-conditional generator for a data set: the study's, or of ImageNet BigGAN's."""
    if split.name == "imagenet":
        return BigGanDeep(split.num_classes, image_size=split.image_shape[-1])
    return ConditionalGenerator(
        split.num_classes,
        split.image_shape[0],
        int(made.get("channels", 64)),
        int(made.get("latent", 128)),
    )
