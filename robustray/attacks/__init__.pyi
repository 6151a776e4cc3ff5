"""Written by scripts/write_stubs.py: change the declarations, not this."""

from torch import Tensor

from robustray.attacks import catalogue as catalogue
from robustray.attacks.apgd import apgd_start
from robustray.attacks.apgd_adaptive import mixture_loss
from robustray.attacks.attack import BatchAttack
from robustray.attacks.engine.network import Model, input_gradient
from robustray.attacks.evaluate import autoattack, evaluate
from robustray.attacks.fab import MinimumNorm
from robustray.attacks.registry import list_attacks, register_attack
from robustray.attacks.result import (
    AttackResult,
    Column,
    EvaluationResult,
    Finding,
    JudgementWarning,
    Passes,
)
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
from robustray.random import ExampleRandom

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

def apgd_ce(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult: ...
def apgd_dlr(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult: ...
def apgd_t(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    n_targets: int = 9,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult: ...
def apgd_mixture(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_targets: int = 0,
    weight: float = 0.5,
) -> AttackResult: ...
def carlini_wagner(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    box: tuple[float, float] | None = (0.0, 1.0),
    n_iter: int = 1000,
    search_steps: int = 9,
    initial_weight: float = 0.001,
    lr: float = 0.01,
    confidence: float = 0.0,
) -> MinimumNorm: ...
def cw_l2(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 1000,
    search_steps: int = 9,
    initial_weight: float = 0.001,
    lr: float = 0.01,
    confidence: float = 0.0,
) -> AttackResult: ...
def fab(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
) -> AttackResult: ...
def fab_t(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    n_targets: int = 9,
) -> AttackResult: ...
def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    eot: int = 1,
) -> AttackResult: ...
def minimum_norms(
    model: Model,
    x: Tensor,
    y: Tensor,
    norm: str,
    *,
    n_iter: int = 100,
    n_targets: int = 9,
) -> MinimumNorm: ...
def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross_entropy",
    start: str = "uniform",
    restarts: int = 1,
    eot: int = 1,
) -> AttackResult: ...
def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    n_queries: int = 5000,
    n_restarts: int = 1,
    p_init: float = 0.8,
    rescale: bool = False,
) -> AttackResult: ...
def stadv(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rng: ExampleRandom | None = None,
    index: Tensor | None = None,
    smoothness: float = 0.05,
    n_iter: int = 100,
    lr: float = 0.01,
    align_corners: bool = False,
) -> AttackResult: ...
