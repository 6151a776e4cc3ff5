"""Every file that the gradient direction study publishes is read into our networks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustray.alignment import ConditionalCritic, ConditionalGenerator
from robustray.alignment.networks import SphereGenerator, UNetGenerator
from robustray.models import WeightsError, create_model, load_weights

Shapes = dict[str, tuple[int, ...]]
SHARED = Path(__file__).parents[3] / "shared/specs/gradient_direction_state_dicts.json"


def norm(name: str, channels: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    found: Shapes = {f"{name}.{leaf}": (channels,) for leaf in leaves}
    return {**found, f"{name}.num_batches_tracked": ()}


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def mlp(inputs: int, outputs: int, start: str = "") -> Shapes:
    return {
        **layer(f"{start}0", 1000, inputs), **norm(f"{start}2", 1000),
        **layer(f"{start}3", 1000, 1000), **norm(f"{start}5", 1000),
        **layer(f"{start}6", outputs, 1000),
    }  # fmt: skip


def resnet18(classes: int, stem: int = 7) -> Shapes:
    found: Shapes = {"conv1.weight": (64, 3, stem, stem), **norm("bn1", 64)}
    channels = 64
    for stage, planes in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            inputs, at = (planes if block else channels), f"layer{stage}.{block}"
            found[f"{at}.conv1.weight"] = (planes, inputs, 3, 3)
            found |= norm(f"{at}.bn1", planes)
            found[f"{at}.conv2.weight"] = (planes, planes, 3, 3)
            found |= norm(f"{at}.bn2", planes)
            if inputs != planes:
                found[f"{at}.downsample.0.weight"] = (planes, inputs, 1, 1)
                found |= norm(f"{at}.downsample.1", planes)
        channels = planes
    found |= layer("fc", classes, 512)
    return {f"original_model.{name}": shape for name, shape in found.items()}


def unet(levels: int) -> Shapes:
    def block(name: str, inputs: int, outputs: int) -> Shapes:
        return {**layer(f"{name}.0", outputs, inputs, 3, 3), **norm(f"{name}.1", outputs)}

    found = block("down.0.0", 1, 64) | block("down.0.1", 64, 64)
    for level in range(1, levels + 1):
        size = 64 * 2**level
        found |= block(f"down.{level}.1", size // 2, size) | block(f"down.{level}.2", size, size)
    for level in range(levels):
        size = 64 * 2**level
        below = 2 * size + (3 if level == levels - 1 else 0)
        found |= layer(f"up.{level}.up.0.1", size, below, 3, 3) | norm(f"up.{level}.up.1", size)
        found |= block(f"up.{level}.conv.0", 2 * size, size)
        found |= block(f"up.{level}.conv.1", size, size if level else 1)
    return found


def spectral(name: str, *shape: int) -> Shapes:
    return {**layer(name, *shape), f"{name}.u0": (1, shape[0]), f"{name}.sv0": (1,)}


def cgan_generator(classes: int, channels: int) -> Shapes:
    found = spectral("linear", 4096, 128)
    for at in (f"blocks.{number}.0" for number in range(3)):
        found |= spectral(f"{at}.conv1", 256, 256, 3, 3) | spectral(f"{at}.conv2", 256, 256, 3, 3)
        found |= spectral(f"{at}.conv_sc", 256, 256, 1, 1)
        for bn in ("bn1", "bn2"):
            found |= {f"{at}.{bn}.stored_mean": (256,), f"{at}.{bn}.stored_var": (256,)}
            found |= {f"{at}.{bn}.{table}.weight": (classes, 256) for table in ("gain", "bias")}
    leaves = ("gain", "bias", "stored_mean", "stored_var")
    found |= {f"output_layer.0.{leaf}": (256,) for leaf in leaves}
    return found | spectral("output_layer.2", channels, 256, 3, 3)


def cgan_discriminator(classes: int, channels: int) -> Shapes:
    found: Shapes = {}
    for number in range(4):
        inputs, at = (256 if number else channels), f"blocks.{number}.0"
        found |= spectral(f"{at}.conv1", 256, inputs, 3, 3)
        found |= spectral(f"{at}.conv2", 256, 256, 3, 3)
        if number < 2:
            found |= spectral(f"{at}.conv_sc", 256, inputs, 1, 1)
    return found | spectral("linear", classes + 1, 256)


def classifier(**options: Any) -> Callable[[], nn.Module]:
    return lambda: create_model("gd_resnet18", **options)


# The folders that README and commands name: what a file holds, and the network that it is for.
Layout = tuple[Shapes, Callable[[], nn.Module]]
BINARY: Layout = resnet18(1), classifier(num_classes=1, in_channels=1, normalisation="direct")
CLASSIFIERS: dict[str, Layout] = {
    "spheres": (mlp(500, 1), lambda: create_model("gd_spheres_mlp")),
    "square": BINARY,
    "mnist35": BINARY,
    "mnist": (resnet18(10), classifier(in_channels=1)),
    "cifar10": (resnet18(10, stem=3), classifier(small_images=True)),
}
GENERATORS: dict[str, Layout] = {
    "spheres/generator": (mlp(502, 500, "model."), SphereGenerator),
    "square/generator": (unet(4), lambda: UNetGenerator(4)),
    "mnist35/generator": (unet(2), lambda: UNetGenerator(2)),
    "mnist35/generator_reference": (unet(2), lambda: UNetGenerator(2)),
    "square32/generator": (cgan_generator(2, 1), lambda: ConditionalGenerator(2, 1)),
    "mnist/generator": (cgan_generator(10, 1), lambda: ConditionalGenerator(10, 1)),
    "mnist/generator_reference": (cgan_generator(10, 1), lambda: ConditionalGenerator(10, 1)),
    "cifar10/generator": (cgan_generator(10, 3), lambda: ConditionalGenerator(10, 3)),
    "cifar10/generator_reference": (cgan_generator(10, 3), lambda: ConditionalGenerator(10, 3)),
}
CRITICS: dict[str, Layout] = {
    "square32/critic": (cgan_discriminator(2, 1), lambda: ConditionalCritic(2, 1)),
    "mnist/critic": (cgan_discriminator(10, 1), lambda: ConditionalCritic(10, 1)),
    "cifar10/critic": (cgan_discriminator(10, 3), lambda: ConditionalCritic(10, 3)),
}
FILES: dict[str, Layout] = {
    **{f"{data}/{method}": layout for data, layout in CLASSIFIERS.items()
       for method in ("baseline", "cosine", "pgd")},
    **GENERATORS, **CRITICS,
}  # fmt: skip
IN_JSON = {
    "direct_classifier_spheres": "spheres/pgd",
    "indirect_classifier_mnist": "mnist/pgd",
    "direct_generator_spheres": "spheres/generator",
    "direct_generator_unet_down2": "mnist35/generator",
    "cgan_generator_mnist": "mnist/generator",
    "cgan_discriminator_mnist": "mnist/critic",
}


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Return different numbers for every tensor; variances are positive."""
    made = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if not shape:
            state[name] = torch.tensor(len(state) + 1)
            continue
        tensor = torch.randn(shape, generator=made) * 0.1
        state[name] = tensor.abs() + 0.5 if name.endswith(("running_var", "stored_var")) else tensor
    return state


# What the published networks compute, from the names in their files.


def bn(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])


def conv(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)


def run_mlp(state: dict[str, Tensor], x: Tensor, start: str = "") -> Tensor:
    for linear, after in (("0", "2"), ("3", "5")):
        x = F.linear(x, state[f"{start}{linear}.weight"], state[f"{start}{linear}.bias"])
        x = bn(state, f"{start}{after}", x.relu())
    return F.linear(x, state[f"{start}6.weight"], state[f"{start}6.bias"])


def run_resnet(state: dict[str, Tensor], x: Tensor) -> Tensor:
    at = "original_model."
    small = state[f"{at}conv1.weight"].shape[-1] == 3
    x = bn(state, f"{at}bn1", conv(state, f"{at}conv1", x, 1 if small else 2)).relu()
    x = x if small else F.max_pool2d(x, 3, 2, 1)
    for stage, block in itertools.product((1, 2, 3, 4), (0, 1)):
        here, stride = f"{at}layer{stage}.{block}.", 2 if stage > 1 and not block else 1
        inner = bn(state, f"{here}bn1", conv(state, f"{here}conv1", x, stride)).relu()
        inner = bn(state, f"{here}bn2", conv(state, f"{here}conv2", inner))
        if f"{here}downsample.0.weight" in state:
            x = bn(state, f"{here}downsample.1", conv(state, f"{here}downsample.0", x, stride))
        x = (x + inner).relu()
    return F.linear(x.mean((2, 3)), state[f"{at}fc.weight"], state[f"{at}fc.bias"])


def run_unet(state: dict[str, Tensor], x: Tensor, desired: Tensor, true: Tensor) -> Tensor:
    def block(name: str, x: Tensor) -> Tensor:
        return bn(state, f"{name}.1", conv(state, f"{name}.0", x))

    levels = max(int(name.split(".")[1]) for name in state if name.startswith("down"))
    skips = [block("down.0.1", block("down.0.0", x).relu()).relu()]
    for level in range(1, levels + 1):
        x = block(f"down.{level}.1", F.max_pool2d(skips[-1], 2)).relu()
        skips.append(block(f"down.{level}.2", x).relu())
    x = skips.pop()
    wanted, real = ((y.float() - 0.7) / 0.2 for y in (desired, true))
    planes = torch.stack([wanted, real, real - wanted], 1)[:, :, None, None]
    x = torch.cat([x, planes.expand(-1, -1, *x.shape[2:])], 1)
    for level in reversed(range(levels)):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = bn(state, f"up.{level}.up.1", conv(state, f"up.{level}.up.0.1", x)).relu()
        x = block(f"up.{level}.conv.0", torch.cat([x, skips.pop()], 1)).relu()
        x = block(f"up.{level}.conv.1", x)
        x = x.relu() if level else x
    return x


def flattened(state: dict[str, Tensor], name: str) -> Tensor:
    """Return a weight divided by its norm, as one power iteration from u0 measures it."""
    weight, u = state[f"{name}.weight"], state[f"{name}.u0"]
    matrix = weight.reshape(len(weight), -1)
    v = F.normalize(u @ matrix, eps=1e-8)
    u = F.normalize(v @ matrix.T, eps=1e-8)
    return weight / (v @ matrix.T @ u.T).squeeze()


def sn_conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = flattened(state, name)
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def run_cgan_generator(state: dict[str, Tensor], z: Tensor, y: Tensor) -> Tensor:
    def stored(name: str, x: Tensor) -> Tensor:
        return F.batch_norm(x, state[f"{name}.stored_mean"], state[f"{name}.stored_var"])

    def by_class(name: str, x: Tensor) -> Tensor:
        gain = 1 + state[f"{name}.gain.weight"][y][:, :, None, None]
        return stored(name, x) * gain + state[f"{name}.bias.weight"][y][:, :, None, None]

    x = F.linear(z, flattened(state, "linear"), state["linear.bias"]).view(-1, 256, 4, 4)
    for at in ("blocks.0.0.", "blocks.1.0.", "blocks.2.0."):
        inner = F.interpolate(by_class(f"{at}bn1", x).relu(), scale_factor=2)
        inner = by_class(f"{at}bn2", sn_conv(state, f"{at}conv1", inner)).relu()
        skip = sn_conv(state, f"{at}conv_sc", F.interpolate(x, scale_factor=2))
        x = sn_conv(state, f"{at}conv2", inner) + skip
    gain, bias = (state[f"output_layer.0.{n}"][:, None, None] for n in ("gain", "bias"))
    x = (stored("output_layer.0", x) * gain + bias).relu()
    return sn_conv(state, "output_layer.2", x).tanh()


def run_cgan_discriminator(state: dict[str, Tensor], x: Tensor) -> Tensor:
    for number in range(4):
        at = f"blocks.{number}.0."
        inner = sn_conv(state, f"{at}conv1", x.relu() if number else x)
        inner = sn_conv(state, f"{at}conv2", inner.relu())
        if number == 0:
            skip = sn_conv(state, f"{at}conv_sc", F.avg_pool2d(x, 2))
        else:
            skip = F.avg_pool2d(sn_conv(state, f"{at}conv_sc", x), 2) if number == 1 else x
        x = (F.avg_pool2d(inner, 2) if number < 2 else inner) + skip
    return F.linear(x.relu().sum((2, 3)), flattened(state, "linear"), state["linear.bias"])


MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
LABELS = torch.tensor([1, 0]), torch.tensor([0, 1])


def expected(name: str, state: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return inputs for a file's network, and what the published one makes of them."""
    made = torch.Generator().manual_seed(1)
    data, kind = name.split("/")
    channels = 3 if data == "cifar10" else 1
    if data == "spheres":
        x = torch.randn(2, 500, generator=made)
        if kind != "generator":
            return (x,), run_mlp(state, x)
        joined = torch.cat([x, torch.stack(LABELS, 1).float()], 1)
        return (x, *LABELS), run_mlp(state, joined, "model.")
    if kind == "critic":
        x = torch.rand(2, channels, 32, 32, generator=made) * 2 - 1
        return (x,), run_cgan_discriminator(state, x)
    if kind.startswith("generator") and data in ("square", "mnist35"):
        x = torch.rand(2, 1, 32, 32, generator=made) * 2 - 1
        return (x, *LABELS), run_unet(state, x, *LABELS)
    if kind.startswith("generator"):
        z = torch.randn(2, 128, generator=made)
        return (z, LABELS[0]), run_cgan_generator(state, z, LABELS[0])
    x = torch.rand(2, channels, 32, 32, generator=made) * 2 - 1
    direct = data in ("square", "mnist35")
    seen = ((x if direct else x / 2 + 0.5).expand(-1, 3, -1, -1) - MEAN) / STD
    return (x,), run_resnet(state, seen)


@pytest.mark.parametrize("name", FILES)
def test_every_tensor_of_every_published_file_arrives(name, tmp_path):
    shapes, build = FILES[name]
    state, model = drawn(shapes), build()
    torch.save(state, tmp_path / "published")
    report = load_weights(model, tmp_path / "published")
    assert report.problems == 0
    loaded = model.state_dict()
    assert set(report.ignored) == {name for name in state if name.endswith(".sv0")}
    arrived = {new: old for old, new in report.renamed.items()}
    sources = {new: arrived.get(new, new) for new in report.matched}
    assert set(sources.values()) == set(state) - set(report.ignored)
    for new, old in sources.items():
        assert torch.equal(loaded[new], state[old]), (new, old)
    assert set(report.filled) == set(loaded) - set(sources)
    with torch.no_grad():
        inputs, output = expected(name, state)
        torch.testing.assert_close(model.eval()(*inputs), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["module.", "state_dict.", "state_dict.module."])
def test_a_published_unet_may_lie_deeper(prefix, tmp_path):
    shapes, build = FILES["mnist35/generator"]
    state, model = drawn(shapes), build()
    inner = {prefix.removeprefix("state_dict.") + name: tensor for name, tensor in state.items()}
    torch.save({"state_dict": inner} if "state_dict" in prefix else inner, tmp_path / "published")
    load_weights(model, tmp_path / "published")
    assert torch.equal(model.state_dict()["up.0.0.weight"], state["up.1.up.0.1.weight"])
    assert torch.equal(model.state_dict()["down.1.1.0.bias"], state["down.1.2.0.bias"])


def test_our_own_files_of_these_networks_are_read_as_they_are(tmp_path):
    for name in ("mnist35/generator", "mnist/generator", "mnist/critic", "spheres/generator"):
        model, other = FILES[name][1](), FILES[name][1]()
        torch.save(model.state_dict(), tmp_path / "ours")
        report = load_weights(other, tmp_path / "ours")
        assert (report.renamed, report.ignored) == ({}, ())
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[key])


@pytest.mark.parametrize("name", ["mnist35/generator", "mnist/generator", "spheres/generator"])
def test_a_published_file_that_lacks_or_adds_a_tensor_is_refused(name, tmp_path):
    shapes, build = FILES[name]
    state, first = drawn(shapes), next(iter(shapes))
    for wrong in (state | {"more": torch.zeros(3)}, {k: v for k, v in state.items() if k != first}):
        torch.save(wrong, tmp_path / "published")
        with pytest.raises(WeightsError, match=r"missing|unexpected"):
            load_weights(build(), tmp_path / "published")


def test_a_unet_of_another_depth_is_refused(tmp_path):
    torch.save(drawn(FILES["mnist35/generator"][0]), tmp_path / "published")
    with pytest.raises(WeightsError, match="does not fit"):
        load_weights(UNetGenerator(3), tmp_path / "published")


@pytest.mark.skipif(not SHARED.exists(), reason="the published names are not here")
@pytest.mark.parametrize("name", IN_JSON)
def test_the_scheme_is_that_of_the_published_names(name):
    published = json.loads(SHARED.read_text())[name]
    assert {k: tuple(v) for k, v in published.items()} == FILES[IN_JSON[name]][0]
