"""Audits in the store: made once for a subject, a threat model and the first images."""

from __future__ import annotations

from typing import Any

from torch import nn

from robustray.attacks import ThreatModel
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import check_examples
from robustray.data import Split
from robustray.errors import CorruptObjectError
from robustray.evaluation.audit.checks import AUDIT_VERSION, IMAGES, audit
from robustray.evaluation.audit.findings import plain
from robustray.evaluation.task import ENGINE_VERSION, Task
from robustray.evaluation.units.composed import companions_finding
from robustray.store import (
    NotFoundError,
    ObjectStore,
    canonical_json,
    read_sealed,
    seal,
    sha256_bytes,
)

Documents = list[dict[str, Any]]


def audit_key(task: Task, images: Split) -> str:
    """Return where a task's audit is kept: a key that holds the digest of all it depends on."""
    return _key(_identity(task, images))


def read_audit(store: ObjectStore, key: str) -> list[dict[str, Any]] | None:
    """Return the findings of an audit, or None where it was not made (or is damaged)."""
    try:
        content, verified = read_sealed(store, key)
    except (NotFoundError, CorruptObjectError):
        return None
    is_this_one = verified and key == _key(content["identity"])
    return content["findings"] if is_this_one else None


def make_audit(store: ObjectStore, task: Task, images: Split, model: nn.Module) -> Documents:
    """Audit a model on its device, and keep what was found."""
    few = _few(images)
    examples = check_examples(few.x_NCHW, few.y_N, few.index_N)
    threat, conditions = ThreatModel(task.norm, task.eps), task.conditions
    findings = audit(
        model,
        examples,
        threat,
        seed=conditions.seed,
        compute_shape=conditions.compute_shape,
        declared=conditions.composition is not None,
    )
    documents = plain(findings)
    if conditions.composition is not None:
        everyone = check_examples(images.x_NCHW, images.y_N, images.index_N)
        with judging(model):
            documents.append(companions_finding(model, everyone, conditions.composition))
    _keep(store, audit_key(task, images), _identity(task, images), documents)
    return documents


def _keep(store: ObjectStore, key: str, identity: dict[str, Any], findings: Documents) -> None:
    if read_audit(store, key) is None:
        store.put(key, seal({"identity": identity, "findings": findings}))


def _key(identity: dict[str, Any]) -> str:
    return f"audits/{sha256_bytes(canonical_json(identity))}.json"


def _identity(task: Task, images: Split) -> dict[str, Any]:
    identity = {
        "audit_version": AUDIT_VERSION,
        "engine_version": ENGINE_VERSION,
        "subject": task.subject.identity(),
        "images": _few(images).digest,
        "threat": {"norm": task.norm, "eps": task.eps},
        "seed": task.conditions.seed,
        "compute_shape": task.conditions.compute_shape,
    }
    if task.conditions.composition is not None:
        identity["composition"] = {**task.conditions.composition, "images": images.digest}
    return identity


def _few(images: Split) -> Split:
    return images.select(slice(0, IMAGES))
