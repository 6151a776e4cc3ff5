"""An audit's findings in words that a reader understands, and what they mean for the number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from robustray.reports.html import details_html, list_html, text_html

# What a passed check says.
PASSED = {
    "randomness": "two passes over the same images give the same answers",
    "batch_mates": "what an image is classified as does not depend on its batch",
    "probabilities": "the network returns logits",
    "logit_scale": "logits are small enough for losses not to saturate",
    "inner_optimisation": "the network computes no gradients of its own while it classifies",
    "nan_gradient": "gradients are finite",
    "zero_gradient": "gradients are not zero",
    "vanishing_gradient": "gradients do not vanish",
    "flat_cross_entropy": "the loss that attacks climb is not flat",
    "random_points": "random perturbations break nothing that gradients miss",
    "larger_eps": "larger perturbations break more, and in the end everything",
    "clean_accuracy": "it classifies clearly better than by guessing",
    "one_class": "it does not answer with one class all the time",
    "pixels": "the images use the range of their pixels",
    "constants": "images are scaled as its normalisation expects",
    "normalisation": "no other scaling of the images suits it better",
    "black_box": "attacks without gradients break no more than those with gradients",
    "unconfirmed": "each adversarial example fools it again in another pass",
    "flawed_gradients": "every gradient that attacks used was finite",
    "outside_threat": "no verdict rests on a point outside the threat model",
    "companions": "no prediction changes in other batches",
    "robust_companions": "images that withstood the attacks stay right in other batches",
}
_MEANING = (
    "A robust accuracy is an upper bound: it holds for the attacks that were tried. These checks "
    "look for what makes attacks fail although the network is not robust. "
)
_FINE = "They found nothing of the kind, so the number is as good as its attacks."
_GRAVE = "They did find something: take the number as doubtful until an adaptive attack is run."
_LIGHT = "They found something that needs a look; the number may still hold."


def audit_html(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return the audit: what it means, what is doubtful, what passed, and what was not checked."""
    if not findings:
        return text_html("This network was not audited: `audit: true` looks for hidden gradients.")
    by = {
        severity: [f for f in findings if f["severity"] == severity]
        for severity in ("error", "warning", "ok", "info")
    }
    meaning = _GRAVE if by["error"] else _LIGHT if by["warning"] else _FINE
    alarms = [*by["error"], *by["warning"]]
    return "\n".join([
        text_html(_MEANING + meaning),
        _alarms(alarms),
        _passed(by["ok"]),
        details_html("What was measured", list_html(map(_measured, by["ok"]))),
        details_html("Remarks, and what was not checked", list_html(map(_measured, by["info"]))),
    ])  # fmt: skip


def _passed(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return "11 checks passed", and what each of them says."""
    if not findings:
        return ""
    many = "checks" if len(findings) > 1 else "check"
    items = "".join(
        f"<li>{escape(PASSED.get(str(found['check']), str(found['message'])))}</li>"
        for found in findings
    )
    return f'<p>{len(findings)} {many} passed:</p><ul class="checks">{items}</ul>'


def _alarms(findings: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(
        f"<li><b>{escape(_words(f['check']))}</b>: {escape(f['message'])}.</li>" for f in findings
    )
    return f'<ul class="doubts list">{items}</ul>' if items else ""


def _measured(finding: Mapping[str, Any]) -> str:
    return f"{_words(finding['check'])}: {finding['message']}"


def _words(check: str) -> str:
    return check.replace("_", " ").capitalize()
