"""Batches of labelled and extra images: exact proportions, passes, resumption."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.data import EpochBatches, Split
from robustray.errors import DataError
from robustray.manifest.recipe import Augmentation, Mixture

FIRST_EXTRA = 10_000


def split_of(count, first):
    x = torch.arange(count).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    return Split(x, torch.arange(count) % 10, torch.arange(first, first + count))


def epoch(
    labelled=40, extra=30, batch_size=10, share=0.7, images=None, number=0, seed=0, **options
):
    return EpochBatches(
        split_of(labelled, 0),
        batch_size,
        None,
        seed=seed,
        epoch=number,
        extra=split_of(extra, FIRST_EXTRA),
        mixture=Mixture(extra=share, epoch_images=images),
        **options,
    )


@given(
    labelled=st.integers(1, 60),
    extra=st.integers(1, 40),
    batch_size=st.integers(2, 40),
    share=st.floats(0.05, 0.95),
    images=st.one_of(st.none(), st.integers(1, 200)),
)
@settings(max_examples=60, deadline=None)
def test_every_batch_holds_exactly_its_share(labelled, extra, batch_size, share, images):
    wanted = Mixture(extra=share).extra_images(batch_size)
    if not 0 < wanted < batch_size:
        return
    batches = list(epoch(labelled, extra, batch_size, share, images))
    assert len(batches) == -(-(images or labelled) // batch_size)
    seen = []  # positions of labelled images; within a batch they are shuffled
    for batch in batches:
        assert len(batch.y_B) == batch_size
        assert (batch.index_B >= FIRST_EXTRA).sum() == wanted
        seen.append(batch.index_B[batch.index_B < FIRST_EXTRA])
    seen = torch.cat(seen)
    counts = seen.bincount(minlength=labelled)
    assert counts.max() - counts.min() <= 1, "no image twice more often than another"


def test_the_published_share_and_epoch():
    mixture = Mixture(extra=0.7, epoch_images=50_000)
    assert mixture.extra_images(1024) == 716
    assert Mixture(extra=0.57).extra_images(100) == 57, "0.57 * 100 is 56.99... in binary"
    batches = epoch(labelled=2000, extra=100, batch_size=1024, share=0.7, images=50_000)
    assert batches.steps == 49


def test_images_keep_their_labels_and_are_mixed_within_the_batch():
    batch = next(iter(epoch(labelled=100, extra=100, batch_size=50)))
    assert torch.equal((batch.x_BCHW[:, 0, 0, 0] * 255).round().long() % 10, batch.y_B)
    is_extra = (batch.index_B >= FIRST_EXTRA).tolist()
    assert is_extra != sorted(is_extra)


def test_extra_images_are_drawn_with_replacement():
    batches = list(epoch(extra=5, batch_size=20, images=200))
    counts = torch.cat([b.index_B[b.index_B >= FIRST_EXTRA] for b in batches]) - FIRST_EXTRA
    assert counts.bincount(minlength=5).min() > 10
    assert len(counts) == 140


@given(start=st.integers(0, 8), crop=st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_any_step_can_be_resumed_at(start, crop):
    def whole(**options):
        batches = EpochBatches(
            split_of(40, 0), 10, Augmentation(crop_padding=crop), seed=1, epoch=2,
            extra=split_of(9, FIRST_EXTRA), mixture=Mixture(extra=0.5, epoch_images=80), **options,
        )  # fmt: skip
        return list(batches)

    for left, right in zip(whole(start=start), whole()[start:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_seeds_and_epochs_differ():
    orders = {
        tuple(torch.cat([b.index_B for b in epoch(seed=seed, number=number)]).tolist())
        for seed in range(2)
        for number in range(2)
    }
    assert len(orders) == 4


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(DataError, match=r"data\.extra"):
        EpochBatches(split_of(9, 0), 4, None, seed=0, epoch=0, mixture=Mixture(extra=0.5))
    with pytest.raises(DataError, match=r"data\.extra"):
        epoch(extra=0)
