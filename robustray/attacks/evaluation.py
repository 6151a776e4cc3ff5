"""The robust accuracy of a model under a suite of attacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from robustray.attacks.checks.plausibility import look, warn_of
from robustray.attacks.engine import (
    Network,
    Schedule,
    clean_logits,
    default_compute_shape,
    run_attack,
)
from robustray.attacks.engine.batches import Examples
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import check_examples, check_inside, check_logits
from robustray.attacks.engine.network import Model, is_correct
from robustray.attacks.engine.upstream import clean_logits_upstream, run_attack_upstream
from robustray.attacks.result import AttackResult, EvaluationResult, Finding
from robustray.attacks.suite import AttackSpec, Suite, attack_suite
from robustray.attacks.threat import ThreatModel


class Tally:
    """Verdicts on N examples; the same for every engine that runs a suite.

    Parameters
    ----------
    examples : Examples
        All of them.
    logits : Tensor
        The clean logits (N, K).
    correct : Tensor
        Bool (N,): whether the example itself is classified correctly.
    suite : Suite
        What runs.
    """

    def __init__(self, examples: Examples, logits: Tensor, correct: Tensor, suite: Suite) -> None:
        self._examples, self._logits, self._suite = examples, logits, suite
        self._correct = correct
        self._begin = torch.ones_like(correct) if suite.attack_all else correct
        self._robust, self._within = self._begin.clone(), self._begin.clone()
        self._columns: dict[str, Tensor] = {}
        self._label = ""
        self._broken_by: list[str | None] = [None] * len(examples)
        self._x_adv = examples.x.clone()
        self._forwards = torch.ones_like(examples.y_N)
        self._backwards = torch.zeros_like(examples.y_N)
        self._flawed = torch.zeros_like(examples.y_N)

    def due(self) -> Iterator[tuple[AttackSpec, Tensor]]:
        """Yield each attack with the rows that it runs on, where there are any.

        `update` must have been told what it found before the next one is asked for.
        """
        for column in self._suite.cascades:
            self._within = self._begin.clone()
            for position in range(column.start, column.stop):
                self._label = self._suite.labels[position]
                wanted = self._begin if self._suite.attack_all else self._within
                rows = wanted.nonzero()[:, 0]
                if len(rows):
                    yield self._suite.attacks[position], rows
            self._columns[column.name] = self._within

    def update(self, rows: Tensor, found: AttackResult) -> None:
        """Enter what an attack found on these rows."""
        was_robust = self._robust[rows]
        self._x_adv[rows[was_robust]] = found.x_adv[was_robust]
        self._robust[rows] = was_robust & ~found.success_B
        self._within[rows] &= ~found.success_B
        self._forwards[rows] += found.forwards_B
        self._backwards[rows] += found.backwards_B
        self._flawed[rows] += found.flawed_B
        broken = rows[was_robust & found.success_B]
        for row in broken[self._correct[broken]].tolist():
            self._broken_by[row] = self._label

    def result(
        self, threat: ThreatModel, seed: int, compute_shape: int, findings: Sequence[Finding]
    ) -> EvaluationResult:
        """Return everything."""
        return EvaluationResult(
            clean_accuracy=self._correct.double().mean().item(),
            robust_accuracy=self._robust.double().mean().item(),
            clean_correct=self._correct,
            robust=self._robust,
            broken_by=self._broken_by,
            x_adv=self._x_adv,
            forwards=self._forwards,
            backwards=self._backwards,
            flawed=self._flawed,
            threat=threat,
            suite=self._suite.name,
            seed=seed,
            compute_shape=compute_shape,
            mode=self._suite.mode,
            robust_under=self._columns,
            findings=tuple(findings),
        )


MODES = ("robustray", "upstream")
AUTOATTACKS = ("standard", "plus", "rand")


def evaluate(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    suite: str | Suite | Iterable[str | AttackSpec | Suite] = "autoattack-standard",
    seed: int = 0,
    batch_size: int = 128,
    index: Tensor | None = None,
    *,
    compute_shape: int | None = None,
    search_dtype: str = "float32",
    channels_last: bool = False,
    fused_blocks: bool = False,
    graphs: bool = True,
    mode: str = "robustray",
    suite_mode: str | None = None,
    check: bool = True,
) -> EvaluationResult:
    """Attack a model with a suite and give a verdict on each example.

    The verdict on an example does not depend on the other examples, their order, or
    ``batch_size``: every pass has the same physical shape, and random numbers belong to the
    example's index. That holds bit for bit on one type of processor with one thread count, for
    models whose output for an image does not depend on the rest of the batch.

    Parameters
    ----------
    model : callable
        Images (B, C, H, W) in [0, 1] to logits (B, K), normalisation inside. A module is judged
        in evaluation mode and left as it was; its parameters are not touched. Where it offers
        ``surrogate(x)``, gradients come from that and verdicts from the model itself.
    x : Tensor
        Images (N, C, H, W), or other examples (N, ...) for attacks that do not look at rows and
        columns: float32 or float64 in the threat model's box, or uint8.
    y : Tensor
        Labels (N,), integers in 0..K-1.
    threat : ThreatModel
        What is allowed.
    suite : str, Suite, or iterable of str, AttackSpec and Suite
        See ``attack_suite``. A list is a cascade, in which each attack runs on what those before
        have left, unless ``suite_mode`` says otherwise.
    seed : int
        The experiment's seed.
    batch_size : int
        How many examples are on the model's device at a time (rounded up to a multiple of
        ``compute_shape``).
    index : Tensor, optional
        The examples' official indices (N,); 0..N-1 when not given. Give them for shards and
        subsets, so that each example keeps its random numbers.
    compute_shape : int, optional
        The physical batch of every pass, a multiple of 8; 64 on CPUs and 128 elsewhere when not
        given. Verdicts may differ in rare cases from one shape to another.
    search_dtype : {"float32", "bfloat16"}
        What attacks search in. An example counts as broken only after the model itself has
        misclassified its adversarial example in float32.
    channels_last : bool
        Search in the memory layout that convolutions are often faster in.
    fused_blocks : bool
        Search with fused GPU kernels for the branches of robust blocks, where there are such.
    graphs : bool
        Replay an attack's steps as CUDA graphs where there are such; that changes no result.
    mode : {"robustray", "upstream"}
        "upstream" follows the reference implementation of AutoAttack in its quirks, its seeds and
        its random order: batches of exactly ``batch_size`` in lockstep. It is there to be compared
        with the reference; verdicts depend on batch size and order, and points may be outside the
        threat model by a rounding error.
    suite_mode : {"cascade", "independent"}, optional
        "independent": every attack of the suite begins with all correctly classified images, so
        that each has an accuracy of its own, as in published tables (``robust_under``).
    check : bool
        Look for signs that the number means nothing: a clean accuracy near chance, one answer for
        all images, pixels in other units than the network expects. They are ``findings`` of the
        result, and a `JudgementWarning` each.

    Returns
    -------
    EvaluationResult

    Raises
    ------
    ValueError
        For images, labels, suites or models that are not as described.
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    suite, upstream = attack_suite(suite, threat.norm, suite_mode), mode == "upstream"
    examples = check_examples(x, y, index, threat)
    network = Network(model, examples.x.device, search_dtype, channels_last, fused_blocks)
    shape = default_compute_shape(network.device) if compute_shape is None else compute_shape
    schedule = Schedule(shape, batch_size, graphs)
    with judging(model):
        if upstream:
            logits = clean_logits_upstream(network, examples, batch_size)
        else:
            logits = clean_logits(network, examples, schedule)
        check_logits(logits, examples)
        tally = Tally(examples, logits, is_correct(logits, examples.y_N), suite)
        for spec, rows in tally.due():
            case = (network, examples.take(rows), threat, spec)
            if upstream:
                found = run_attack_upstream(*case, batch_size, seed=seed)
            else:
                found = run_attack(*case, schedule, seed=seed, logits=logits[rows])
                check_inside(found.x_adv, case[1].x, threat, spec.name)
            tally.update(rows, found)
        findings = look(model, network, examples, logits, threat, schedule) if check else []
    if network.draws_random:
        warn_of_luck(suite)
    warn_of(findings)
    return tally.result(threat, seed, batch_size if upstream else shape, findings)


def autoattack(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    version: str = "standard",
    **settings: Any,
) -> EvaluationResult:
    """Judge a model by a version of AutoAttack: ``evaluate`` with the suite of that name.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks" (2020).

    Parameters
    ----------
    model, x, y, threat
        As in ``evaluate``.
    version : {"standard", "plus", "rand"}
        "rand" is for models that are random; "plus" has more attacks than the usual "standard".
    **settings
        The other arguments of ``evaluate``, but for the suite.

    Raises
    ------
    ValueError
        For another version, and as ``evaluate`` does.
    """
    if version not in AUTOATTACKS:
        raise ValueError(f"version is one of {', '.join(AUTOATTACKS)}, not {version!r}")
    return evaluate(model, x, y, threat, suite=f"autoattack-{version}", **settings)


def warn_of_luck(suite: Suite) -> None:
    """Say of attacks that ask a random model once that their verdicts are single draws.

    To be called from what a user calls.
    """
    once = [spec.name for spec in suite.attacks if spec.describe()["options"].get("eot", 1) == 1]
    if once:
        warnings.warn(
            "the model uses random numbers in its forward pass (torch, numpy or Python), and "
            f"{', '.join(once)} made only one pass for each gradient or query, so each verdict is "
            "one random draw. Use a suite with expectation over transformations, such as "
            "autoattack-rand",
            stacklevel=3,
        )
