"""What is judged: networks of users and of the catalogue, their weights, and who edits them."""

import sys
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustray.errors import ManifestError, UserError
from robustray.evaluation.images import facts_of
from robustray.evaluation.networks import (
    Standardized,
    build_network,
    describe_network,
    state_digest,
)
from robustray.evaluation.subjects import find_subject, load_subject
from robustray.manifest import build_manifest
from robustray.models import create_model
from robustray.store import LocalStore
from tests.helpers.evaluation_tasks import digits, save_weights, small_net, trained_net


def manifest(**fields):
    data = {"name": "digits", "first": 20}
    return build_manifest({"kind": "Evaluation", "suite": "fgsm", "data": data} | fields)


def find(tmp_path, **fields):
    found: Any = manifest(**fields)
    return find_subject(found, facts_of(found.data), LocalStore(tmp_path / "store"))


def test_weights_travel_through_the_store(tmp_path):
    path = save_weights(tmp_path)
    subject = find(tmp_path, factory="tests.helpers.evaluation_tasks:small_net", weights=str(path))
    path.unlink()
    model = load_subject(subject, LocalStore(tmp_path / "store"))
    assert state_digest(model) == state_digest(trained_net())
    assert not model.training
    assert subject.weights_key == f"weights/{subject.weights_sha256}"


def test_weights_are_found_in_a_store_by_their_address(tmp_path):
    store = LocalStore(tmp_path / "elsewhere")
    store.put_file("deep/net", save_weights(tmp_path))
    plain = find(
        tmp_path,
        factory="tests.helpers.evaluation_tasks:small_net",
        weights=f"{store.uri}/deep/net",
    )
    path = find(
        tmp_path,
        factory="tests.helpers.evaluation_tasks:small_net",
        weights=str(tmp_path / "net.safetensors"),
    )
    assert plain == path


def test_torch_files_with_a_state_dict_in_them(tmp_path):
    path = tmp_path / "published.pth"
    torch.save({"state_dict": trained_net().state_dict(), "epoch": 3}, path)
    subject = find(tmp_path, factory="tests.helpers.evaluation_tasks:small_net", weights=str(path))
    model = load_subject(subject, LocalStore(tmp_path / "store"))
    assert state_digest(model) == state_digest(trained_net())


def test_networks_of_the_catalogue(tmp_path):
    options = {"depths": [1, 1, 1], "widths": [0.25, 0.25, 0.25]}
    made = create_model("preact_resnet", num_classes=10, in_channels=1, **options)
    save_file(made.state_dict(), str(tmp_path / "net"))
    subject = find(
        tmp_path, model={"name": "preact_resnet", **options}, weights=str(tmp_path / "net")
    )
    model = load_subject(subject, LocalStore(tmp_path / "store"))
    assert state_digest(model) == state_digest(made)


def test_preprocessing_stands_before_the_network_and_its_weights(tmp_path):
    path = save_weights(tmp_path)
    subject = find(
        tmp_path, factory="tests.helpers.evaluation_tasks:small_net", weights=str(path),
        preprocessing={"mean": [0.5], "std": [0.25]},
    )  # fmt: skip
    model = load_subject(subject, LocalStore(tmp_path / "store"))
    assert isinstance(model, Standardized)
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(x), trained_net()((x - 0.5) / 0.25))
    assert not hasattr(model, "surrogate")


def test_a_surrogate_stays_one_behind_preprocessing():
    class Offers(nn.Module):
        def forward(self, x):
            return x.flatten(1)

        def surrogate(self, x):
            return 2 * x.flatten(1)

    globals()["offers"] = Offers
    network = {
        "factory": "tests.evaluation.test_networks:offers",
        "arguments": {},
        "preprocessing": {"mean": [0.5], "std": [0.5]},
    }
    model: Any = build_network(network)
    x = torch.rand(2, 1, 2, 2)
    torch.testing.assert_close(model.surrogate(x), 2 * model(x))


def test_edited_code_is_another_network(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "from tests.helpers.evaluation_tasks import trained_net as make\n"
    described = []
    for version in (source, source, source + "# edited\n"):
        (tmp_path / "mine_to_edit.py").write_text(version)
        monkeypatch.delitem(sys.modules, "mine_to_edit", raising=False)
        monkeypatch.setattr("linecache.cache", {})
        wanted = manifest(factory="mine_to_edit:make")
        described.append(describe_network(wanted, facts_of(digits())))
    assert described[0] == described[1] != described[2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"factory": "nosuch.module:net"}, "nosuch.module can't be imported"),
        ({"factory": "tests.helpers.evaluation_tasks:nothing"}, "has no function 'nothing'"),
        (
            {
                "factory": {
                    "function": "tests.helpers.evaluation_tasks:small_net",
                    "arguments": {"a": 1},
                }
            },
            "unexpected keyword",
        ),
        ({"factory": "tests.helpers.evaluation_tasks:digits"}, "returns a JudgedData"),
        ({"model": "rrn_a9", "weights": "x"}, "rrn_a9"),
        ({"model": "rrn_a1", "weights": "no/such/file"}, "no file no/such/file"),
    ],
)
def test_what_can_not_be_had_is_named(tmp_path, fields, words):
    with pytest.raises(UserError, match=words):
        find(tmp_path, **fields)


def test_wrong_weights_are_named(tmp_path):
    path = save_weights(tmp_path)
    factory = "tests.helpers.evaluation_tasks:small_net"
    with pytest.raises(ManifestError, match=r"weights.sha256: the SHA-256 of .* is"):
        find(tmp_path, factory=factory, weights={"uri": str(path), "sha256": "0" * 64})
    path = tmp_path / "other.pth"
    torch.save({"1.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ManifestError, match="does not fit the model"):
        find(tmp_path, factory=factory, weights=str(path))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ManifestError, match="can't be read as weights"):
        find(tmp_path, factory=factory, weights=str(path))


def test_weights_that_a_function_draws_anew_are_refused(tmp_path):
    subject = find(tmp_path, factory="tests.helpers.evaluation_tasks:small_net")
    with pytest.raises(ManifestError, match="gives other weights on this worker"):
        load_subject(subject, LocalStore(tmp_path / "store"))
    assert isinstance(small_net(), nn.Module)


class Odd(nn.Module):
    """The trained network with another answer, or other manners."""

    def __init__(self, way: str = "") -> None:
        super().__init__()
        self.net, self.way = trained_net(), way

    def forward(self, x):
        if self.way == "rude":
            x.data.mul_(2)
        z = self.net(x)
        return {
            "tuple": (z, z), "few": z[:, :7], "many": torch.cat([z, z], 1), "flat": z[:, 0],
            "classes": z.argmax(1),
        }.get(self.way, z)  # fmt: skip


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("tuple", r"returns a tuple of \(a float32 tensor \(2, 10\)"),
        ("flat", r"returns a float32 tensor \(2,\)"),
        ("classes", r"returns an int64 tensor \(2,\)"),
        ("few", "the network gives logits of 7 classes, and digits has 10"),
        ("many", "the network gives logits of 20 classes, and digits has 10"),
        ("rude", "the model changes its input in place"),
    ],
)
def test_a_plan_asks_the_network_about_two_images(tmp_path, way, words):
    factory = {"function": "tests.evaluation.test_networks:Odd", "arguments": {"way": way}}
    with pytest.raises(ManifestError, match=rf"^factory: .*{words}"):
        find(tmp_path, factory=factory)


def test_a_network_for_other_images_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ManifestError, match=r"the network fails on images \(1, 8, 8\) of digits: "):
        find(tmp_path, factory="tests.evaluation.test_networks:OfPhotographs")
    find(tmp_path, factory="tests.evaluation.test_networks:Odd")


class OfOneBatch(nn.Flatten):
    """A network that takes physical batches of 16 only."""

    def forward(self, x):
        return x.reshape(16, 64)[:, :10]


def test_a_network_of_one_physical_batch_is_asked_about_that(tmp_path):
    factory = "tests.evaluation.test_networks:OfOneBatch"
    find(tmp_path, factory=factory, compute_shape=16)
    with pytest.raises(ManifestError, match="the network fails"):
        find(tmp_path, factory=factory, compute_shape=32)


class OnAnAccelerator(nn.Flatten):
    def forward(self, x):
        raise RuntimeError("Found no NVIDIA driver on your system")


@pytest.mark.parametrize("here", [False, True])
def test_a_network_for_an_accelerator_is_tried_where_there_is_one(tmp_path, monkeypatch, here):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: here)
    factory = "tests.evaluation.test_networks:OnAnAccelerator"
    if here:
        with pytest.raises(ManifestError, match="no NVIDIA driver"):
            find(tmp_path, factory=factory)
    else:
        with pytest.warns(UserWarning, match="not tried here, but on a worker's device"):
            find(tmp_path, factory=factory)


class OfPhotographs(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 10, 8), nn.Flatten())


def test_preprocessing_hides_no_rude_network():
    class Rude(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                x.mul_(2)
            return x.flatten(1)[:, :3] * 1

    with pytest.raises(ValueError, match="changes its input in place"):
        Standardized(Rude(), (0.5,), (0.5,))(torch.rand(2, 1, 8, 8))


SMALL = {"name": "cifar_preact_resnet18", "width": 4, "depths": [1, 1, 1, 1], "pre_process": True}


def test_constants_that_are_in_no_state_dict_are_a_part_of_the_network():
    data = {"name": "cifar10"}
    wanted: Any = manifest(model=SMALL, weights="w", data=data)
    described = describe_network(wanted, facts_of(wanted.data))
    constants = [[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]]
    assert described["standardisation"] == {"pre_process": constants}
    plain: Any = manifest(model=SMALL | {"pre_process": False}, weights="w", data=data)
    assert "standardisation" not in describe_network(plain, facts_of(plain.data))
    build_network(described)
    described["standardisation"]["pre_process"][1][0] = 0.2471
    with pytest.raises(UserError, match=r"0\.2471.* and this one with .*0\.247\b"):
        build_network(described)


@pytest.mark.parametrize("weights", [None, "nothing.pt"])
def test_an_unknown_network_is_told_before_missing_weights(tmp_path, weights):
    with pytest.raises(UserError, match=r"unknown model 'wrn_28_11'.*did you mean 'wrn_28_10"):
        find(tmp_path, model="wrn_28_11", weights=weights)
    with pytest.raises(UserError, match="weights: are missing: name a file with --weights"):
        find(tmp_path, model={"name": "preact_resnet", "depths": [1], "widths": [1]})
