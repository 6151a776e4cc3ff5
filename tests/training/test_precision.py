from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

from robustray.errors import UserError
from robustray.manifest.recipe import Recipe
from robustray.training import Trainer
from robustray.training.optimizer import build_optimizer
from robustray.training.precision import Precision
from tests.helpers.small_training import tiny, toy_recipe


def test_of_a_recipe() -> None:
    exact = Precision.of(Recipe(), "cpu")
    assert not exact.low
    with exact.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
    low = Precision.of(Recipe(precision="bfloat16"), "cpu")
    assert low.low
    with low.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16


def test_layout() -> None:
    for channels_last, layout in ((True, torch.channels_last), (False, torch.contiguous_format)):
        precision = Precision.of(Recipe(channels_last=channels_last), "cpu")
        model = tiny()
        precision.place(model)
        assert model.conv1.weight.is_contiguous(memory_format=layout)
        assert precision.images(torch.rand(2, 3, 4, 4)).is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "kept"),
    [(4, 1, 2, False), (16, 1, 2, True), (4, 1, 1, True), (4, 3, 2, True)],
)
def test_narrow_strided_convolutions_of_one_pixel_are_not_trained_in_channels_last(
    channels: int, kernel: int, stride: int, kept: bool
) -> None:
    """Their gradients are those of a plain step; in channels-last some processors overrun."""
    torch.manual_seed(0)  # unseeded, it differed once in many runs, and never by itself
    model = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 8, kernel, stride=stride),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    model(torch.rand(1, 3, 8, 8))
    plain = copy.deepcopy(model)
    recipe = toy_recipe(objective="natural")
    trainer = Trainer(model, recipe, seed=0)
    assert trainer.precision.channels_last == kept
    trainer.start_epoch(0)
    x, y = torch.rand(20, 3, 8, 8), torch.arange(20) % 4
    trainer.step(x, y, epoch=0, step=0)
    optimizer = build_optimizer(plain, recipe.optimizer)
    nn.functional.cross_entropy(plain.train()(x), y).backward()
    optimizer.step()
    for (name, mine), wanted in zip(model.named_parameters(), plain.parameters(), strict=True):
        say = functools.partial("{}: {}".format, name)
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6, msg=say)


def test_device_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(UserError, match="bfloat16"):
        Precision.of(Recipe(precision="bfloat16"), "cuda")
