"""What `robustray.attacks` offers; a name is imported when it is first used.

Functions of attacks are made from their declarations when the program runs, so that type checkers
can't see what they take. Their signatures, at the end, are written by scripts/write_stubs.py.
"""

import typing

import torch

import robustray.attacks.engine.network
import robustray.random

from .attack import BatchAttack
from .catalogue.apgd import apgd_start
from .catalogue.apgd_adaptive import mixture_loss
from .catalogue.fab import MinimumNorm
from .engine.network import input_gradient
from .evaluation import autoattack, evaluate
from .nearest import find_nearest
from .registry import list_attacks, register_attack
from .result import (
    AttackResult,
    Column,
    EvaluationResult,
    Finding,
    JudgementWarning,
    Passes,
)
from .suite import (
    AttackSpec,
    Suite,
    attack_suite,
    independent_suite,
    list_suites,
    register_suite,
)
from .surrogates.bpda import Bpda, WithSurrogate, soft_round, straight_through
from .threat import ThreatModel

if not typing.TYPE_CHECKING:
    from .catalogue.apgd import apgd_ce, apgd_dlr, apgd_t
    from .catalogue.apgd_adaptive import apgd_mixture
    from .catalogue.carlini_wagner import carlini_wagner, cw_l2
    from .catalogue.ddn import ddn
    from .catalogue.deepfool import deepfool
    from .catalogue.fab import fab, fab_t, minimum_norms
    from .catalogue.fmn import fmn
    from .catalogue.pgd import fgsm, pgd
    from .catalogue.square import square
    from .catalogue.stadv import stadv

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
    "ddn",
    "deepfool",
    "evaluate",
    "fab",
    "fab_t",
    "fgsm",
    "find_nearest",
    "fmn",
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

# Written by scripts/write_stubs.py: change the declarations, not this.
def apgd_ce(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult: ...
def apgd_dlr(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult: ...
def apgd_t(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    n_targets: int = 9,
    eot: int = 1,
    l1_stages: bool = False,
) -> AttackResult: ...
def apgd_mixture(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    n_targets: int = 0,
    weight: float = 0.5,
) -> AttackResult: ...
def carlini_wagner(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    box: tuple[float, float] | None = (0.0, 1.0),
    n_iter: int = 1000,
    search_steps: int = 9,
    initial_weight: float = 0.001,
    lr: float = 0.01,
    confidence: float = 0.0,
) -> MinimumNorm: ...
def cw_l2(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 1000,
    search_steps: int = 9,
    initial_weight: float = 0.001,
    lr: float = 0.01,
    confidence: float = 0.0,
) -> AttackResult: ...
def ddn(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    gamma: float = 0.05,
    radius: float = 1.0,
    levels: int = 0,
) -> AttackResult: ...
def deepfool(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    overshoot: float = 0.02,
) -> AttackResult: ...
def fab(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
) -> AttackResult: ...
def fab_t(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    n_restarts: int = 1,
    n_targets: int = 9,
) -> AttackResult: ...
def minimum_norms(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    norm: str,
    *,
    n_iter: int = 100,
    n_targets: int = 9,
) -> MinimumNorm: ...
def fmn(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_iter: int = 100,
    alpha: float | None = None,
    gamma: float = 0.05,
    growth: float = 0.01,
) -> AttackResult: ...
def fgsm(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    eot: int = 1,
) -> AttackResult: ...
def pgd(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross_entropy",
    start: str = "uniform",
    restarts: int = 1,
    eot: int = 1,
) -> AttackResult: ...
def square(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    n_queries: int = 5000,
    n_restarts: int = 1,
    p_init: float = 0.8,
    rescale: bool = False,
) -> AttackResult: ...
def stadv(
    model: robustray.attacks.engine.network.Model,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: ThreatModel,
    *,
    rng: robustray.random.ExampleRandom | None = None,
    index: torch.Tensor | None = None,
    smoothness: float = 0.05,
    n_iter: int = 100,
    lr: float = 0.01,
    align_corners: bool = False,
) -> AttackResult: ...
