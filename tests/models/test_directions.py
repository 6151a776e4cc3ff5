"""The classifiers of the study of gradient directions."""

from __future__ import annotations

import pytest
import torch

from robustray.models import ModelError, create_model
from robustray.models.architectures.resnet18 import ResNet18


@pytest.mark.parametrize(
    ("name", "options", "parameters", "buffers"),
    [
        ("gd_spheres_mlp", {"num_classes": 1}, 1_507_001, 4_002),
        ("gd_resnet18", {"num_classes": 1, "in_channels": 1}, 11_177_025, 9_620),
        ("gd_resnet18", {"num_classes": 10, "in_channels": 1}, 11_181_642, 9_620),
        ("gd_resnet18", {"num_classes": 2, "in_channels": 1}, 11_177_538, 9_620),
        ("gd_resnet18", {"num_classes": 10, "small_images": True}, 11_173_962, 9_620),
        ("gd_resnet18", {"num_classes": 1000}, 11_689_512, 9_620),
    ],
)
def test_published_counts(name, options, parameters, buffers):
    with torch.device("meta"):
        model = create_model(name, **options)
    counted = sum(p.numel() for p in model.parameters())
    assert counted == parameters
    assert sum(tensor.numel() for tensor in model.state_dict().values()) - counted == buffers


@pytest.mark.parametrize(
    ("normalisation", "zero"),
    [
        ("direct", (-2.118, -2.036, -1.804)),
        ("indirect", (0.0655, 0.1964, 0.4178)),
        ("none", (0.0, 0.0, 0.0)),
    ],
)
def test_published_normalisation_of_black_and_white(normalisation, zero):
    model = ResNet18(in_channels=1, normalisation=normalisation)
    seen = model.normalise(torch.zeros(1, 1, 2, 2))
    assert seen.shape == (1, 3, 2, 2)
    assert seen[0, :, 0, 0].tolist() == pytest.approx(zero, abs=1e-3)


def test_names_are_those_of_torchvision():
    names = set(create_model("gd_resnet18").state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "fc.bias"} <= names
    assert {"layer4.1.conv2.weight", "layer3.0.downsample.1.num_batches_tracked"} <= names
    assert len(names) == 122


def test_shapes():
    x = torch.zeros(2, 1, 28, 28)
    assert create_model("gd_resnet18", num_classes=1, in_channels=1)(x).shape == (2, 1)
    small = create_model("gd_resnet18", small_images=True)
    assert small.conv1.stride == (1, 1)
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert create_model("gd_spheres_mlp")(torch.zeros(2, 500)).shape == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalisation": "imagenet"}, "direct, indirect, none"),
        ({"in_channels": 2}, "1 or 3"),
        ({"small_images": "yes"}, "true or false"),
    ],
)
def test_wrong_options_say_what_is_allowed(options, message):
    with pytest.raises(ModelError, match=message):
        create_model("gd_resnet18", **options)
