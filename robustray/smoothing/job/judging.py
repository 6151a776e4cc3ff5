"""Judging a mixed classifier: bases, fixed weights, the mixture, certified radii."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustray.attacks import evaluate
from robustray.data import Split
from robustray.errors import below
from robustray.evaluation.agenda import task_passes
from robustray.evaluation.suites import resolve_suite, resolve_threat
from robustray.evaluation.units.engines import load_engine
from robustray.manifest import SuiteItem
from robustray.models.architectures.composite import Composite, Constants
from robustray.random import ExampleRandom, derive_seed
from robustray.smoothing.certificates import noisy_counts
from robustray.smoothing.manifest import Judging, Mixing
from robustray.smoothing.multipliers import RuleMixture, Stored, stored


def judge_multipliers(composite: Composite, test: Split, manifest: Mixing) -> dict[str, float]:
    """Judge each rule and trade-off: "<rule>/<trade-off>/<what>" to an accuracy in [0, 1].

    ``clean``; ``accurate`` and ``robust``, on images attacked against a base; ``end_to_end``.

    Parameters
    ----------
    composite : Composite
        Its bases are mixed, without its scales.
    test : Split
        The images, of which the first are taken.
    manifest : Mixing
        With ``judging.multipliers``.
    """
    wanted = manifest.judging.multipliers
    assert wanted is not None
    images = test.select(slice(wanted.first))
    x, y_N = images.x_NCHW.float() / 255, images.y_N
    threat = resolve_threat(manifest.judging.threat)
    case: dict[str, Any] = {
        "threat": threat,
        "suite": resolve_suite(wanted.suite, threat, load_engine("robustray"), "float32"),
        "seed": derive_seed(manifest.seed, "multipliers"),
        "batch_size": manifest.judging.batch_size,
        "index": images.index_N,
    }
    transferred = {
        role: evaluate(base, x, y_N, **case).x_adv.to(x)
        for role, base in zip(("accurate", "robust"), composite.models, strict=True)
    }
    accurate, robust = composite.models
    numbers: dict[str, float] = {}
    for rule in wanted.rules:
        for trade_off in wanted.trade_offs:
            norm = cast(Any, manifest.judging.threat.norm)
            mixture = RuleMixture(accurate, robust, rule, trade_off, norm).eval()
            found = evaluate(mixture, x, y_N, **case)
            row = {"clean": found.clean_accuracy, "end_to_end": found.robust_accuracy}
            for role, attacked in transferred.items():
                row[role] = _accuracy(mixture, attacked, y_N, manifest.judging.batch_size)
            numbers |= {f"{rule}/{trade_off:g}/{what}": value for what, value in row.items()}
    return numbers


@torch.no_grad()
def _accuracy(model: nn.Module, x: Tensor, y_N: Tensor, batch_size: int) -> float:
    predicted_N = torch.cat([model(part).argmax(1) for part in x.split(batch_size)])
    return float((predicted_N == y_N).double().mean())


MIXTURE, ADAPTIVE = "mixture", "mixture-adaptive"
CERTIFIED, MULTIPLIERS = "certified", "multipliers"


def judged_names(judging: Judging) -> list[str]:
    """Return what is judged, in order."""
    names = ["accurate", "robust", *(alpha_name(alpha) for alpha in judging.alphas), MIXTURE]
    if judging.adaptive is not None:
        names.append(ADAPTIVE)
    if judging.certified is not None:
        names.append(CERTIFIED)
    return [*names, MULTIPLIERS] if judging.multipliers is not None else names


def alpha_name(alpha: float) -> str:
    """Return what a fixed weight is called."""
    return f"alpha-{alpha:g}"


def check_judging(judging: Judging) -> None:
    """Refuse threat models and attacks that do not exist.

    Raises
    ------
    UserError
        If they can't be used.
    """
    with below("judging"):
        threat, engine = resolve_threat(judging.threat), load_engine("robustray")
        wanted = {"suite": judging.suite, "adaptive": judging.adaptive}
        if judging.multipliers is not None:
            wanted["multipliers.suite"] = judging.multipliers.suite
        for field, items in wanted.items():
            if items is not None:
                resolve_suite(items, threat, engine, "float32", field=field)


def judging_passes(judging: Judging, available: int, classes: int) -> float:
    """Return about how many forward and backward passes of one image judging takes.

    At the accuracies that `robustray.evaluation.agenda` assumes; multipliers are not counted.
    """
    threat, engine = resolve_threat(judging.threat), load_engine("robustray")
    items = [judging.suite] * (3 + len(judging.alphas))
    items += [judging.adaptive] if judging.adaptive is not None else []
    count, total = min(judging.first, available), 0.0
    for one in items:
        suite = resolve_suite(one, threat, engine, "float32")
        attacks = [spec.describe() for spec in suite.attacks]
        passes = task_passes(attacks, count, classes=classes, attack_all=suite.attack_all)
        total += passes.equivalents
    if (certified := judging.certified) is not None:
        total += min(certified.first, count) * (certified.selection + certified.samples)
    return total


@dataclass
class Judgements:
    """What was found.

    Attributes
    ----------
    numbers : dict of str to dict of str to float
        By what was judged: ``clean`` and ``robust`` accuracy in [0, 1] and such.
    tensors : dict of str to Tensor
        ``clean/...`` and ``<judged>/...``: what both bases say of clean images and of those that
        the attack on ``<judged>`` made (``accurate``, ``robust``: probabilities (N, K)); the
        mixture's ``alpha`` of them; ``y``; ``<judged>/verdict``; counts of certified images.
    """

    numbers: dict[str, dict[str, float]]
    tensors: dict[str, Tensor]

    def stored(self, name: str) -> Stored:
        """Return what both bases say of a set of images."""
        tensors = self.tensors
        return Stored(tensors[f"{name}/accurate"], tensors[f"{name}/robust"], tensors["y"])

    def attacked(self) -> dict[str, Stored]:
        """Return what both bases say of each set of attacked images."""
        ends = "/accurate"
        names = [key.removesuffix(ends) for key in self.tensors if key.endswith(ends)]
        return {name: self.stored(name) for name in names if name != "clean"}

    def worst_case(self) -> float:
        """Return the mixture's accuracy under every attack on it together."""
        robust = self.tensors[f"{MIXTURE}/verdict"].bool()
        if f"{ADAPTIVE}/verdict" in self.tensors:
            robust = robust & self.tensors[f"{ADAPTIVE}/verdict"].bool()
        return float(robust.double().mean())

    def metrics(self) -> dict[str, float]:
        """Return all numbers under flat names, and the worst case."""
        flat = {
            f"{name}_{key}": value
            for name, numbers in self.numbers.items()
            for key, value in numbers.items()
        }
        return flat | {"mixture_worst_case": self.worst_case()}


def judge(
    name: str, composite: Composite, test: Split, manifest: Mixing, found: Judgements
) -> None:
    """Judge one thing and add what was found.

    Parameters
    ----------
    name : str
        One of `judged_names`.
    composite : Composite
        In evaluation mode.
    test : Split
        The images.
    manifest : Mixing
        Suites, threat model, seed.
    found : Judgements
        Is added to.
    """
    judging = manifest.judging
    x, y_N = test.x_NCHW.float() / 255, test.y_N
    if "y" not in found.tensors:
        found.tensors["y"] = y_N.cpu().clone()
        _ask(composite, x, y_N, "clean", judging.batch_size, found)
    if name == CERTIFIED:
        return _certify(composite, test, manifest, found)
    if name == MULTIPLIERS:
        found.numbers[name] = judge_multipliers(composite, test, manifest)
        return None
    threat = resolve_threat(judging.threat)
    items: tuple[SuiteItem, ...] | None
    items = judging.adaptive if name == ADAPTIVE else judging.suite
    assert items is not None
    suite = resolve_suite(items, threat, load_engine("robustray"), "float32")
    verdict = evaluate(
        _subject(name, composite),
        x,
        y_N,
        threat,
        suite,
        seed=derive_seed(manifest.seed, "judging"),
        batch_size=judging.batch_size,
        index=test.index_N,
    )
    found.numbers[name] = {
        "clean": verdict.clean_accuracy,
        "robust": verdict.robust_accuracy,
    }
    found.tensors[f"{name}/verdict"] = verdict.robust.to(torch.uint8).cpu()
    _ask(composite, verdict.x_adv.to(x), y_N, name, judging.batch_size, found)
    return None


def _subject(name: str, composite: Composite) -> nn.Module:
    if name in ("accurate", "robust"):
        return composite.models[("accurate", "robust").index(name)]
    if name in (MIXTURE, ADAPTIVE):
        return composite
    alpha, constants = float(name.removeprefix("alpha-")), composite.constants
    accurate, robust = composite.models
    fixed = Composite(
        accurate,
        robust,
        constants=Constants(
            gamma=math.log(alpha / (1 - alpha)),
            std_scale=constants.std_scale,
            rob_scale=constants.rob_scale,
        ),
        policy_graph=composite.policy_graph,
        resize=composite.resize,
    )
    return fixed.to(composite.get_parameter("gamma").device).eval()


@torch.no_grad()
def _ask(
    composite: Composite, x: Tensor, y_N: Tensor, name: str, batch_size: int, found: Judgements
) -> None:
    """Store what both bases say of some images, and the weight that the mixture gives them."""
    said = stored(composite, x, y_N, batch_size)
    parts = [composite.forward_with_gamma(part)[1] for part in x.split(batch_size)]
    found.tensors[f"{name}/accurate"] = said.accurate_NK.cpu()
    found.tensors[f"{name}/robust"] = said.robust_NK.cpu()
    found.tensors[f"{name}/alpha"] = composite.alpha(torch.cat(parts)).cpu()


def _certify(composite: Composite, test: Split, manifest: Mixing, found: Judgements) -> None:
    """Count the robust base's predictions under noise."""
    wanted = manifest.judging.certified
    assert wanted is not None
    images = test.select(slice(wanted.first))
    rng = ExampleRandom(derive_seed(manifest.seed, "certified"), "noise")
    starts = {"selection": (0, wanted.selection), "samples": (wanted.selection, wanted.samples)}
    for part, (first, samples) in starts.items():
        counts = [
            noisy_counts(
                composite.models[1], some.float() / 255, index, sigma=wanted.sigma,
                samples=samples, rng=rng, first=first, batch_size=manifest.judging.batch_size,
            )
            for some, index in zip(
                images.x_NCHW.split(manifest.judging.batch_size),
                images.index_N.split(manifest.judging.batch_size),
                strict=True,
            )
        ]  # fmt: skip
        found.tensors[f"{CERTIFIED}/{part}"] = torch.cat(counts).cpu()
    votes = found.tensors[f"{CERTIFIED}/samples"].argmax(1)
    right = votes == found.tensors["y"][: len(votes)]
    found.numbers[CERTIFIED] = {"smoothed_clean": float(right.double().mean())}
