"""Cutout and CutMix against slow references, and their draws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustray.data import EpochBatches, Split
from robustray.data.augmentation import PatchPlan
from robustray.manifest.recipe import Augmentation


def images(count=8, shape=(3, 6, 7)):
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 120, (count, *shape), generator=source).to(torch.uint8)


def plan(count=8, size=(6, 7), seed=0, epoch=0, **options):
    return PatchPlan.draw(count, size, Augmentation(**options), seed=seed, epoch=epoch)


@given(side=st.integers(1, 9), epoch=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_cutout_paints_a_square_grey(side, epoch):
    drawn, x = plan(cutout=side, epoch=epoch), images()
    painted = drawn.paint(x, slice(0, 8))
    for k, (top, bottom, left, right) in enumerate(drawn.cutout_N4.tolist()):
        expected = x[k].clone()
        expected[:, top:bottom, left:right] = 128
        assert torch.equal(painted[k], expected)
        assert 0 < bottom - top <= side
        assert 0 < right - left <= side


def test_the_whole_square_lies_around_pixels_in_the_middle():
    area = plan(2000, (32, 32), cutout=16).cutout_N4.float()
    height, width = area[:, 1] - area[:, 0], area[:, 3] - area[:, 2]
    assert height.max() == width.max() == 16
    assert height.min() == 8, "half of it is outside where the centre is in a corner"
    assert (height == 16).float().mean().item() == pytest.approx(17 / 32, abs=0.04)


@given(alpha=st.sampled_from([0.5, 1.0, 3.0]), epoch=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_cutmix_pastes_the_predecessor_and_mixes_by_area(alpha, epoch):
    drawn, x, y = plan(cutmix=alpha, epoch=epoch), images(), torch.arange(8) % 5
    mixed, y_BK = drawn.mix(x, y, slice(0, 8), 5)
    for k, (top, bottom, left, right) in enumerate(drawn.cutmix_N4.tolist()):
        expected, target = x[k].clone(), torch.zeros(5)
        expected[:, top:bottom, left:right] = x[k - 1][:, top:bottom, left:right]
        share = (bottom - top) * (right - left) / 42
        target[y[k]] += 1 - share
        target[y[k - 1]] += share
        assert torch.equal(mixed[k], expected)
        assert torch.allclose(y_BK[k], target, atol=1e-6)


def test_shares_follow_the_beta_distribution():
    """Heights h of uncut rectangles: density 2h where the share is uniform, times 1 - h uncut."""
    box = plan(4000, (4001, 4001), cutmix=1.0).cutmix_N4
    inside = (box[:, 0] > 0) & (box[:, 1] < 4001)
    height = (box[:, 1] - box[:, 0])[inside] / 4001
    expected = [3 * h**2 - 2 * h**3 for h in height.tolist()]
    assert stats.kstest(expected, "uniform").pvalue > 1e-3


def test_a_window_has_a_fixed_size():
    box = plan(500, (32, 32), cutmix_window=20).cutmix_N4
    height = box[:, 1] - box[:, 0]
    assert height.max() == 20
    assert height.min() == 10


def test_other_draws_are_left_alone():
    both = plan(cutout=3, cutmix=1.0)
    assert torch.equal(both.cutout_N4, plan(cutout=3).cutout_N4)
    assert torch.equal(both.cutmix_N4, plan(cutmix=1.0).cutmix_N4)
    assert not torch.equal(both.cutout_N4, plan(cutout=3, epoch=1).cutout_N4)
    assert not torch.equal(both.cutmix_N4, plan(cutmix=1.0, seed=1).cutmix_N4)


def test_batches_carry_probabilities_only_where_classes_are_mixed():
    split = Split(images(20, (1, 8, 8)), torch.arange(20) % 4, torch.arange(20))

    def batch(**options):
        augmentation = Augmentation(crop_padding=0, flip=False, **options)
        return next(iter(EpochBatches(split, 16, augmentation, seed=0, epoch=0, num_classes=4)))

    plain, mixed, cut = batch(), batch(cutmix=1.0), batch(cutout=4)
    assert plain.y_B.dtype == torch.int64
    assert mixed.y_B.shape == (16, 4)
    assert torch.allclose(mixed.y_B.sum(1), torch.ones(16))
    assert (mixed.y_B[torch.arange(16), plain.y_B] > 0).float().mean() > 0.8
    assert torch.equal(cut.y_B, plain.y_B)
    grey = cut.x_BCHW == 128 / 255
    assert grey.flatten(1).any(1).all()
    assert math.isclose(cut.x_BCHW[~grey].sum(), plain.x_BCHW[~grey].sum(), rel_tol=1e-6)
