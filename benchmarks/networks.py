"""The networks that benchmarks judge: small public ones, with weights beside the repository.

They are those of the tests. Weights and images are in ``../shared/data``, or where
``ROBUSTRAY_SHARED`` says. The functions here also serve as ``--model benchmarks.networks:NAME``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from robustray.models import create_model  # noqa: E402
from tests.helpers.public_networks import CHECKPOINTS, TRAINED, load_images, load_network  # noqa: E402

SHARED = Path(os.environ.get("ROBUSTRAY_SHARED", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Case:
    """A network under a threat model, and how it fares there."""

    network: str
    eps: float
    kind: str


CASES = {
    "resnet4b-2": Case("resnet_4b", 2 / 255, "robust"),
    "trades-mnist": Case("trades_mnist", 0.3, "robust"),
    "resnet4b-8": Case("resnet_4b", 8 / 255, "weak"),
    "cnn-a-adv4": Case("cnn_a_adv4", 8 / 255, "weak"),
    "natural": Case("natural", 8 / 255, "natural"),
    "digits-conv": Case("digits_conv", 8 / 255, "natural"),
    "digits-mlp": Case("digits_mlp", 8 / 255, "natural"),
    "random-wrn": Case("random_wrn_28_10", 0.0, "random"),
    "random-small": Case("random_small", 0.0, "random"),
}
# Without any file: random weights, random images, and the network's own answers as labels.
RANDOM: dict[str, tuple[str, dict[str, Any]]] = {
    "random_wrn_28_10": ("wrn_28_10", {}),
    "random_small": ("preact_resnet", {"depths": (1, 1, 1), "widths": (0.25, 0.25, 0.25)}),
}


def network(name: str) -> nn.Module:
    """Return one of the networks of ``CASES``, in evaluation mode, on the CPU."""
    return _random_network(name) if name in RANDOM else load_network(SHARED, name)


def images(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images (N, C, H, W) in [0, 1] for a network, and labels (N,)."""
    if name in RANDOM:
        x = _random_images(count)
        with torch.no_grad():
            return x, network(name)(x).argmax(1)
    x, y = load_images(SHARED, TRAINED[name] if name in TRAINED else CHECKPOINTS[name].data)
    if count > len(y):
        raise SystemExit(f"there are {len(y)} images, not {count}")
    return x[:count].float() / 255, y[:count]


def _random_images(count: int) -> Tensor:
    """Return smooth images: noise of 4 x 4 pixels, enlarged."""
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=32, mode="bicubic").clamp(0, 1)


def _random_network(name: str) -> nn.Module:
    """Return a network whose running statistics are those of random images."""
    model_name, options = RANDOM[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(model_name, **options)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over what follows
    with torch.no_grad():
        model.train()(_random_images(32))
    return model.eval()


def cnn_a_adv4() -> nn.Module:
    """Return CNN-A-Adv4 with its weights."""
    return network("cnn_a_adv4")


def describe_machine(device: str, threads: int) -> str:
    """Return processor or GPU, threads and versions, in one line."""
    if "cuda" in device:
        name = torch.cuda.get_device_name()
    else:
        models = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        capability = torch.backends.cpu.get_cpu_capability()
        name = f"{models[0] if models else 'CPU'} ({capability}, {os.cpu_count()} cores)"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{name}, {threads} thread(s), torch {torch.__version__}, Python {python}"
