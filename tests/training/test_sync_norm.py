"""Batch normalization over parts: PyTorch's, of the whole batch, in values and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustray.training.accumulation import SyncNorm, synchronised
from robustray.training.world import ALONE, Meeting, World


def run(model: nn.Module, x: Tensor, micro_batches: int) -> Tensor:
    parts = ALONE.parts(len(x), micro_batches)
    meeting = Meeting(ALONE, parts)
    with synchronised(model, meeting):
        found = meeting.run(lambda position: model(x[parts[position].rows]), x.device)
    return torch.cat([y for y, part in zip(found, parts, strict=True) if part.images])


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3, eps=1e-2, momentum=0.7),
    ],
)
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_equals_the_norm_of_the_whole_batch(norm: nn.Module, micro_batches: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 3, 3), copy.deepcopy(norm), nn.ReLU(), nn.Conv2d(3, 1, 1))
    ours = copy.deepcopy(plain)
    x = (torch.randn(7, 2, 5, 4) * 3 + 10).requires_grad_()
    weight = torch.randn(7, 1, 3, 2)
    y, expected, expected_grad = x, x, x.grad
    for model in (plain, ours):
        x.grad = None
        for _ in range(2):
            y = model(x) if model is plain else run(model, x, micro_batches)
            (y * weight).sum().backward()
        if model is plain:
            expected, expected_grad = y, x.grad
    assert torch.allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(x.grad, expected_grad, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(ours.buffers(), plain.buffers(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_model_is_itself_again_afterwards() -> None:
    model: Any = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2)))
    modules = list(model.modules())

    def fail_inside() -> None:
        with synchronised(model, Meeting(ALONE, ALONE.parts(4, 1))):
            assert isinstance(model[0], SyncNorm)
            assert isinstance(model[1][0], SyncNorm)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert list(model.modules()) == modules


def test_evaluation_mode_uses_running_statistics() -> None:
    model, x = nn.Sequential(nn.BatchNorm1d(2)).eval(), torch.randn(6, 2)
    assert torch.equal(run(model, x, 3), model(x))
    assert model[0].num_batches_tracked == 0


def test_an_error_in_one_part_ends_all() -> None:
    meeting = Meeting(ALONE, ALONE.parts(6, 3))

    def work(position: int) -> None:
        if position == 1:
            raise ZeroDivisionError("part 1")
        meeting.total(torch.ones(1))

    with pytest.raises(ZeroDivisionError, match="part 1"):
        meeting.run(work, torch.device("cpu"))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_parts_cover_a_batch_once_and_do_not_depend_on_workers(
    count: int, micro_batches: int, size: int
) -> None:
    parts = [part for rank in range(size) for part in World(rank, size).parts(count, micro_batches)]
    rows = [row for part in parts if part.images for row in range(count)[part.rows]]
    assert rows == list(range(count))
    assert sum(part.weight for part in parts) == pytest.approx(1)
    assert all(part.images == len(range(count)[part.rows]) for part in parts if part.images)
    assert all(World(rank, size).parts(count, micro_batches) for rank in range(size))
    if micro_batches >= size:
        assert parts == ALONE.parts(count, micro_batches)
