"""Randomness that belongs to a purpose and an example, never to a batch.

``derive_seed`` and ``generator`` turn a purpose ("data", epoch 3) into a seed. ``ExampleRandom`` is
a counter-based generator: each number is a hash of what it is for, so it can be drawn in any order,
in any batch, on any device. Counter-based generation is Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011); the mixer is the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014). Not for cryptography.
"""

from __future__ import annotations

import hashlib
import math
import operator

import torch
from torch import Tensor

_POSITION_STEP = 0x9E3779B97F4A7C15  # odd, near 2**64 / golden ratio: SplitMix64's increment
_COUNTER_STEP = 0xD1342543DE82EF95  # odd: LXM's multiplier (Steele, Vigna, OOPSLA 2021)
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_KINDS = ("uniform", "normal", "signs", "integers")


def derive_seed(*parts: int | str | float) -> int:
    """Hash a purpose to a seed.

    Parameters
    ----------
    *parts : int, str or float
        What the seed is for. Type and order count: ``1``, ``1.0`` and ``"1"`` differ.

    Returns
    -------
    int
        In [0, 2**63), the same in every process and release (BLAKE2b, RFC 7693).

    Raises
    ------
    TypeError
        For a part of any other type.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = _encode(part).encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(*parts: int | str | float) -> torch.Generator:
    """Return a CPU generator seeded with ``derive_seed(*parts)``."""
    return torch.Generator(device="cpu").manual_seed(derive_seed(*parts))


class ExampleRandom:
    """Random numbers for examples, each with a stream of its own.

    A number depends on the seed, the names, the kind of draw, the example's index, the counters
    and its position in ``shape`` (row-major), and on nothing else. So an example gets the same
    numbers whatever batch, order or worker it comes in. Uniforms, signs and integers have the
    same bits on every device; normals may differ in the last place, where logarithm and cosine do.

    Every draw takes ``index_B``, int64 (B,), the examples' indices; ``shape``, that of one
    example's numbers; ``*counters``, ints or int64 tensors (B,) such as restart and iteration (a
    tensor lets each example be at its own; an int ``c`` equals a tensor full of ``c``); and
    ``device``, where the numbers are wanted (default: where ``index_B`` is). Draws of one kind
    with equal counters are equal: count whatever is to be drawn anew.

    Parameters
    ----------
    seed : int
        The experiment's seed.
    *names : str or int
        The purpose, such as the attack's name.
    """

    def __init__(self, seed: int, *names: str | int) -> None:
        self._keys = {kind: derive_seed("example", seed, *names, kind) for kind in _KINDS}

    def uniform(
        self,
        index_B: Tensor,
        shape: tuple[int, ...],
        *counters: int | Tensor,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw from U[0, 1): float32 (B, *shape), multiples of 2**-24."""
        word = self._words("uniform", index_B, shape, counters, device)
        return _shift_right_(word, 40).to(torch.float32).mul_(2.0**-24)

    def normal(
        self,
        index_B: Tensor,
        shape: tuple[int, ...],
        *counters: int | Tensor,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw from N(0, 1): float32 (B, *shape), at most 6.7 in magnitude.

        Box and Muller, "A note on the generation of random normal deviates" (1958), from the two
        32-bit words of one hash.
        """
        word = self._words("normal", index_B, shape, counters, device)
        angle = (word & 0xFFFFFFFF).to(torch.float32).mul_(2.0 * math.pi * 2.0**-32).cos_()
        radius = _shift_right_(word, 32).add_(1).to(torch.float32).mul_(2.0**-32)
        return radius.log_().mul_(-2.0).sqrt_().mul_(angle)

    def signs(
        self,
        index_B: Tensor,
        shape: tuple[int, ...],
        *counters: int | Tensor,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw -1 or +1 with equal chances: float32 (B, *shape)."""
        word = self._words("signs", index_B, shape, counters, device)
        return _shift_right_(word, 63).to(torch.float32).mul_(2.0).sub_(1.0)

    def integers(
        self,
        high: int | Tensor,
        index_B: Tensor,
        shape: tuple[int, ...],
        *counters: int | Tensor,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw from {0, ..., high - 1}: int64 (B, *shape).

        ``high`` is in [1, 2**31], an int or an int64 tensor (B,). A value's probability is off
        by less than 2**-32.
        """
        if isinstance(high, int) and not 1 <= high <= 2**31:
            raise ValueError(f"high must be in [1, 2**31], not {high}")
        word = self._words("integers", index_B, shape, counters, device)
        if isinstance(high, Tensor):
            high = high.to(word.device, torch.int64).reshape(-1, *[1] * len(shape))
        return _shift_right_(_shift_right_(word, 32).mul_(high), 32)

    def _words(
        self,
        kind: str,
        index_B: Tensor,
        shape: tuple[int, ...],
        counters: tuple[int | Tensor, ...],
        device: torch.device | str | None,
    ) -> Tensor:
        """Hash to 64 random bits for each example and position: int64 (B, *shape)."""
        device = index_B.device if device is None else torch.device(device)
        state_B = torch.full(index_B.shape, self._keys[kind], dtype=torch.int64, device=device)
        for count in (index_B, *counters):
            if isinstance(count, Tensor):
                step = (count.to(device, torch.int64) + 1) * _signed(_COUNTER_STEP)
            else:
                step = _signed((operator.index(count) + 1) * _COUNTER_STEP)
            state_B = _mix_(state_B.add_(step))
        position_P = torch.arange(1, math.prod(shape) + 1, device=device)
        word_BP = state_B[:, None] + position_P.mul_(_signed(_POSITION_STEP))
        return _mix_(word_BP).reshape(len(index_B), *shape)


def _encode(part: int | str | float) -> str:
    if isinstance(part, str):
        return f"s{part}"
    if isinstance(part, float):
        return f"f{float(part).hex()}"
    return f"i{operator.index(part)}"


def _signed(value: int) -> int:
    """Return the two's complement reading of the low 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


def _shift_right_(word: Tensor, bits: int) -> Tensor:
    """Shift int64 right in place and fill with zeros (torch fills with the sign)."""
    return word.bitwise_right_shift_(bits).bitwise_and_(2 ** (64 - bits) - 1)


def _mix_(word: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser in place: a bijection of int64 in which every bit counts."""
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, None), strict=True):
        word ^= _shift_right_(word.clone(), shift)
        if multiplier is not None:
            word *= _signed(multiplier)
    return word
