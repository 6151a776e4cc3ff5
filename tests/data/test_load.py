import shutil

import numpy as np
import pytest
import torch

from robustray.data import Dataset, Split, data_root, describe, digest_of, load_dataset
from robustray.data.readers import unpickle_arrays
from robustray.errors import DataError, UserError
from robustray.manifest.job import DataConfig
from robustray.registry import DATASETS

DIGITS = DataConfig(name="digits", validation=137)


def files_of(dataset):
    splits = (dataset.train, dataset.validation, dataset.test)
    return [set(split.index_N.tolist()) for split in splits]


def test_digits():
    dataset = load_dataset(DIGITS)
    assert dataset.digest == "8d983428262cdf55db001ba3bc12a7ad071500f557bd520b06612de98b2732e9"
    assert (dataset.name, dataset.label) == ("digits", "digits validation=137")
    assert (dataset.num_classes, dataset.image_shape) == (10, (1, 8, 8))
    train, validation, test = files_of(dataset)
    assert (len(train), len(validation), len(test)) == (1300, 137, 360)
    assert len(train | validation | test) == 1797  # disjoint, and nothing is lost
    assert dataset.train.x_NCHW.dtype == torch.uint8
    assert dataset.train.x_NCHW[:3].sum((1, 2, 3)).tolist() == [4687, 4989, 5483]
    assert dataset.validation.index_N[:5].tolist() == [8, 41, 44, 46, 67]


def test_the_same_images_are_held_out_whatever_else_is_asked():
    whole = load_dataset(DIGITS)
    assert load_dataset(DIGITS, splits=("validation",)).validation.digest == whole.validation.digest
    larger = load_dataset(DataConfig(name="digits", validation=300))
    assert files_of(whole)[1] < files_of(larger)[1]
    limited = load_dataset(DataConfig(name="digits", validation=50, train_limit=500))
    first = set(sorted(files_of(whole)[0] | files_of(whole)[1])[:500])
    assert files_of(limited)[0] | files_of(limited)[1] == first
    assert files_of(limited)[2] == files_of(whole)[2]


def test_splits_that_were_not_asked_for_are_empty():
    dataset = load_dataset(DIGITS, splits=("test",))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (0, 0, 360)
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.digest != load_dataset(DIGITS).digest
    with pytest.raises(ValueError, match="splits"):
        load_dataset(DIGITS, splits=("tests",))


def test_the_digest_tells_images_classes_positions_and_roles_apart():
    split = load_dataset(DIGITS, splits=("test",)).test
    pixel, label = split.x_NCHW.clone(), split.y_N.clone()
    pixel[3, 0, 2, 2] ^= 1
    label[7] = (label[7] + 1) % 10
    variants = [
        split,
        Split(pixel, split.y_N, split.index_N),
        Split(split.x_NCHW, label, split.index_N),
        Split(split.x_NCHW, split.y_N, split.index_N + 1),
        Split(split.x_NCHW.transpose(2, 3), split.y_N, split.index_N),
        Split(split.x_NCHW.view(360, 1, 4, 16), split.y_N, split.index_N),
        split.select(slice(0, 359)),
        split.select(torch.arange(360).flip(0)),
    ]
    assert len({digest_of({"test": variant}, 10) for variant in variants}) == len(variants)
    assert digest_of({"test": split}, 10) != digest_of({"train": split}, 10)
    assert digest_of({"test": split}, 10) == digest_of({"test": split.select(slice(None))}, 10)


def test_splits_refuse_other_types():
    x, n = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.arange(2)
    for wrong in ((x.float(), n, n), (x[0], n, n), (x, n[:1], n), (x, n, n.int())):
        with pytest.raises(ValueError, match="must be"):
            Split(*wrong)


def test_moving_to_the_same_device_copies_nothing():
    dataset = load_dataset(DIGITS)
    moved = dataset.to("cpu")
    assert isinstance(moved, Dataset)
    assert moved.train is dataset.train
    assert (moved.label, moved.digest) == (dataset.label, dataset.digest)
    away = dataset.to("meta")
    assert {split.x_NCHW.device.type for split in (away.train, away.validation, away.test)} == {
        "meta"
    }


@pytest.mark.parametrize(
    ("options", "label", "counts"),
    [
        ({"name": "cifar10"}, "cifar10", (48976, 1024, 10000)),
        (
            {"name": "cifar10", "parts": ("data_batch_1",), "train_limit": 4000},
            "cifar10[data_batch_1][:4000]",
            (2976, 1024, 10000),
        ),
        (
            {"name": "cifar10", "parts": ("data_batch_3", "data_batch_1"), "test_limit": 500},
            "cifar10[data_batch_1,data_batch_3] test[:500]",
            (18976, 1024, 500),
        ),
        ({"name": "cifar100", "parts": ("train",)}, "cifar100", (48976, 1024, 10000)),
        ({"name": "mnist", "validation": 10000}, "mnist validation=10000", (50000, 10000, 10000)),
    ],
)
def test_facts_are_known_before_any_file_is_read(options, label, counts):
    facts = describe(DataConfig(**options))
    assert facts.label == label
    assert (facts.train, facts.validation, facts.test) == counts
    assert facts.num_classes == len(facts.class_names) == (100 if label == "cifar100" else 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cifar10", "parts": ("data_batch_6",)}, r"different ones of data_batch_1, .*_6"),
        ({"name": "cifar10", "parts": ("data_batch_1",) * 2}, "different ones"),
        ({"name": "mnist", "parts": ("data_batch_1",)}, "different ones of train, not"),
        ({"name": "digits", "parts": ("data_batch_1",)}, "different ones of train, not"),
        ({"name": "digits", "train_limit": 1438}, "train_limit is 1438.* only 1437"),
        ({"name": "digits", "test_limit": 361}, "test_limit is 361.* only 360"),
        ({"name": "digits", "validation": 1437}, "leaves none of 1437"),
        ({"name": "digits", "train_limit": 100, "validation": 100}, "leaves none of 100"),
        ({"name": "cifar10", "parts": ("data_batch_2",), "validation": 10000}, "leaves none"),
    ],
)
def test_configurations_that_ask_for_too_much(options, message, tmp_path):
    config = DataConfig(**options)
    for call in (describe, lambda config: load_dataset(config, tmp_path)):
        with pytest.raises(DataError, match=message):
            call(config)
    assert issubclass(DataError, UserError)


def test_the_root_is_argument_then_environment_then_data(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTRAY_DATA", str(tmp_path / "env"))
    assert data_root(tmp_path) == tmp_path
    assert data_root() == tmp_path / "env"
    with pytest.raises(DataError, match=f"{tmp_path}/env/MNIST/raw/t10k-images"):
        load_dataset(DataConfig(name="mnist"), splits=("test",))
    monkeypatch.delenv("ROBUSTRAY_DATA")
    assert str(data_root()) == "data"


def test_mnist(shared_data):
    dataset = load_dataset(DataConfig(name="mnist"), shared_data)
    assert dataset.digest == "6581544fda7306816a3b6770675f54a85ce3fae13e4ad9e46834492042fe3bbf"
    assert (len(dataset.train), len(dataset.validation)) == (58976, 1024)
    whole = dataset.train.y_N.bincount() + dataset.validation.y_N.bincount()
    assert whole.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.train.x_NCHW[:3].sum((1, 2, 3)).tolist() == [27525, 31095, 19443]
    assert_equals_subset(dataset.test, shared_data, "mnist")


def test_cifar10_from_one_batch(shared_data):
    config = DataConfig(name="cifar10", parts=("data_batch_1",))
    dataset = load_dataset(config, shared_data)
    assert dataset.digest == "e56ef2747124d740d63ecdc81f22e8a3da717dceb41b137ca7435deeff4bc26f"
    assert dataset.train.x_NCHW[:3].sum((1, 2, 3)).tolist() == [317790, 400427, 410851]
    assert dataset.train.y_N[:5].tolist() == [6, 9, 9, 4, 1]
    assert dataset.test.y_N.bincount().tolist() == [1000] * 10
    assert_equals_subset(dataset.test, shared_data, "cifar10")


def test_a_limit_opens_no_more_files_than_it_needs(shared_data):
    """data_batch_2 to 5 may be absent here: 4000 images all lie in the first."""
    config = {"name": "cifar10", "train_limit": 4000}
    limited = load_dataset(DataConfig(**config), shared_data, splits=("train",))
    part = load_dataset(DataConfig(**config, parts=("data_batch_1",)), shared_data, ("train",))
    assert limited.digest == part.digest
    assert limited.label == "cifar10[:4000]"
    assert limited.train.index_N.max() < 4000


def test_cifar100_test_images_need_no_training_file(shared_data):
    dataset = load_dataset(DataConfig(name="cifar100"), shared_data, splits=("test",))
    assert dataset.digest == "e1ae0cc9769517511f4f29e9c6921b8e299e21390e940130990f1a454ca77c6a"
    assert dataset.test.y_N.bincount().tolist() == [100] * 100
    assert dataset.test.x_NCHW[:3].sum((1, 2, 3)).tolist() == [559205, 339530, 321499]
    assert_equals_subset(dataset.test, shared_data, "cifar100")


def assert_equals_subset(test, shared_data, name):
    """Compare with the copies that were taken without this package."""
    with np.load(shared_data / "subsets" / f"{name}_test_first1000.npz") as subset:
        assert torch.equal(test.x_NCHW[:1000], torch.from_numpy(subset["x"]))
        assert torch.equal(test.y_N[:1000], torch.from_numpy(subset["y"]))
    assert torch.equal(test.index_N, torch.arange(10000))


def test_class_names_are_the_official_ones(shared_data):
    meta10 = unpickle_arrays((shared_data / "cifar-10-batches-py/batches.meta").read_bytes())
    meta100 = unpickle_arrays((shared_data / "cifar-100-python/meta").read_bytes())
    names = [tuple(name.decode() for name in meta10[b"label_names"])]
    names.append(tuple(name.decode() for name in meta100[b"fine_label_names"]))
    assert names == [DATASETS.find("cifar10").class_names, DATASETS.find("cifar100").class_names]


def test_one_flipped_bit_is_found(shared_data, tmp_path):
    shutil.copytree(shared_data / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    path.chmod(0o644)
    path.parent.chmod(0o755)
    blob = bytearray(path.read_bytes())
    blob[2000] ^= 4
    path.write_bytes(blob)
    config = DataConfig(name="mnist")
    with pytest.raises(
        DataError, match=r"t10k-labels.* is damaged: 4542 bytes.* expected md5 ec29"
    ):
        load_dataset(config, tmp_path, splits=("test",))
    assert len(load_dataset(config, tmp_path, splits=("train",)).train) == 58976
    path.unlink()
    with pytest.raises(DataError, match=r"t10k-labels.* is missing \(expected md5 ec29"):
        load_dataset(config, tmp_path)
