"""RobustBench's architectures with random weights: their files load into ours, logits agree."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from robustray.errors import UserError, WeightsError
from robustray.models import create_model, declared_input, load_weights
from robustray.models.architectures.cifar_resnet import MixingNetwork
from robustray.models.libraries.robustbench import LIBRARY
from tests.helpers.libraries import needs_robustbench, scatter

pytestmark = needs_robustbench


@pytest.fixture(scope="module", autouse=True)
def zoo():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LIBRARY.records()


def part(name: str) -> Any:
    return importlib.import_module(f"robustbench.model_zoo.architectures.{name}")


def of_cifar10(name: str) -> Any:
    return getattr(importlib.import_module("robustbench.model_zoo.cifar10"), name)


def of_cifar100(name: str) -> Any:
    return getattr(importlib.import_module("robustbench.model_zoo.cifar100"), name)


def preact(**options: Any) -> nn.Module:
    resnet = part("resnet")
    block = resnet.PreActBlockV2 if options.pop("second", False) else resnet.PreActBlock
    return resnet.PreActResNet(block, [1, 1, 1, 1], **options)


def dm(**options: Any) -> nn.Module:
    return part("dm_wide_resnet").DMWideResNet(depth=10, width=1, **options)


ONES = {"depths": (1, 1, 1, 1)}
THIN = {"depth": 10, "width": 1}
# What RobustBench builds, and which network of the catalogue with which options it is.
PAIRS = {
    "wide_resnet": (
        lambda: part("wide_resnet").WideResNet(10, widen_factor=1),
        ("trades_wrn", THIN | {"sub_block": False}),
    ),
    "wide_resnet, with the unused block": (
        lambda: part("wide_resnet").WideResNet(10, widen_factor=1, sub_block1=True),
        ("trades_wrn", THIN),
    ),
    "wide_resnet behind its constants": (
        lambda: of_cifar10("Rice2020OverfittingNet")(10, 1),
        ("trades_wrn", THIN | {"sub_block": False, "constants": "cifar10"}),
    ),
    "wide_resnet of 100 classes behind its constants": (
        lambda: of_cifar100("Wu2020AdversarialNet")(10, 1),
        (
            "trades_wrn",
            THIN | {"num_classes": 100, "sub_block": False, "constants": "cifar100-exact"},
        ),
    ),
    "wide_resnet of 100 classes behind rounded constants": (
        lambda: of_cifar100("Chen2020EfficientNet")(10, 1),
        ("trades_wrn", THIN | {"num_classes": 100, "constants": "cifar100-rounded"}),
    ),
    "wide_resnet of pixels in [-1, 1]": (
        lambda: of_cifar10("Hendrycks2019UsingNet")(10, 1),
        ("trades_wrn", THIN | {"sub_block": False, "constants": "half"}),
    ),
    "dm_wide_resnet, Swish": (
        lambda: dm(activation_fn=part("dm_wide_resnet").Swish),
        ("dm_wrn", THIN),
    ),
    "dm_wide_resnet, ReLU": (dm, ("dm_wrn", THIN | {"activations": "ReLU"})),
    "dm_wide_resnet of 100 classes": (
        lambda: dm(
            num_classes=100,
            activation_fn=nn.SiLU,
            mean=part("dm_wide_resnet").CIFAR100_MEAN,
            std=part("dm_wide_resnet").CIFAR100_STD,
        ),
        ("dm_wrn", THIN | {"num_classes": 100}),
    ),
    "dm_wide_resnet of 100 classes, ReLU, constants of 10": (
        lambda: dm(num_classes=100),
        (
            "dm_wrn",
            THIN | {"num_classes": 100, "activations": "ReLU", "constants": "cifar10"},
        ),
    ),
    "robust_wide_resnet": (
        lambda: part("robust_wide_resnet").RobustWideResNet(
            channel_configs=[16, 32, 64, 48], depth_configs=[1, 2, 1]
        ),
        ("preact_resnet", {"depths": (1, 2, 1), "channels": (16, 32, 64, 48)}),
    ),
    "resnet": (
        lambda: part("resnet").ResNet(part("resnet").BasicBlock, [1, 1, 1, 1]),
        ("cifar_resnet18", ONES),
    ),
    "resnet, pre-activation": (preact, ("plain_preact_resnet18", ONES)),
    "resnet, pre-activation behind its constants": (
        lambda: of_cifar10("Wong2020FastNet")(),
        ("plain_preact_resnet18", {"constants": "cifar10"}),
    ),
    "resnet, pre-activation with a last norm": (
        lambda: preact(second=True, bn_before_fc=True),
        ("plain_preact_resnet18", ONES | {"last_norm": True}),
    ),
    "resnet, pre-activation with a last norm, first form": (
        lambda: preact(bn_before_fc=True, out_shortcut=True),
        ("plain_preact_resnet18", ONES | {"last_norm": True}),
    ),
    "resnet, pre-activation with a last norm and skips of the input": (
        lambda: preact(bn_before_fc=True),
        ("plain_preact_resnet18", ONES | {"last_norm": True, "activated_skips": False}),
    ),
    "bit_rn": (
        lambda: part("bit_rn").ResNetV2([1, 1, 1, 1], 1, head_size=10),
        ("bit_resnet", {}),
    ),
}


@pytest.fixture
def on_cpu(monkeypatch):
    """Some of its networks put constants on a GPU when they are made."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor)


def logits(network: nn.Module, size: int = 32) -> torch.Tensor:
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        answer = network(images)
    return answer[0] if isinstance(answer, tuple) else answer


@pytest.mark.parametrize("family", PAIRS)
def test_its_file_loads_into_ours_and_gives_its_logits(family, tmp_path, on_cpu):
    build, (name, options) = PAIRS[family]
    torch.manual_seed(1)
    theirs, ours = scatter(build()), create_model(name, **options).eval()
    file = tmp_path / "checkpoint.pt"
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, file)
    report = load_weights(ours, file)
    assert not report.problems
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("resnet, pre-activation", "resnet, pre-activation with a last norm"),
        ("resnet, pre-activation with a last norm", "resnet, pre-activation"),
        ("resnet, pre-activation", "resnet"),
        ("wide_resnet behind its constants", "wide_resnet"),
        ("wide_resnet", "dm_wide_resnet, ReLU"),
        ("resnet, pre-activation behind its constants", "resnet, pre-activation"),
    ],
)
def test_a_file_of_another_network_is_refused(theirs, ours, tmp_path):
    torch.save(PAIRS[theirs][0]().state_dict(), tmp_path / "w.pt")
    name, options = PAIRS[ours][1]
    if "behind" in theirs and name == "plain_preact_resnet18":
        options = {}
    with pytest.raises(WeightsError, match=r"does not fit|standardises"):
        load_weights(create_model(name, **options), tmp_path / "w.pt")


def test_what_a_file_does_not_tell_is_reported(tmp_path):
    torch.save(dm().state_dict(), tmp_path / "w.pt")
    report = load_weights(create_model("dm_wrn", **THIN), tmp_path / "w.pt")
    activations, constants = report.assumed
    assert activations == "activations SiLU"
    assert constants.startswith("input standardised with mean [0.4914, 0.4822, 0.4465]")


def test_its_mixed_classifier_is_ours(on_cpu, monkeypatch):
    composite, bit, wide = part("comp_model"), part("bit_rn"), part("dm_rn")
    small = lambda **options: bit.ResNetV2([1, 1, 1, 1], 1, **options)  # noqa: E731
    whole = wide.WideResNet
    monkeypatch.setitem(bit.KNOWN_MODELS, "BiT-M-R50x1", small)
    monkeypatch.setattr(
        wide, "WideResNet", lambda **options: whole(**{**options, "depth": 10, "width": 4})
    )
    settings = {
        "std_model_type": "rn50", "rob_model_type": "wrn7016_silu", "in_planes": (256, 64),
        "gamma": 3.0, "use_policy": True, "policy_graph": True, "pn_version": 4,
        "parallel": False, "num_classes": 10,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        theirs: Any = scatter(composite.CompositeModel(settings))
        theirs.set_gamma_scale_bias(gamma_scale=2.0, gamma_bias=1.05)
        theirs.set_alpha_scale_bias(alpha_scale=0.04, alpha_bias=0.96)
        theirs.set_base_model_scale(std_scale=1.2, rob_scale=0.3)
    ours: Any = create_model(
        "adaptive_smoothing",
        accurate={"name": "bit_resnet"},
        robust={"name": "dm_wrn", "depth": 10, "width": 4},
        mixing={"accurate": (256, 256, 384, 512), "robust": (64, 128, 256, 512)},
        constants={
            "gamma": 3.0, "gamma_scale": 2.0, "gamma_bias": 1.05, "alpha_scale": 0.04,
            "alpha_bias": 0.96, "std_scale": 1.2, "rob_scale": 0.3,
        },
    ).eval()  # fmt: skip
    for mine, its in zip(ours.models, theirs.models, strict=True):
        mine.load_state_dict(its.state_dict())
    ours.policy_net.load_state_dict(theirs.policy_net.state_dict())
    ours.bn.load_state_dict(theirs.bn.state_dict())
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-5, atol=1e-5)


def test_its_mixing_network_is_ours():
    theirs = scatter(part("mixing_net").MixingNetV4({"in_planes": (64, 64)}))
    ours = MixingNetwork((64, 128, 256, 512), (64, 128, 256, 512)).eval()
    ours.load_state_dict(theirs.state_dict())
    source = torch.Generator().manual_seed(2)
    accurate, robust = (
        tuple(torch.rand(3, 64 * k, 32 // k, 32 // k, generator=source) for k in (1, 2))
        for _ in range(2)
    )
    with torch.no_grad():
        its = theirs([accurate[0], robust[0]], [accurate[1], robust[1]])
        torch.testing.assert_close(ours(accurate, robust), its, rtol=1e-5, atol=1e-5)


def test_names_are_found_with_what_is_published_of_them():
    carmon = LIBRARY.published("Carmon2019Unlabeled", {})
    assert (carmon.clean, carmon.robust, carmon.data) == (0.8969, 0.5953, "cifar10")
    assert (carmon.norm, carmon.eps) == ("linf", 8 / 255)
    named = {(r.data, r.threat, r.name) for r in LIBRARY.records()}
    assert named == set(LIBRARY.rows())  # each has its numbers
    assert LIBRARY.record("Standard", {"num_classes": 10}).name == "Standard"


def test_lists_are_no_words():
    with pytest.raises(UserError, match=r"arguments\.threat_model: unknown threat_model \["):
        LIBRARY.input("Standard", {"threat_model": ["Linf"]})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Carmon2019", {}, "did you mean 'Carmon2019Unlabeled'"),
        ("Carmon2019Unlabeled", {"num_classes": 100}, "is not there for 100 classes, but for"),
        ("Carmon2019Unlabeled", {"in_channels": 1}, "takes images of 3 channels"),
        ("Wong2020Fast", {"threat_model": "Linf"}, "several networks; say which by arguments"),
        ("Standard", {"dataset": "cifar"}, r"arguments\.dataset: unknown dataset 'cifar'"),
        ("Standard_R50", {"trained": False}, "take torchvision:NAME instead"),
    ],
)
def test_what_is_not_one_network_is_told(name, options, words):
    with pytest.raises(UserError, match=words):
        create_model(f"robustbench:{name}", **options)


def test_constants_that_a_file_lacks_are_the_networks_own(tmp_path):
    options = {"num_classes": 10, "trained": False}
    torch.manual_seed(2)
    first = scatter(create_model("robustbench:Wong2020Fast", **options))
    state = dict(first.state_dict())
    for names in (("mu", "sigma"), ()):
        kept = {name: tensor for name, tensor in state.items() if name not in names}
        torch.save(kept, tmp_path / "w.pt")
        second = create_model("robustbench:Wong2020Fast", **options).eval()
        load_weights(second, tmp_path / "w.pt")
        assert torch.equal(logits(first), logits(second))
    torch.save(state | {"mu": state["mu"] + 0.1}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="standardises"):
        load_weights(create_model("robustbench:Wong2020Fast", **options), tmp_path / "w.pt")


def test_photographs_go_through_the_catalogues_layer(tmp_path):
    name, options = "robustbench:Salman2020Do_R18", {"trained": False}
    ours: Any = create_model(name, **options).eval()
    assert ours.pre_process.standardisation[0] == (0.485, 0.456, 0.406)
    theirs = LIBRARY.record("Salman2020Do_R18", {}).build().eval()
    torch.save({"model": theirs.model.state_dict()}, tmp_path / "w.pt")
    load_weights(ours, tmp_path / "w.pt")
    assert torch.equal(logits(ours, 64), logits(theirs, 64))
    assert declared_input(name).resize == 256
