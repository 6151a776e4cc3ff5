import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.data import Batch, EpochBatches, Split, eval_batches, load_dataset, steps_per_epoch
from robustray.errors import DataError
from robustray.manifest.job import DataConfig
from robustray.manifest.recipe import Augmentation

AUGMENTATION = Augmentation(crop_padding=2, rotation=15)


def split_of(count=50, shape=(3, 8, 8)):
    source = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, *shape), generator=source).to(torch.uint8)
    return Split(x, torch.randint(0, 10, (count,), generator=source), torch.arange(count) * 3 + 100)


def epoch(split, batch_size, augmentation=AUGMENTATION, seed=0, number=0, **options):
    return EpochBatches(
        split, batch_size, augmentation, seed=seed, epoch=number, device="cpu", **options
    )


def joined(batches):
    return Batch(*(torch.cat(column) for column in zip(*batches, strict=True)))


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left, right)


def test_an_epoch_has_each_image_once_with_its_class_and_position():
    split = split_of()
    batches = list(epoch(split, 16, None))
    assert [len(batch.y_B) for batch in batches] == [16, 16, 16, 2]
    whole = joined(batches)
    order = whole.index_B.argsort()
    assert torch.equal(whole.index_B[order], split.index_N)
    assert not torch.equal(whole.index_B, split.index_N)
    assert torch.equal(whole.y_B[order], split.y_N)
    assert torch.equal(whole.x_BCHW[order], split.x_NCHW.float() / 255)


def test_pixels_are_float32_in_the_unit_box():
    x = torch.arange(256).to(torch.uint8).view(1, 1, 16, 16)
    split = Split(x, torch.tensor([0]), torch.tensor([0]))
    for batches in (epoch(split, 1, None), eval_batches(split, 1)):
        (batch,) = batches
        assert batch.x_BCHW.dtype == torch.float32
        expected = torch.tensor([v / 255 for v in range(256)])
        assert torch.equal(batch.x_BCHW.flatten(), expected)


@given(batch_size=st.integers(1, 60), start=st.integers(0, 50), drop_last=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_step_can_be_resumed_at(batch_size, start, drop_last):
    split = split_of()
    whole = list(epoch(split, batch_size, drop_last=drop_last))
    assert len(whole) == steps_per_epoch(50, batch_size, drop_last=drop_last)
    start = min(start, len(whole))
    resumed = epoch(split, batch_size, start=start, drop_last=drop_last)
    assert len(resumed) == len(whole) - start
    assert resumed.steps == len(whole)
    resumed = list(resumed)
    assert len(resumed) == len(whole) - start
    for left, right in zip(resumed, whole[start:], strict=True):
        assert_same(left, right)


def test_iterating_twice_gives_the_same_epoch():
    batches = epoch(split_of(), 16)
    assert_same(joined(batches), joined(batches))


@given(batch_size=st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_an_image_is_augmented_alike_in_batches_of_any_size(batch_size):
    split = split_of()
    assert_same(joined(epoch(split, batch_size)), joined(epoch(split, 50)))


def test_the_global_generator_is_neither_used_nor_touched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = joined(epoch(split_of(), 16))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same(joined(epoch(split_of(), 16)), first)


def test_seeds_and_epochs_differ():
    split = split_of()
    orders = [
        tuple(joined(epoch(split, 16, seed=seed, number=number)).index_B.tolist())
        for seed in range(3)
        for number in range(3)
    ]
    assert len(set(orders)) == 9


def test_the_stream_is_the_recorded_one():
    split = load_dataset(DataConfig(name="digits", validation=137)).train
    augmentation = Augmentation(crop_padding=1, rotation=15)
    digest = hashlib.sha256()
    for batch in epoch(split, 128, augmentation, seed=3, number=2):
        digest.update(batch.x_BCHW.numpy().tobytes() + batch.index_B.numpy().tobytes())
    recorded = "2699b8a6b23ed046b4cb52d1c2a3033b07a6bb92ee2ae1222c0e511515edcb67"
    assert digest.hexdigest() == recorded


def test_eval_batches_keep_the_order():
    split = split_of()
    batches = list(eval_batches(split, 16, "cpu"))
    assert [len(batch.y_B) for batch in batches] == [16, 16, 16, 2]
    whole = joined(batches)
    assert torch.equal(whole.index_B, split.index_N)
    assert torch.equal(whole.y_B, split.y_N)
    assert torch.equal(whole.x_BCHW, split.x_NCHW.float() / 255)


def test_wrong_arguments():
    split, empty = split_of(), split_of().select(slice(0, 0))
    with pytest.raises(DataError, match="no images"):
        epoch(empty, 4)
    with pytest.raises(DataError, match="no images"):
        next(eval_batches(empty, 4))
    with pytest.raises(ValueError, match="batch_size"):
        epoch(split, 0)
    with pytest.raises(ValueError, match="batch_size"):
        next(eval_batches(split, 0))
    for start in (-1, 5):
        with pytest.raises(ValueError, match="start"):
            epoch(split, 16, start=start)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_have_the_same_bits_on_a_gpu():
    split = split_of(500, (3, 32, 32))
    on_gpu = EpochBatches(split, 128, AUGMENTATION, seed=0, epoch=0, device="cuda")
    whole = joined(on_gpu)
    assert whole.x_BCHW.is_cuda
    assert_same((tensor.cpu() for tensor in whole), joined(epoch(split, 128)))
