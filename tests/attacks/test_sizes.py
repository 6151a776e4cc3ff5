"""Counts and sizes that pass a comparison and are no numbers: refused by name."""

import math

import pytest
import torch
from torch import nn

from robustray.attacks import (
    ThreatModel,
    apgd_ce,
    apgd_t,
    cw_l2,
    evaluate,
    fab,
    fgsm,
    pgd,
    soft_round,
    square,
    stadv,
)
from robustray.attacks.engine.batches import Schedule
from robustray.attacks.surrogates.bpda_rules import Clipped, Smooth
from robustray.attacks.surrogates.catalogue import FiniteDifferences
from robustray.models import create_model
from robustray.models.architectures.composite import Constants
from robustray.random import ExampleRandom
from robustray.smoothing.certificates import (
    clopper_pearson,
    lipschitz_radius,
    noisy_counts,
    smoothing_radius,
)
from robustray.smoothing.multipliers import RuleMixture

NET = nn.Sequential(nn.Flatten(), nn.Linear(75, 3))
X, Y = torch.full((2, 3, 5, 5), 0.5), torch.tensor([0, 1])
LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 0.1)


def attack(function, threat, option):
    return lambda value: function(NET, X, Y, threat, **{option: value})


COUNTS = {
    "apgd n_iter": attack(apgd_ce, LINF, "n_iter"),
    "apgd n_restarts": attack(apgd_ce, LINF, "n_restarts"),
    "apgd eot": attack(apgd_ce, LINF, "eot"),
    "apgd-t n_targets": attack(apgd_t, LINF, "n_targets"),
    "fab n_iter": attack(fab, LINF, "n_iter"),
    "square n_queries": attack(square, LINF, "n_queries"),
    "pgd steps": attack(pgd, LINF, "steps"),
    "fgsm eot": attack(fgsm, LINF, "eot"),
    "cw search_steps": attack(cw_l2, L2, "search_steps"),
    "stadv n_iter": attack(stadv, LINF, "n_iter"),
    "batch_size": lambda value: Schedule(8, value),
    "compute_shape": lambda value: evaluate(NET, X, Y, LINF, ["fgsm"], compute_shape=value),
    "levels": soft_round,
    "samples": lambda value: FiniteDifferences(NET, samples=value),
}
SIZES = {
    "linf eps": lambda value: ThreatModel("linf", value),
    "l2 eps": lambda value: ThreatModel("l2", value),
    "box": lambda value: ThreatModel("l2", 1, (0, value)),
    "pgd step_size": attack(pgd, LINF, "step_size"),
    "cw lr": attack(cw_l2, L2, "lr"),
    "cw initial_weight": attack(cw_l2, L2, "initial_weight"),
    "cw confidence": attack(cw_l2, L2, "confidence"),
    "stadv lr": attack(stadv, LINF, "lr"),
    "stadv smoothness": attack(stadv, LINF, "smoothness"),
    "square p_init": attack(square, LINF, "p_init"),
    "sharpness": lambda value: soft_round(255, value),
    "radius": lambda value: FiniteDifferences(NET, radius=value),
    "smooth alpha": Smooth,
    "trade_off": lambda value: RuleMixture(NET, NET, "softmax", value),
    "trade_off of logits": lambda value: RuleMixture(NET, NET, "logits", value),
    "lipschitz sigma": lambda value: lipschitz_radius([0.9], [0.1], 0.9, value),
    "smoothing sigma": lambda value: smoothing_radius([0.9], [0.1], 0.9, value),
    "alpha": lambda value: smoothing_radius([0.9], [0.1], value, 0.5),
    "probability": lambda value: smoothing_radius([value], [0.1], 0.9, 0.5),
    "second probability": lambda value: lipschitz_radius([0.5], [value], 0.9, 0.5),
    "error": lambda value: clopper_pearson([[9, 0]], [[9, 0]], value),
    "noise": lambda value: noisy_counts(
        NET, X, torch.arange(2), sigma=value, samples=1, rng=ExampleRandom(0, "n")
    ),
    "quantiser alpha": lambda value: create_model("robust_model_zoo_1", width=1, alpha=value),
    **{
        name: lambda value, name=name: Constants(**{name: value})
        for name in ("gamma_scale", "gamma_bias", "alpha_scale", "alpha_bias", "std_scale")
    },
}


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf, 0, 2.5, True])
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_whole_numbers_from_1(name, value):
    with pytest.raises(ValueError, match=r"at least|multiple of 8"):
        COUNTS[name](value)


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf])
@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_finite(name, value):
    with pytest.raises(ValueError, match=r"."):
        SIZES[name](value)


def test_what_may_be_infinite_still_may():
    assert Constants(gamma=math.inf).gamma == math.inf
    assert ThreatModel("l2", 3.0, None).high == math.inf
    assert lipschitz_radius([1.0], [0.0], 1.0, 0.5)[0] > 0


@pytest.mark.parametrize("bounds", [(math.nan, 1.0), (0.0, math.nan), (1.0, 1.0)])
def test_ranges_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="low < high"):
        Clipped(*bounds)
