from __future__ import annotations

import dataclasses

import pytest
import torch

from robustray.errors import UserError
from robustray.models import create_model
from robustray.models.options import RobustOptions, resolve_config


def test_defaults():
    config = resolve_config()
    assert config.depths == (4, 4, 4)
    assert config.channels == (16, 160, 320, 640)
    assert config.strides == (1, 2, 2)
    assert config.blocks == ("basic",) * 3
    assert config.robust is None


def test_defaults_of_the_robust_block_are_the_published_ones():
    robust = resolve_config(block=("basic", "basic", "robust")).robust
    assert robust == RobustOptions(8, 10, 4, 64, "residual")


def test_lists_and_tuples_are_the_same_configuration():
    as_lists = resolve_config(depths=[1, 2], widths=[4, 6], strides=[1, 2])
    assert as_lists == resolve_config(depths=(1, 2), widths=(4.0, 6.0), strides=(1, 2))
    assert hash(as_lists)
    assert dataclasses.asdict(as_lists)["depths"] == (1, 2)


BAD = [
    ({"depths": ()}, "depths"),
    ({"depths": 4}, "depths: 4 is not a list"),
    ({"depths": (4, 0, 4)}, "depths: 0 is not a whole number"),
    ({"depths": (4, 4, 1.5)}, "depths: 1.5"),
    ({"depths": (4, 4, True)}, "depths: True"),
    ({"depths": (4, 4)}, "give widths or channels for the 2 stages"),
    ({"widths": (10, 10)}, "widths: 2 values for 3 stages"),
    ({"widths": (10, 10, "x")}, "widths: 'x' is not a number"),
    ({"widths": (0.1, 1, 1)}, "gives 1.6 channels"),
    ({"widths": (1, 1, 1.01)}, "multiple of 1/64"),
    ({"widths": (0, 1, 1)}, "at least 1"),
    ({"widths": (1, -1, 1)}, "at least 1"),
    ({"widths": (float("nan"), 1, 1)}, "nan"),
    ({"widths": (1, 1, 1), "channels": (16, 16, 32, 64)}, "not both"),
    ({"channels": (5, 7, 3)}, "give 4, the stem's first"),
    ({"channels": 16}, "channels: 16 is not a list"),
    ({"channels": (16, 16, 0, 16)}, "channels: 0"),
    ({"strides": (1, 2)}, "strides: 2 values for 3 stages"),
    ({"strides": 0}, "strides: 0"),
    ({"block": "bottleneck"}, "unknown block 'bottleneck'.*Allowed: basic, robust"),
    ({"block": ("basic", "robust")}, "block: 2 values for 3 stages"),
    ({"activations": "Swish"}, "unknown activation 'Swish'"),
    ({"activations": ("ReLU", "ReLU", 3)}, "unknown activation 3"),
    ({"normalizations": "batch"}, "BatchNorm, GroupNorm, LayerNorm, InstanceNorm"),
    ({"kernel_sizes": 2}, "kernel_sizes: 2 is even"),
    ({"kernel_sizes": (3, 3)}, "kernel_sizes: 2 values"),
    ({"scales": 4}, "scales: only blocks of kind 'robust'"),
    ({"block": "robust", "scales": 0}, "scales: 0"),
    ({"block": "robust", "se_reduction": 0}, "se_reduction: 0"),
    ({"block": "robust", "widths": 1, "base_width": 9}, "zero width"),
    ({"block": "robust", "widths": 1, "se_reduction": 65}, "se_reduction=65 leaves no unit"),
    ({"block": "robust", "se": "post"}, "unknown position of squeeze.*residual, standard, conv3x3"),
    ({"block": "robust", "se": "none", "se_reduction": 16}, "no gate to reduce"),
    ({"se": "none"}, "se: only blocks of kind 'robust'"),
    ({"widths": 0.25, "normalizations": "GroupNorm"}, "4 channels"),
    ({"pre_process": "yes"}, "neither true nor false"),
    ({"pre_process": True, "in_channels": 1}, "3 channels, not 1"),
    ({"use_init": 1}, "use_init: 1 is neither true nor false"),
    ({"stem_stride": 0}, "stem_stride: 0"),
    ({"num_classes": 0}, "num_classes: 0"),
    ({"in_channels": 0}, "in_channels: 0"),
    ({"depht": (4, 4, 4)}, "preact_resnet does not take the option 'depht'; did you mean 'depths'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(o) for o, _ in BAD])
def test_wrong_options_say_what_is_allowed(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message) as caught:
        create_model("preact_resnet", **options)
    assert isinstance(caught.value, UserError)


def test_none_means_not_given():
    with torch.device("meta"):
        model = create_model("preact_resnet", widths=None, scales=None, pre_process=None)
    assert model.config == resolve_config()
