"""What is computed: tasks, their units, and the key that names a unit by all that it depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robustray.attacks.registry import find_attack
from robustray.attacks.result import Column, attack_labels, mode_of
from robustray.manifest import JudgedData
from robustray.store import canonical_json, sha256_bytes

# Raised whenever a change of attacks, engine, architectures or data reading may change a verdict.
ENGINE_VERSION = 2

CLEAN = "clean"
SAMPLES = 8


@dataclass(frozen=True)
class Subject:
    """A network with its weights.

    Attributes
    ----------
    network : mapping
        How it is built: name and options, or a user's function with the digest of its code; what
        stands before it; classes and channels; whether gradients come from a surrogate.
    weights_sha256 : str
        Digest of the file of weights; of the state dict, where a function loads its own.
    weights_format : str
        How the file is read.
    weights_key : str or None
        Where workers find the file in the store; no part of what the subject is.
    """

    network: Mapping[str, Any]
    weights_sha256: str
    weights_format: str = "auto"
    weights_key: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return what it is, as plain data."""
        return {
            "network": dict(self.network),
            "weights_sha256": self.weights_sha256,
            "weights_format": self.weights_format,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return sha256_bytes(canonical_json(self.identity()))


@dataclass(frozen=True)
class Range:
    """Positions ``start <= i < stop`` of a split; ``sha256`` is that of their images and labels."""

    start: int
    stop: int
    sha256: str

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Conditions:
    """Under which conditions attacks run.

    ``engine`` holds name and versions; ``adversarial`` says which adversarial examples are kept:
    "all", or the first few of each unit. ``composition`` holds the fields of a
    `robustray.evaluation.units.composed.BatchLayout`, for networks whose output depends on the
    batch.
    """

    seed: int
    compute_shape: int
    engine: Mapping[str, Any]
    search_dtype: str = "float32"
    channels_last: bool = False
    fused_blocks: bool = False
    adversarial: str = f"first {SAMPLES}"
    composition: Mapping[str, Any] | None = None

    @property
    def searches_apart(self) -> bool:
        """Whether attacks search in another way than verdicts are computed."""
        return self.search_dtype != "float32" or self.channels_last or self.fused_blocks

    def document(self) -> dict[str, Any]:
        """Return them as plain data; a composition and fused blocks only where there are such."""
        whole = vars(self) | {"engine": dict(self.engine)}
        return {k: v for k, v in whole.items() if v or k not in ("composition", "fused_blocks")}


@dataclass(frozen=True)
class Task:
    """One subject, some images, one threat model, one suite.

    Attributes
    ----------
    name : str
        Unique within an evaluation: "" for its main task, a trial's name, or "eps=...".
    attacks : tuple of mapping
        ``AttackSpec.describe()`` of each attack, in order.
    attack_all, columns : bool, tuple of Column
        As in ``robustray.attacks.Suite``.
    classes : int
        Of the data set: what attacks cost may depend on it, and nothing else here.
    """

    name: str
    subject: Subject
    data: JudgedData
    ranges: tuple[Range, ...]
    norm: str
    eps: float
    attacks: tuple[Mapping[str, Any], ...]
    attack_all: bool
    conditions: Conditions
    columns: tuple[Column, ...] = ()
    classes: int = 10

    @property
    def count(self) -> int:
        """Number of images."""
        return self.ranges[-1].stop

    @property
    def mode(self) -> str:
        """How attacks follow each other; see ``robustray.attacks.Suite.mode``."""
        return mode_of(self.columns, attack_all=self.attack_all)

    @property
    def cascades(self) -> tuple[Column, ...]:
        """The columns; without any, all attacks as one."""
        return self.columns or (Column("", 0, len(self.attacks)),)

    @property
    def attack_names(self) -> list[str]:
        """The attacks' own names, in order."""
        return [str(attack["name"]) for attack in self.attacks]

    @cached_property
    def labels(self) -> list[str]:
        """What tables call the clean pass (position 0) and each attack; all different."""
        return [CLEAN, *attack_labels(self.attack_names, self.columns)]

    @cached_property
    def measures_distances(self) -> bool:
        """Whether each attack looks for the smallest perturbation of every correct image."""
        return not self.attack_all and all(
            self.begins(position)
            and find_attack(attack["attack"]).make(**attack["options"]).minimum_norm
            for position, attack in enumerate(self.attacks, start=1)
        )

    def attack_name(self, position: int) -> str:
        """Return the attack's own name at a position of the chain; 0 is the clean pass."""
        return CLEAN if position == 0 else self.attack_names[position - 1]

    def before(self, position: int) -> int:
        """Return the position that an attack continues from: 0 where its column begins."""
        return 0 if self.begins(position) else position - 1

    def begins(self, position: int) -> bool:
        """Whether a column begins with the attack at a position."""
        return any(position == column.start + 1 for column in self.cascades)

    def identity(self, range_: Range, position: int) -> dict[str, Any]:
        """Return everything that the verdicts of a unit depend on, as plain data.

        The clean pass depends on no threat model and no seed, so suites share it. An attack works
        on the survivors of those before it in its column, so its identity names them all; a column
        of an independent suite is what a cascade of its attacks would be, and shares its units.
        """
        identity: dict[str, Any] = {
            "format": 1,
            "engine_version": ENGINE_VERSION,
            "subject": self.subject.identity(),
            "range": {"start": range_.start, "stop": range_.stop, "sha256": range_.sha256},
            "compute_shape": self.conditions.compute_shape,
            "attacks": [],
        }
        if self.conditions.composition is not None:
            whole = {"images": self.count, "ranges": [r.sha256 for r in self.ranges]}
            identity["composition"] = {**self.conditions.composition, **whole}
        if position == 0:
            return identity
        return identity | {
            "attacks": [dict(attack) for attack in self.attacks[self._start(position) : position]],
            "attack_all": self.attack_all,
            "threat": {"norm": self.norm, "eps": self.eps},
            "seed": self.conditions.seed,
            "engine": dict(self.conditions.engine),
            "search_dtype": self.conditions.search_dtype,
            "channels_last": self.conditions.channels_last,
            "adversarial": self.conditions.adversarial,
            **({"fused_blocks": True} if self.conditions.fused_blocks else {}),
        }

    def unit(self, range_: Range, position: int) -> Unit:
        """Return the unit of a range at a position of the chain."""
        identity = self.identity(range_, position)
        name = f"{self.subject.digest[:16]}/{sha256_bytes(canonical_json(identity))}"
        return Unit(self.name, range_, position, f"units/{name}")

    def _start(self, position: int) -> int:
        """Return where the column of the attack at a position starts, counted from 0."""
        return next((c.start for c in self.cascades if c.start < position <= c.stop), 0)

    def chain(self, range_: Range) -> list[Unit]:
        """Return all units of a range: the clean pass, then each attack."""
        return [self.unit(range_, position) for position in range(len(self.attacks) + 1)]

    def units(self) -> Iterator[Unit]:
        """Yield all units, range by range."""
        for range_ in self.ranges:
            yield from self.chain(range_)


@dataclass(frozen=True)
class Unit:
    """What is computed, committed and retried: one range under one attack.

    ``prefix`` is its place in the store; it ends with the SHA-256 of the unit's identity.
    """

    task: str
    range: Range
    position: int
    prefix: str


def cut(count: int, size: int) -> list[tuple[int, int]]:
    """Cut 0..count-1 into ranges of ``size``, the last one smaller."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]
