"""Attacks, threat models and suites: how robust a classifier is, example by example.

>>> threat = ThreatModel(norm="linf", eps=8 / 255)
>>> result = evaluate(model, x, y, threat, suite="pgd-20")      # doctest: +SKIP
>>> result.robust_accuracy                                      # doctest: +SKIP
"""

from robustray.attacks.apgd import apgd_ce, apgd_dlr, apgd_start, apgd_t
from robustray.attacks.apgd_adaptive import apgd_mixture, mixture_loss
from robustray.attacks.attack import BatchAttack
from robustray.attacks.carlini_wagner import carlini_wagner, cw_l2
from robustray.attacks.engine.network import input_gradient
from robustray.attacks.evaluate import autoattack, evaluate
from robustray.attacks.fab import MinimumNorm, fab, fab_t, minimum_norms
from robustray.attacks.fgsm import fgsm
from robustray.attacks.pgd import pgd
from robustray.attacks.registry import list_attacks, register_attack
from robustray.attacks.result import (
    AttackResult,
    Column,
    EvaluationResult,
    Finding,
    JudgementWarning,
    Passes,
)
from robustray.attacks.square import square
from robustray.attacks.stadv import stadv
from robustray.attacks.suite import (
    AttackSpec,
    Suite,
    attack_suite,
    independent_suite,
    list_suites,
    register_suite,
)
from robustray.attacks.surrogates.bpda import Bpda, WithSurrogate, soft_round, straight_through
from robustray.attacks.threat import ThreatModel

# isort: split
from robustray.attacks import catalogue as catalogue  # suites of the attacks above

__all__ = [
    "AttackResult",
    "AttackSpec",
    "BatchAttack",
    "Bpda",
    "Column",
    "EvaluationResult",
    "Finding",
    "JudgementWarning",
    "MinimumNorm",
    "Passes",
    "Suite",
    "ThreatModel",
    "WithSurrogate",
    "apgd_ce",
    "apgd_dlr",
    "apgd_mixture",
    "apgd_start",
    "apgd_t",
    "attack_suite",
    "autoattack",
    "carlini_wagner",
    "cw_l2",
    "evaluate",
    "fab",
    "fab_t",
    "fgsm",
    "independent_suite",
    "input_gradient",
    "list_attacks",
    "list_suites",
    "minimum_norms",
    "mixture_loss",
    "pgd",
    "register_attack",
    "register_suite",
    "soft_round",
    "square",
    "stadv",
    "straight_through",
]
