"""The audit: whether a model's robust accuracy could be believed, looked at before it is measured.

Nothing here refuses a number; findings stand beside it. One exception: a model whose output depends
on the rest of its batch has no verdict on an image at all, and is not evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from robustray.attacks import ThreatModel
from robustray.attacks.checks import plausibility
from robustray.attacks.engine import Examples, Network, Schedule, clean_logits
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import check_examples, check_logits
from robustray.data import Split
from robustray.errors import CorruptObjectError
from robustray.evaluation.audit import masking
from robustray.evaluation.audit.findings import Finding, plain
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

AUDIT_VERSION = 3
IMAGES = 64


def audit(
    model: nn.Module,
    examples: Examples,
    threat: ThreatModel,
    *,
    seed: int,
    compute_shape: int,
    declared: bool = False,
) -> list[Finding]:
    """Look for what makes a robust accuracy untrustworthy.

    Parameters
    ----------
    model : nn.Module
        On its device.
    examples : Examples
        A few images, on the CPU; the first 64 are used.
    threat : ThreatModel
        What attacks will be allowed.
    seed : int
        Of the random points.
    compute_shape : int
        The physical batch of every pass.
    declared : bool
        Whether the batches are declared in which the model is judged: then it may depend on them.

    Returns
    -------
    list of Finding
        One for each check, those that found nothing included.

    Raises
    ------
    ValueError
        If the model does not return logits for these images and labels.
    """
    schedule = Schedule(compute_shape, compute_shape)
    network = Network(model, examples.x.device)
    few = examples.take(slice(0, min(IMAGES, compute_shape)))
    full = few.pad(compute_shape).to(network.device)
    with judging(model):
        logits = clean_logits(network, few, schedule)
        check_logits(logits, few)
        with torch.no_grad():
            random_ = masking.randomness(network, full)
            mates = masking.batch_mates(network, full, random_.measured)
            if declared and mates.severity == "error":
                mates = replace(mates, severity="warning")
            findings = [
                random_,
                mates,
                masking.probabilities(network, full),
                masking.logit_scale(network, full),
                *plausibility.look(model, network, few, logits, threat, schedule, always=True),
            ]
        findings.append(masking.optimisation(network, full))
        gradients = masking.gradients(network, full)
        findings += gradients
        if declared:
            words = "not checked: the model has no verdict outside its declared batches"
            findings += [Finding(name, "info", 0.0, 0.0, words) for name in _SEARCHES]
        elif not any(f.check == "zero_gradient" and f.measured == 1.0 for f in gradients):
            findings += [
                _tried(name, check, network, few, threat, schedule, seed)
                for name, check in _SEARCHES.items()
            ]
    return findings


def refusal(findings: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why a model can't be evaluated at all, or None."""
    for finding in findings:
        if finding["check"] == "batch_mates" and finding["severity"] == "error":
            return str(finding["message"])
    return None


_SEARCHES = {"random_points": masking.random_points, "larger_eps": masking.larger_budgets}


def _tried(
    name: str,
    check: Callable[..., Finding],
    network: Network,
    few: Examples,
    threat: ThreatModel,
    schedule: Schedule,
    seed: int,
) -> Finding:
    """Make a check that attacks; where PGD does not know the norm, say so."""
    try:
        return check(network, few, threat, schedule, seed)
    except ValueError as error:
        return Finding(name, "info", 0.0, 0.0, f"not checked: {error}")


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
