"""What evaluations accept, and what they say about the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustray.attacks.engine.batches import Examples
from robustray.attacks.threat import UNIT_BOX, ThreatModel


def check_examples(
    x: Tensor, y: Tensor, index: Tensor | None, threat: ThreatModel | None = None
) -> Examples:
    """Return images in the pixel box with labels and indices, or say what is wrong.

    Parameters
    ----------
    x : Tensor
        Images (N, C, H, W), or other examples (N, ...) for attacks that do not look at rows and
        columns: float32 or float64 in the box, or uint8 (of 0..255, mapped to it in float32).
    y : Tensor
        Labels (N,), integers.
    index : Tensor, optional
        The examples' official indices (N,), integers; 0..N-1 when not given.
    threat : ThreatModel, optional
        Whose box it is; [0, 1] when not given. Its eps must not be longer than the box.

    Raises
    ------
    ValueError
        For any other shape, type or range.
    """
    if not isinstance(x, Tensor) or x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x is a tensor of images (N, C, H, W), N >= 1, not {_show(x)}")
    x, low, high = x.detach(), *((threat.low, threat.high) if threat else UNIT_BOX)
    if x.dtype == torch.uint8 and math.isfinite(low):
        x = x.float() / 255 * (high - low) + low
    elif x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x is float32 or float64 in [{low:g}, {high:g}], or uint8, not {x.dtype}")
    lowest, highest = x.min().item(), x.max().item()
    if not (lowest >= low and highest <= high):
        raise ValueError(
            f"x ranges over [{lowest:g}, {highest:g}] instead of [{low:g}, {high:g}]; "
            + _suggest_remedy(lowest, highest)
        )
    if threat is not None:
        threat.require_images(x)
    y = _check_integers("y", y, len(x)).to(x.device)
    if index is None:
        index = torch.arange(len(x))
    return Examples(x, y, _check_integers("index", index, len(x)).to(x.device))


def _suggest_remedy(lowest: float, highest: float) -> str:
    """Say what to do about pixels outside their box."""
    if lowest >= 0 and 16 < highest <= 255:
        return "these look like 0..255: give uint8, or divide by 255"
    return "normalisation belongs inside the model"


def check_logits(logits: Tensor, examples: Examples) -> None:
    """Say what is wrong with the logits of the clean images, or with the labels under them.

    Raises
    ------
    ValueError
        For logits that are not (N, K) with K >= 2, NaN logits, or labels outside 0..K-1.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ValueError(f"the model returns logits (N, K) with K >= 2, not {_show(logits)}")
    nan_N = logits.isnan().any(dim=1)
    if bool(nan_N.any()):
        first = int(examples.index_N[nan_N.nonzero()[0, 0]])
        raise ValueError(
            f"the model returns NaN for {int(nan_N.sum())} of {len(examples)} clean images, the "
            f"first of index {first}"
        )
    lowest, highest = int(examples.y_N.min()), int(examples.y_N.max())
    if lowest < 0 or highest >= logits.shape[1]:
        raise ValueError(
            f"y ranges over {lowest}..{highest}, but the model has {logits.shape[1]} classes"
        )


def check_inside(x_adv: Tensor, x: Tensor, threat: ThreatModel, name: str) -> None:
    """Refuse what an attack has found outside the threat model: it would be no adversarial example.

    Raises
    ------
    ValueError
        If a point is too far away, outside the pixel box, or not a number.
    """
    outside_B = ~threat.contains(x_adv, x)
    if bool(outside_B.any()):
        raise ValueError(
            f"attack {name} left the threat model ({threat.norm}, eps={threat.eps:g}) for "
            f"{int(outside_B.sum())} of {len(outside_B)} examples; an attack ends with "
            "threat.project(x_adv, x)"
        )


def _check_integers(name: str, values: Tensor, count: int) -> Tensor:
    integral = isinstance(values, Tensor) and not (
        values.is_floating_point() or values.is_complex() or values.dtype == torch.bool
    )
    if not integral or values.shape != (count,):
        raise ValueError(f"{name} is a tensor of {count} integers, not {_show(values)}")
    return values.detach().to(torch.int64)


def _show(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
