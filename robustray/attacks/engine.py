"""Running attacks on any number of examples in passes of one fixed physical shape.

The last bit of a convolution may depend on the physical batch, and a sign on the last bit. So every
pass has ``compute_shape`` examples, the last ones padded with copies; what remains of the batch is
then of no influence. Matrix products on CPUs treat the rows beyond the last multiple of 8 by other
kernels (seen with oneDNN and MKL), so the shape is a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustray.attacks.gradients import Model, gradient_path, predict_logits
from robustray.attacks.result import AttackResult
from robustray.attacks.suite import AttackSpec
from robustray.attacks.threat import ThreatModel
from robustray.random import ExampleRandom


@dataclass(frozen=True)
class Examples:
    """Images float32 (N, ...) in [0, 1], labels int64 (N,), indices int64 (N,)."""

    x: Tensor
    y_N: Tensor
    index_N: Tensor

    def __len__(self) -> int:
        return len(self.y_N)

    def take(self, rows: Tensor | slice) -> Examples:
        """Return some of them, in the order of ``rows``."""
        return Examples(self.x[rows], self.y_N[rows], self.index_N[rows])

    def to(self, device: torch.device) -> Examples:
        """Return them on a device."""
        return Examples(self.x.to(device), self.y_N.to(device), self.index_N.to(device))

    def padded(self, count: int) -> Examples:
        """Return ``count`` of them, the last one repeated, in the plain memory layout."""
        rows = torch.arange(count, device=self.x.device).clamp(max=len(self) - 1)
        part = self.take(rows)
        return Examples(part.x.clone(memory_format=torch.contiguous_format), part.y_N, part.index_N)


@dataclass(frozen=True)
class Schedule:
    """How examples are cut into passes.

    Parameters
    ----------
    compute_shape : int
        The physical batch of every pass, a multiple of 8.
    batch_size : int
        How many examples are on the device at a time, rounded up to a multiple of that. It
        changes memory and speed and no result.

    Raises
    ------
    ValueError
        For sizes that are not positive, or another compute shape.
    """

    compute_shape: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.compute_shape < 8 or self.compute_shape % 8:
            raise ValueError(f"compute_shape is a multiple of 8, not {self.compute_shape}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is at least 1, not {self.batch_size}")

    def rounds(self, examples: Examples, device: torch.device) -> Iterator[list[Examples]]:
        """Yield what is on the device at a time, as parts of at most ``compute_shape``."""
        size = -(-self.batch_size // self.compute_shape) * self.compute_shape
        for start in range(0, len(examples), size):
            held = examples.take(slice(start, start + size)).to(device)
            yield [
                held.take(slice(at, at + self.compute_shape))
                for at in range(0, len(held), self.compute_shape)
            ]


class Network:
    """A model as attacks see it: on its device, fed in its own floating-point type.

    Images and perturbations stay float32 whatever the model computes in.

    Parameters
    ----------
    model : callable
        A module, or any function of images.
    device : torch.device
        Where the images are, for a model without parameters.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        self.device = tensors[0].device if tensors else device
        self._dtype = dtypes[0] if dtypes else None
        self._model = model
        path = gradient_path(model)
        self.surrogate = self._fed(path) if path is not model else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        return self._model(x if self._dtype is None else x.to(self._dtype))

    def _fed(self, function: Model) -> Model:
        return lambda x: function(x if self._dtype is None else x.to(self._dtype))


def default_compute_shape(device: torch.device) -> int:
    """Return 64 on CPUs, where larger passes gain nothing, and 128 elsewhere."""
    return 64 if device.type == "cpu" else 128


def clean_logits(network: Network, examples: Examples, schedule: Schedule) -> Tensor:
    """Return the logits (N, K) of the images themselves, where the images are."""
    outputs = []
    for parts in schedule.rounds(examples, network.device):
        for part in parts:
            logits = predict_logits(network, part.padded(schedule.compute_shape).x)
            outputs.append(logits[: len(part)])
    return torch.cat(outputs).to(examples.x.device)


def run_attack(
    network: Network,
    examples: Examples,
    threat: ThreatModel,
    spec: AttackSpec,
    schedule: Schedule,
    *,
    seed: int,
) -> AttackResult:
    """Run one attack of a suite on all given examples.

    Each example's result depends on the model, the example and its index, the threat model,
    the attack with its name and budget, the seed and the compute shape; not on the others.

    Returns
    -------
    AttackResult
        In the order of the examples, on their device.
    """
    rng = ExampleRandom(seed, spec.name)
    results = []
    for parts in schedule.rounds(examples, network.device):
        done = [_attack_part(network, part, threat, spec, schedule, rng) for part in parts]
        results.append(_joined(done, examples.x.device))
    return _joined(results, examples.x.device)


def _attack_part(
    network: Network,
    part: Examples,
    threat: ThreatModel,
    spec: AttackSpec,
    schedule: Schedule,
    rng: ExampleRandom,
) -> AttackResult:
    full = part.padded(schedule.compute_shape)
    options = dict(spec.options)
    found = spec.function(network, full.x, full.y_N, threat, rng=rng, index=full.index_N, **options)
    kept = slice(len(part))
    return AttackResult(
        found.x_adv[kept], found.success_B[kept], found.forwards_B[kept], found.backwards_B[kept]
    )


def _joined(results: list[AttackResult], device: torch.device) -> AttackResult:
    return AttackResult(
        torch.cat([r.x_adv for r in results]).to(device),
        torch.cat([r.success_B for r in results]).to(device),
        torch.cat([r.forwards_B for r in results]).to(device),
        torch.cat([r.backwards_B for r in results]).to(device),
    )
