"""From a manifest of kind Corruptions to tasks: a clean pass for each network and cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustray.data import DataFacts
from robustray.errors import ManifestError, below
from robustray.evaluation.agenda import Work
from robustray.evaluation.images import facts_of, load_images, ranges_of
from robustray.evaluation.plan import agreed_size, conditions_of, prepare
from robustray.evaluation.task import Conditions, Subject, Task
from robustray.manifest import JudgedData
from robustray.manifest.corruptions import Corruptions
from robustray.reports.words import network_name
from robustray.store import ObjectStore, canonical_json, sha256_bytes
from robustray.user_code import import_from
from robustray.words import lay_out

Cell = tuple[str, int]  # a corruption and a severity, or ("clean", 0)


@dataclass(frozen=True)
class Judged:
    """A network, and the MACs of one forward pass, None where they can't be counted."""

    subject: Subject
    macs: int | None


@dataclass(frozen=True)
class Prepared:
    """What can be said of a job before it is known which devices there are."""

    manifest: Corruptions
    cells: Mapping[Cell, JudgedData]
    facts: Mapping[Cell, DataFacts]
    networks: Mapping[str, Judged]


@dataclass(frozen=True)
class CorruptionsPlan:
    """A job: its networks, each of which is judged on the images of each cell."""

    id: str
    prepared: Prepared
    conditions: Conditions

    @property
    def manifest(self) -> Corruptions:
        """What was asked for."""
        return self.prepared.manifest

    @property
    def prefix(self) -> str:
        """Key prefix of the job in the store."""
        return f"corruptions/{self.id}"

    @property
    def images(self) -> int:
        """Images of all cells together."""
        return sum(facts.test for facts in self.prepared.facts.values())

    def identity(self) -> dict[str, Any]:
        """Return what the job is: not where, by whom, and in which shards it is computed."""
        manifest = self.manifest
        return {
            "format": 1,
            "data": manifest.data.model_dump(mode="json", exclude={"download"}),
            "clean": manifest.clean and manifest.clean.model_dump(exclude={"download"}),
            "corruptions": list(manifest.corruptions),
            "severities": list(manifest.severities),
            "averaged": list(manifest.averaged()),
            "baseline": manifest.baseline,
            "compute_shape": self.conditions.compute_shape,
            "subjects": {
                name: judged.subject.identity() for name, judged in self.prepared.networks.items()
            },
        }


def prepare_corruptions(
    manifest: Corruptions, store: ObjectStore, data_root: str | None, *, dry: bool = False
) -> Prepared:
    """Find everything that a manifest names; computes nothing.

    Weights are put into the store, unless it is ``dry``.

    Raises
    ------
    UserError
        If a network, weights or images can't be had, or images differ in shape or classes.
    """
    import_from((str(Path.cwd()),))
    cells = manifest.cells()
    facts = {cell: facts_of(data, data_root) for cell, data in cells.items()}
    _check_alike(facts)
    networks: dict[str, Judged] = {}
    for name in manifest.networks:
        with below(f"networks.{name}"):
            found = prepare(manifest.evaluation(name), store, data_root, dry=dry)
        networks[name] = Judged(found.subject, found.macs)
    return Prepared(manifest, cells, facts, networks)


def make_plan(prepared: Prepared, *, on_gpu: bool) -> CorruptionsPlan:
    """Return the plan for a kind of device; its id is that of what is computed."""
    manifest = prepared.manifest
    first = manifest.evaluation(next(iter(manifest.networks)))
    plan = CorruptionsPlan("", prepared, conditions_of(first, 0, on_gpu=on_gpu))
    digest = sha256_bytes(canonical_json(plan.identity()))
    return CorruptionsPlan(f"{manifest.name}-{digest[:8]}", prepared, plan.conditions)


@dataclass(frozen=True)
class CellWork:
    """The work on one cell: a task for each network; ``sha256`` is that of its images."""

    cell: Cell
    sha256: str
    work: Mapping[str, Work]


def make_work(
    plan: CorruptionsPlan, store: ObjectStore, data_root: str | None, *, dry: bool = False
) -> Iterator[CellWork]:
    """Read the images of each cell, and yield what is to be done on them.

    Settles the shard size in the store, unless it is ``dry``.

    Raises
    ------
    DataError
        If images are missing or damaged.
    """
    size = agreed_size(store, plan.prefix, plan.manifest.shard_size, dry=dry)
    for cell, data in plan.prepared.cells.items():
        images = load_images(data, data_root, store)
        sha256, ranges = images.digest, ranges_of(images, size)
        work: dict[str, Work] = {}
        for name, judged in plan.prepared.networks.items():
            task = Task(
                name=f"{name} {cell_name(cell)}",
                subject=judged.subject,
                data=data,
                ranges=ranges,
                norm="linf",
                eps=0.0,  # nothing attacks
                attacks=(),
                attack_all=False,
                conditions=plan.conditions,
            )
            work[name] = Work(task, None, judged.macs, audited=False)
        yield CellWork(cell, sha256, work)


def cell_name(cell: Cell) -> str:
    """Return what tables call a cell: "fog/3", or "clean"."""
    corruption, severity = cell
    return f"{corruption}/{severity}" if severity else corruption


def describe_plan(plan: CorruptionsPlan) -> str:
    """Return the plan as text: what is judged, on what, and what it costs."""
    manifest, prepared = plan.manifest, plan.prepared
    facts = [("corruptions", plan.id)]
    for name, judged in prepared.networks.items():
        what, digest = network_name(judged.subject.network), judged.subject.weights_sha256
        facts.append(("network", f"{name}: {what}, weights sha256 {digest}"))
    counts = sorted({found.test for cell, found in prepared.facts.items() if cell[1]})
    each = " or ".join(map(str, counts))
    facts += [
        ("images", f"{manifest.data.name}: {each} for each corruption and severity"),
        ("corruptions", ", ".join(manifest.corruptions)),
        ("severities", ", ".join(map(str, manifest.severities))),
    ]
    if ("clean", 0) in prepared.facts:
        clean = prepared.facts["clean", 0]
        facts.append(("clean", f"{clean.label}: {clean.test}"))
    flops = _flops(plan)
    cost = f"{plan.images * len(prepared.networks):,} forward passes"
    facts += [
        ("baseline", manifest.baseline or "none: errors are not normalised"),
        ("conditions", f"compute shape {plan.conditions.compute_shape}"),
        ("cost", cost + (f", {flops:.3g} FLOPs" if flops else "")),
    ]
    return lay_out(facts)


def plan_document(plan: CorruptionsPlan) -> dict[str, Any]:
    """Return the plan as scripts read it (``--json``)."""
    manifest, networks = plan.manifest, plan.prepared.networks
    return {
        "kind": manifest.kind,
        "id": plan.id,
        "name": manifest.name,
        "networks": {
            name: {
                "network": network_name(judged.subject.network),
                "weights_sha256": judged.subject.weights_sha256,
            }
            for name, judged in networks.items()
        },
        "corruptions": list(manifest.corruptions),
        "severities": list(manifest.severities),
        "forward_passes": plan.images * len(networks),
        "flops": _flops(plan),
    }


def _flops(plan: CorruptionsPlan) -> int | None:
    """Return the operations of all forward passes; None where a network's can't be counted."""
    macs = [judged.macs for judged in plan.prepared.networks.values()]
    known = [one for one in macs if one is not None]
    return 2 * plan.images * sum(known) if len(known) == len(macs) else None


def _check_alike(facts: Mapping[Cell, DataFacts]) -> None:
    """Refuse images of different shapes or classes: no network takes both."""
    first, *others = facts
    for cell in others:
        for what in ("num_classes", "image_shape"):
            here, there = getattr(facts[cell], what), getattr(facts[first], what)
            if here != there:
                words = f"{cell_name(first)} and {cell_name(cell)} differ in {what}"
                raise ManifestError(
                    f"{words}: {there} and {here}", path="clean" if "clean" in first else "data"
                )
