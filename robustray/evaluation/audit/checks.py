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
from robustray.attacks.engine.inputs import check_logits
from robustray.evaluation.audit import masking, stability
from robustray.evaluation.audit.findings import Finding

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
            random_ = stability.randomness(network, full)
            mates = stability.batch_mates(network, full, random_.measured)
            if declared and mates.severity == "error":
                mates = replace(mates, severity="warning")
            findings = [
                random_,
                mates,
                stability.probabilities(network, full),
                stability.logit_scale(network, full),
                *plausibility.look(model, network, few, logits, threat, schedule, always=True),
            ]
        findings.append(stability.optimisation(network, full))
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
