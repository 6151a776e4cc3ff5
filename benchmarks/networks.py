"""The networks that benchmarks judge: small public ones, with weights beside the repository.

They are those of the tests. Weights and images are in ``../shared/data``, or where
``ROBUSTRAY_SHARED`` says. The functions here also serve as ``--model benchmarks.networks:NAME``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.attacks.networks import CHECKPOINTS, TRAINED, load_images, load_network  # noqa: E402

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
}


def network(name: str) -> nn.Module:
    """Return one of the networks of ``CASES``, in evaluation mode, on the CPU."""
    return load_network(SHARED, name)


def images(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images (N, C, H, W) in [0, 1] for a network, and labels (N,)."""
    x, y = load_images(SHARED, TRAINED[name] if name in TRAINED else CHECKPOINTS[name].data)
    if count > len(y):
        raise SystemExit(f"there are {len(y)} images, not {count}")
    return x[:count].float() / 255, y[:count]


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
