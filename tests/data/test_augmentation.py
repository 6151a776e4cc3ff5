import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from robustray.data.augmentation import EpochPlan, crop, rotate
from robustray.manifest.recipe import Augmentation

SHAPES = st.sampled_from([(1, 8, 8), (3, 5, 7), (2, 1, 6), (3, 9, 4)])


def images(count, shape, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, *shape), generator=source).to(torch.uint8)


def slow_crop(x_CHW, row, column, padding):
    """Copy pixel by pixel; what is not in the image is zero."""
    out = torch.zeros_like(x_CHW)
    _, height, width = x_CHW.shape
    for i in range(height):
        for j in range(width):
            source_i, source_j = i + row - padding, j + column - padding
            if 0 <= source_i < height and 0 <= source_j < width:
                out[:, i, j] = x_CHW[:, source_i, source_j]
    return out


def slow_flip(x_CHW):
    out = torch.empty_like(x_CHW)
    for j in range(x_CHW.shape[2]):
        out[:, :, j] = x_CHW[:, :, x_CHW.shape[2] - 1 - j]
    return out


def slow_rotate(x_CHW, angle):
    """Turn each pixel's centre back with complex numbers and look for the nearest."""
    out = torch.zeros_like(x_CHW)
    _, height, width = x_CHW.shape
    centre = complex((width - 1) / 2, -(height - 1) / 2)
    for i in range(height):
        for j in range(width):
            source = (complex(j, -i) - centre) * complex(math.cos(angle), -math.sin(angle)) + centre
            source_i, source_j = round(-source.imag), round(source.real)
            if 0 <= source_i < height and 0 <= source_j < width:
                out[:, i, j] = x_CHW[:, source_i, source_j]
    return out


def turns(angles):
    angles = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], 1).float()


@given(shape=SHAPES, padding=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_crops_equal_the_slow_reference(shape, padding, seed):
    x = images(6, shape, seed)
    offset = torch.randint(0, 2 * padding + 1, (6, 2))
    cropped = crop(x, offset, padding)
    assert cropped.dtype == torch.uint8
    for k, (row, column) in enumerate(offset.tolist()):
        assert torch.equal(cropped[k], slow_crop(x[k], row, column, padding))


def test_crops_reach_both_corners():
    x = images(3, (1, 8, 8))
    offset = torch.tensor([[4, 4], [0, 0], [8, 8]])
    same, down_right, up_left = crop(x, offset, 4)
    assert torch.equal(same, x[0])
    assert torch.equal(down_right[:, 4:, 4:], x[1, :, :4, :4])
    assert torch.equal(up_left[:, :4, :4], x[2, :, 4:, 4:])
    assert down_right[:, :4].sum() == up_left[:, 4:].sum() == 0


@given(shape=SHAPES, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_rotations_equal_the_slow_reference(shape, seed):
    x = images(5, shape, seed)
    angles = (torch.rand(5, dtype=torch.float64) * 2 * math.pi - math.pi).tolist()
    rotated = rotate(x, turns(angles))
    for k, angle in enumerate(angles):
        assert torch.equal(rotated[k], slow_rotate(x[k], angle))


def test_quarter_turns_are_exact_and_counter_clockwise():
    for shape in ((3, 8, 8), (1, 7, 7)):
        x = images(4, shape)
        rotated = rotate(x, turns([0, math.pi / 2, math.pi, -math.pi / 2]))
        for k in range(4):
            assert torch.equal(rotated[k], torch.rot90(x[k], k, (1, 2)))


def test_rotations_agree_with_pillow():
    """Pillow computes in fixed point, so a pixel between two may fall on either side."""
    x = images(30, (3, 32, 32))
    angles = torch.linspace(-15, 15, 30, dtype=torch.float64)
    ours = rotate(x, turns(angles.deg2rad().tolist())).permute(0, 2, 3, 1).numpy()
    for image, rotated, angle in zip(x.permute(0, 2, 3, 1).numpy(), ours, angles, strict=True):
        pillow = np.asarray(Image.fromarray(image).rotate(float(angle), Image.Resampling.NEAREST))
        assert (pillow == rotated).all(2).mean() > 0.99


@given(
    padding=st.integers(0, 4),
    flip=st.booleans(),
    rotation=st.sampled_from([0.0, 15.0, 180.0]),
    epoch=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_whole_augmentations_equal_crop_then_flip_then_rotation(padding, flip, rotation, epoch):
    augmentation = Augmentation(crop_padding=padding, flip=flip, rotation=rotation)
    plan = EpochPlan.draw(9, augmentation, seed=1, epoch=epoch)
    x = images(9, (3, 6, 6), epoch)
    whole = plan.augment(x, slice(0, 9), augmentation)
    for k in range(9):
        row, column = plan.offset_N2[k].tolist()
        expected = slow_crop(x[k], row, column, padding)
        expected = slow_flip(expected) if flip and plan.flip_N[k] else expected
        cosine, sine = plan.turn_N2[k].tolist()
        expected = slow_rotate(expected, math.atan2(sine, cosine)) if rotation else expected
        assert torch.equal(whole[k], expected)


def test_draws_are_uniform():
    plan = EpochPlan.draw(40_000, Augmentation(rotation=15), seed=0, epoch=0)
    assert torch.equal(plan.order_N.sort().values, torch.arange(40_000))
    for counts in (
        (plan.offset_N2[:, 0] * 9 + plan.offset_N2[:, 1]).bincount(minlength=81),
        plan.flip_N.long().bincount(minlength=2),
    ):
        assert stats.chisquare(counts).pvalue > 1e-3
    degrees = torch.atan2(plan.turn_N2[:, 1], plan.turn_N2[:, 0]).rad2deg()
    assert degrees.abs().max() <= 15 + 1e-4
    assert stats.kstest(degrees, stats.uniform(-15, 30).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(plan.flip_N, degrees)[0, 1]) < 0.02


def test_settings_leave_the_other_draws_alone():
    plans = [
        EpochPlan.draw(100, augmentation, seed=0, epoch=0)
        for augmentation in (Augmentation(), Augmentation(crop_padding=2, rotation=15))
    ]
    assert torch.equal(plans[0].order_N, plans[1].order_N)
    assert torch.equal(plans[0].flip_N, plans[1].flip_N)
    again = EpochPlan.draw(100, Augmentation(rotation=30), seed=0, epoch=0)
    assert torch.equal(plans[0].offset_N2, again.offset_N2)


@pytest.mark.parametrize("other", [{"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}])
def test_seed_and_epoch_change_everything(other):
    first = EpochPlan.draw(500, Augmentation(), seed=0, epoch=0)
    second = EpochPlan.draw(500, Augmentation(), **other)
    assert (first.order_N == second.order_N).float().mean() < 0.05
    assert (first.flip_N == second.flip_N).float().mean() < 0.65
