"""Names and constants that others give to the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from robustray.models import LoadReport, WeightsError, create_model, load_weights
from robustray.models.weights.layouts import our_name

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


class OtherBlock(nn.Module):
    """A pre-activation block as RobustWRN and RobustBench name and compute it."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(in_channels), nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.convShortcut = None
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x):
        a = self.relu1(self.bn1(x))
        inner = self.conv2(self.relu2(self.bn2(self.conv1(a))))
        return inner + (x if self.convShortcut is None else self.convShortcut(a))


class OtherStage(nn.Module):
    def __init__(self, in_channels: int, channels: int, depth: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *(
                OtherBlock(channels if i else in_channels, channels, 1 if i else stride)
                for i in range(depth)
            )
        )


class OtherNet(nn.Module):
    """WRN-34-R's shape, small: the last stage is narrower than the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        stages = OtherStage(16, 20, 2, 1), OtherStage(20, 24, 2, 2), OtherStage(24, 8, 2, 2)
        self.blocks = nn.ModuleList(stages)
        self.bn1, self.relu, self.fc = nn.BatchNorm2d(8), nn.ReLU(), nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem_conv(x)
        stage: Any
        for stage in self.blocks:
            x = stage.layer(x)
        return self.fc(self.relu(self.bn1(x)).mean((2, 3)))


def ours(**options) -> nn.Module:
    given = {"depths": (2, 2, 2), "channels": (16, 20, 24, 8), **options}
    return create_model("preact_resnet", **given).eval()


def theirs() -> nn.Module:
    torch.manual_seed(7)
    model = OtherNet().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "conv" not in name.lower():
                tensor.uniform_(0.2, 1.2)
    return model


@pytest.mark.parametrize("member", [None, "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_robust_wrn_loads_and_computes_the_same(tmp_path, member, prefix):
    source, target = theirs(), ours()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    torch.save(state if member is None else {member: state, "epoch": 9}, tmp_path / "w.pth")
    report = load_weights(target, tmp_path / "w.pth")
    assert report.renamed[f"{prefix}bn1.running_var"] == "norm1.running_var"
    shortcut = "blocks.2.layer.0.{}.weight"
    old = prefix + shortcut.format("convShortcut")
    assert report.renamed[old] == shortcut.format("shortcut.0")
    assert len(report.matched) == len(target.state_dict())
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(target(x), source(x))


def with_constants(tmp_path, model: nn.Module, mean=MEAN, std=STD, prefix=""):
    state = {prefix + key: value for key, value in model.state_dict().items()}
    state[prefix + "mu"] = torch.tensor(mean).view(-1, 1, 1)
    state[prefix + "sigma"] = torch.tensor(std).view(-1, 1, 1)
    torch.save(state, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_robustbench_constants_are_compared_with_the_networks_own(tmp_path, prefix):
    source = ours(pre_process=True, activations="SiLU")
    path = with_constants(tmp_path, source, prefix=prefix)
    target = ours(pre_process=True, activations="SiLU")
    report = load_weights(target, path)
    assert report.constants == ("mu", "sigma")
    assert report.unexpected == ()
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(source(x), target(x))


def test_constants_that_say_nothing_fit_a_network_without_any(tmp_path):
    source, target = ours(), ours()
    path = with_constants(tmp_path, source, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert load_weights(target, path).constants == ("mu", "sigma")


@pytest.mark.parametrize(
    ("pre_process", "mean", "std"),
    [(False, MEAN, STD), (True, (0.5, 0.5, 0.5), STD), (True, MEAN, (0.2, 0.2, 0.2))],
)
def test_weights_for_other_constants_are_refused(tmp_path, pre_process, mean, std):
    target = ours(pre_process=pre_process)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    path = with_constants(tmp_path, ours(), mean, std)
    with pytest.raises(WeightsError, match=r"standardises the input with .* pre_process=true"):
        load_weights(target, path)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_half_of_the_constants_is_refused(tmp_path):
    state = {**ours().state_dict(), "mu": torch.zeros(3)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="standardises"):
        load_weights(ours(), tmp_path / "w.pth")


def test_own_names_are_never_changed():
    assert our_name("bn1.weight", {"bn1.weight"}) == "bn1.weight"
    assert our_name("module.bn1.weight", {"bn1.weight"}) == "bn1.weight"
    assert our_name("module.bn1.weight", {"module.bn1.weight"}) == "module.bn1.weight"
    assert our_name("blocks.0.bn1.weight", {"norm1.weight"}) == "blocks.0.bn1.weight"
    assert our_name("module.bn1.weight", set()) == "norm1.weight"
    assert our_name("a.convShortcut.weight", set()) == "a.shortcut.0.weight"


def norm(value: float = 1.0) -> nn.Module:
    model = nn.BatchNorm2d(3)
    nn.init.constant_(model.weight, value)
    return model


def named(prefix: str, value: float = 1.0) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in norm(value).state_dict().items()}


def load(tmp_path, content, format="auto", **options) -> tuple[Any, LoadReport]:
    torch.save(content, tmp_path / "w.pt", **options)
    model = norm(5.0)
    report = load_weights(model, tmp_path / "w.pt", format)
    return model, report


PLACES = {
    "net": ({"net": named("", 2), "acc": 94.2}, "net"),
    "a wrapper of no known name": ({"weights": named("learner.inner.", 2)}, "weights"),
    "deep": ({"a": {"b": [{"c": named("module._orig_mod.", 2)}]}}, "a.b.0.c"),
    "a list": ([named("", 2)], "0"),
    "beside numbers": ({**named("", 2), "epoch": 3, "lr": 0.1}, "bare"),
    "beside counters": ({**named("module.", 2), "n_averaged": torch.tensor(5)}, "bare"),
    "beside an optimizer": (
        {"net": named("", 2), "optimizer": {"momentum": named("", 3)}}, "net"),
    "the same twice": ({"ema": named("", 2), "last": named("module.", 2)}, "ema"),
    "arrays": ({"net": {k: v.numpy() for k, v in named("", 2).items()}}, "net"),
    "a parameter": ({"net": {k: nn.Parameter(v) if v.is_floating_point() else v
                             for k, v in named("", 2).items()}}, "net"),
    "an averaged counter": (
        {**named("", 2), "num_batches_tracked": torch.tensor([7.5])}, "bare"),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_found_by_the_networks_names(tmp_path, case, legacy):
    content, place = PLACES[case]
    model, report = load(tmp_path, content, _use_new_zipfile_serialization=not legacy)
    assert model.weight.tolist() == [2, 2, 2]
    assert report.format == place


def test_several_that_fit_and_differ_are_refused_until_one_is_named(tmp_path):
    content = {"state_dict": named("", 2), "state_dict_ema": named("module.", 3)}
    with pytest.raises(WeightsError, match=r"different values .*: state_dict, state_dict_ema;"):
        load(tmp_path, content)
    assert load(tmp_path, content, "state_dict_ema")[0].weight[0] == 3
    content = {"model": {**named("teacher.", 2), **named("student.", 3)}}
    with pytest.raises(WeightsError, match=r"different values .*model.student, model.teacher;"):
        load(tmp_path, content)
    assert load(tmp_path, content, "model.student")[0].weight[0] == 3
    nets = {"nets": [named("", 2), named("", 3)]}
    assert load(tmp_path, nets, "nets.1")[0].weight[0] == 3
    with pytest.raises(ValueError, match=r"unknown format .*nets.0, nets.1|nets.1, nets.0"):
        load(tmp_path, nets, "nets.2")


def test_what_stands_beside_the_network_is_ignored_only_by_hand(tmp_path):
    content = {"state_dict": {**named("model.", 2), "temperature": torch.tensor(3.0)}}
    with pytest.raises(WeightsError, match=r"unexpected: temperature\n.*format state_dict.model"):
        load(tmp_path, content)
    model, report = load(tmp_path, content, "state_dict.model")
    assert model.weight[0] == 2
    assert report.ignored == ("temperature",)


@pytest.mark.parametrize("names", [("0.mean", "0.std"), ("normalize.mu", "normalize.sigma")])
def test_constants_of_a_layer_before_the_network_are_compared(tmp_path, names):
    whole = {**named("1.", 2), names[0]: torch.zeros(3), names[1]: torch.ones(3)}
    assert len(load(tmp_path, whole)[1].constants) == 2
    with pytest.raises(WeightsError, match="standardises the input"):
        load(tmp_path, whole | {names[0]: torch.full((3,), 0.5)})


@pytest.mark.parametrize("name", ["optimal", "optimised_net", "best.optimum", "reschedule"])
def test_names_that_only_resemble_an_optimizer_hold_weights(tmp_path, name):
    assert load(tmp_path, {name: named("", 2)})[0].weight[0] == 2


@pytest.mark.parametrize("name", ["optimizer", "lr_scheduler", "g_optimiser_state", "sched"])
def test_states_of_optimizers_are_read_by_name_only(tmp_path, name):
    with pytest.raises(WeightsError):
        load(tmp_path, {name: named("", 2)})


def test_a_file_without_weights_is_told_with_what_it_holds(tmp_path):
    content = {"epoch": 3, "note": "none", "history": [1.0], "optimizer": named("")}
    with pytest.raises(WeightsError, match=r"epoch \(int\), note \(str\), history \(list of 1\)"):
        load(tmp_path, content)


def test_counters_carry_nothing(tmp_path):
    state = named("", 2)
    del state["num_batches_tracked"]
    model, report = load(tmp_path, state)
    assert report.filled == ("num_batches_tracked",)
    assert model.num_batches_tracked == 0
    frozen = nn.BatchNorm2d(3, track_running_stats=False)
    extra = {"weight": torch.ones(3), "bias": torch.ones(3), "num_batches_tracked": torch.ones(1)}
    torch.save(extra, tmp_path / "w.pt")
    assert load_weights(frozen, tmp_path / "w.pt").ignored == ("num_batches_tracked",)


def test_nan_is_the_same_as_nan(tmp_path):
    """A diverged network loads, so that it can be judged and named."""
    model, _ = load(tmp_path, {"ema": named("", float("nan")), "last": named("", float("nan"))})
    assert model.weight.isnan().all()


def test_a_file_that_contains_itself_comes_to_an_end(tmp_path):
    content: dict = {"net": named("", 2)}
    content["self"] = [content, content]
    assert load(tmp_path, content)[0].weight[0] == 2
