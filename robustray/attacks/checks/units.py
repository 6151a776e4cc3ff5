"""Whether a network gets its input in the units, and of the kind, that it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robustray.attacks.engine import clean_logits
from robustray.attacks.engine.batches import Examples, Schedule
from robustray.attacks.engine.network import Model, Network, is_correct
from robustray.attacks.result import Finding, graded

SURE = 0.005  # one-sided: what lies beyond one end of a 99 % interval
VERY_SURE = 0.001


def at_least(count: int, total: int, share: float) -> float:
    """Return the probability of ``count`` or more successes in ``total`` independent trials.

    Parameters
    ----------
    count, total : int
        0 <= count <= total.
    share : float
        The probability of one success, in [0, 1].
    """
    if count <= 0:
        return 1.0
    from scipy.special import betainc  # workers never ask, and it takes them half a second

    return float(betainc(count, total - count + 1, share))


def at_most(count: int, total: int, share: float) -> float:
    """Return the probability of ``count`` or fewer successes; see `at_least`."""
    return 1.0 if count >= total else 1.0 - at_least(count + 1, total, share)


FEW = 8  # images whose statistics say nothing of a data set

# Up to this much is common: standard deviations that a mean is off (low contrast, other images),
# and the factor by which a spread is smaller than expected. Some networks want it larger: 255 x.
_SHIFTED, _SMALLER = 1.5, 20.0
_CENTRED = 0.05  # a mean above is one of pixels, and not of what was standardised
_RECOVERED = 0.25  # of the errors

_TWICE = 2.0


@dataclass(frozen=True, eq=False)
class Seen:
    """What came to a module that standardises, and its constants: each (C,) or (1,)."""

    mean_C: Tensor
    std_C: Tensor
    lowest: float
    mean: Tensor
    std: Tensor


def check_network(
    model: Model,
    network: Network,
    examples: Examples,
    logits: Tensor,
    schedule: Schedule,
    *,
    units: bool = True,
) -> list[Finding]:
    """Look for a normalisation that was forgotten, made twice, or made for other images.

    Parameters
    ----------
    model : callable
        In evaluation mode (`robustray.attacks.engine.context.judging`).
    network : Network
        The same, on its device.
    examples : Examples
        A few images (N, C, H, W) in [0, 1].
    logits : Tensor
        What the network says of them: (N, K).
    schedule : Schedule
        Of the passes: at most seven, of one compute shape each.
    units : bool
        Whether to ask in other units: six of the passes.

    Returns
    -------
    list of Finding
        "constants" (the network's own mean and standard deviation against those of its input) and
        "normalisation" (whether it is right more often in other units).
    """
    devices = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        found = [_try("constants", lambda: _check_constants(model, network, examples, schedule))]
        if units:
            found.append(
                _try("normalisation", lambda: _check_units(network, examples, logits, schedule))
            )
        return found


def _try(name: str, check: Callable[[], Finding]) -> Finding:
    """Make a check; where a user's network refuses such input, say so."""
    try:
        return check()
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        return Finding(name, "info", 0.0, 0.0, f"not checked: {type(error).__name__}: {error}")


def _check_constants(
    model: Model, network: Network, examples: Examples, schedule: Schedule
) -> Finding:
    """Compare every ``mean`` and ``std`` of the model with the images that come to them."""
    seen = _watch_inputs(model, network, examples, schedule)
    if not seen:
        fine = "no mean and std were found that the network standardises with"
        return Finding("constants", "ok", 0.0, 1.0, fine)
    one = max(seen, key=_measure_distance)
    words = (
        f"what the network standardises has mean {_show(one.mean_C)} and standard deviation "
        f"{_show(one.std_C)}; it expects {_show(one.mean)} and {_show(one.std)}"
    )
    apart = _measure_distance(one)
    if apart > 1 and len(examples) < FEW:
        message = f"{words}; {len(examples)} images are too few to draw a conclusion"
        return Finding("constants", "info", apart, 1.0, message)
    return graded(
        "constants",
        apart,
        1.0,
        f"{words}: the images are standardised twice, are not scaled to [0, 1], or are unlike "
        "those of the training",
        fine=words,
    )


def _measure_distance(seen: Seen) -> float:
    """Return how far images are from what a module expects; up to 1 is common."""
    centred_C = (seen.mean > _CENTRED) & (seen.mean_C < seen.mean / 2)
    if seen.lowest < 0 and bool(centred_C.all()):  # no pixels any more, not even noisy ones
        return _TWICE
    shift = (seen.mean_C - seen.mean).abs() / torch.maximum(seen.std_C, seen.std)
    shift = torch.where(seen.mean == 0, 0.0, shift)  # it only scales
    return max(float(shift.max()) / _SHIFTED, float((seen.std / seen.std_C).max()) / _SMALLER)


def _check_units(
    network: Network, examples: Examples, logits: Tensor, schedule: Schedule
) -> Finding:
    """Ask whether the network is right more often when its input has other units."""
    right_N = is_correct(logits, examples.y_N)
    errors = 1 - float(right_N.double().mean())
    best, hint, sure = 0.0, "", VERY_SURE / len(_UNITS)
    if 0.5 ** len(examples) >= sure:
        message = f"not checked: {len(examples)} images are too few"
        return Finding("normalisation", "info", 0.0, _RECOVERED, message)
    for words, change in _UNITS.items():
        x = change(examples.x, *_find_moments(examples.x))
        changed = Examples(x, examples.y_N, examples.index_N)
        other_N = is_correct(clean_logits(network, changed, schedule), examples.y_N)
        better, worse = int((other_N & ~right_N).sum()), int((right_N & ~other_N).sum())
        share = (better - worse) / len(examples) / errors if errors else 0.0
        if share > best and at_least(better, better + worse, 0.5) < sure:
            best, hint = share, f"{100 * float(other_N.double().mean()):.0f} % {words}"
    given = (
        f"{100 * (1 - errors):.0f} % of {len(examples)} images are classified correctly as given"
    )
    return graded(
        "normalisation",
        best,
        _RECOVERED,
        f"{given}, and {hint}",
        fine=f"{given}, and not many more in other units",
    )


def _find_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel: (C, 1, 1)."""
    mean_C, std_C = x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0).clamp(min=1e-6)
    return mean_C[:, None, None], std_C[:, None, None]


_FORGOTTEN = (
    "the network seems to expect standardised images. Put the normalisation that it was trained "
    "with before it (preprocessing: {mean, std} in a manifest)"
)
_DOUBLED = "images seem to be standardised twice. Take one normalisation away"
_UNITS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    f"as (x - mean) / std: {_FORGOTTEN}": lambda x, mean, std: (x - mean) / std,
    f"as 2 x - 1: {_FORGOTTEN}": lambda x, *_: 2 * x - 1,
    "as 255 x: the network seems to expect pixels of 0..255. Scale them within it": (
        lambda x, *_: 255 * x
    ),
    f"as std x + mean: {_DOUBLED}": lambda x, mean, std: std * x + mean,
    f"as (x + 1) / 2: {_DOUBLED}": lambda x, *_: (x + 1) / 2,
    "as x / 255: the network seems to scale pixels to 0..255 twice": lambda x, *_: x / 255,
}  # what stands for the input, and what it would mean


def _watch_inputs(
    model: Model, network: Network, examples: Examples, schedule: Schedule
) -> list[Seen]:
    """Return what comes to modules with constants, in one pass; nothing where there are none."""
    channels, few = examples.x.shape[1], examples.take(slice(schedule.compute_shape))
    modules = model.modules() if isinstance(model, nn.Module) else ()
    places = {module: found for module in modules if (found := _find_constants(module, channels))}
    seen: dict[nn.Module, Seen] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0] if inputs else None
        if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == channels:
            real = x[: len(few)].float()
            mean_C, std_C = (part.flatten().cpu() for part in _find_moments(real))
            seen.setdefault(module, Seen(mean_C, std_C, float(real.min()), *places[module]))

    handles: list[RemovableHandle] = []
    try:
        for module in places:
            handles.append(module.register_forward_pre_hook(note))
        if places:
            clean_logits(network, few, schedule)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.values())


def _find_constants(module: nn.Module, channels: int) -> tuple[Tensor, Tensor] | None:
    """Return a module's ``mean`` and ``std``, each (C,) or (1,); None for none that matter."""
    found = []
    for name in ("mean", "std"):
        value = getattr(module, name, None)
        try:
            value = torch.as_tensor(value).detach().float().flatten().cpu()
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            return None
        if len(value) not in (1, channels):
            return None
        found.append(value)
    mean, std = found
    idle = bool((mean == 0).all() and (std == 1).all())
    return None if idle or not bool((std > 0).all()) else (mean, std)


def _show(values_C: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values_C.tolist())
