"""Which optional libraries of networks are here, and networks with numbers worth comparing."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
needs_robustbench = pytest.mark.skipif(
    None in map(find_spec, ("robustbench", "timm", "geotorch", "torchdiffeq")),
    reason="needs robustbench",
)
needs_hub = pytest.mark.skipif(
    None in map(find_spec, ("transformers", "huggingface_hub", "timm")),
    reason="needs transformers",
)


def torchvision_works() -> bool:
    try:
        import torchvision.models  # noqa: F401
    except (ImportError, RuntimeError):  # not of this torch
        return False
    return True


def scatter(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give statistics and factors of norms values of their own, so that all of them count."""
    source = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=source))
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=source))
    return network.eval()
