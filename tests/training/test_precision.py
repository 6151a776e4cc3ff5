from __future__ import annotations

import pytest
import torch

from robustray.errors import UserError
from robustray.manifest.schema import Recipe
from robustray.training.precision import Precision

from .small import tiny


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


def test_device_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(UserError, match="bfloat16"):
        Precision.of(Recipe(precision="bfloat16"), "cuda")
