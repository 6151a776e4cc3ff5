"""Mixed classifiers: an accurate and a robust network, mixed in probability space.

Bai, Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers via
adaptive smoothing" (2024), Eq. 5.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustray.errors import ModelError

_NOTHING = 1e-6  # such as 1 - 0.04 - 0.96, in the single precision of files
_CLAMP = 0.6  # of the mixing output, in standard deviations, while it is trained


class Base(Protocol):
    """What a base network offers."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits."""
        ...

    def forward_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return logits and two features."""
        ...


@dataclass(frozen=True)
class Constants:
    """The seven numbers of a mixture.

    Attributes
    ----------
    gamma : float
        Logit of the robust network's weight where there is no mixing network; -inf is the
        accurate network alone, inf the robust one alone.
    gamma_scale, gamma_bias : float
        Of the normalised mixing output.
    alpha_scale, alpha_bias : float
        The range of the weight alpha in evaluation: alpha_scale * sigmoid(gamma) + alpha_bias.
    std_scale, rob_scale : float
        Factors of both networks' logits: inverse temperatures.

    Raises
    ------
    ModelError
        If alpha could leave [0, 1], a factor is not positive, or a number but gamma is not finite
        (a ``ValueError``).
    """

    gamma: float = -math.inf
    gamma_scale: float = 1.0
    gamma_bias: float = 0.0
    alpha_scale: float = 1.0
    alpha_bias: float = 0.0
    std_scale: float = 1.0
    rob_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if math.isnan(value) or (name != "gamma" and math.isinf(value)):
                raise ModelError(f"{name} is a finite number, not {value!r}")
        if self.alpha_bias < 0 or self.alpha_scale < 0:
            raise ModelError("alpha_scale and alpha_bias are at least 0")
        if self.alpha_scale + self.alpha_bias > 1 + _NOTHING:
            raise ModelError("alpha_scale + alpha_bias is at most 1")
        if min(self.std_scale, self.rob_scale) <= 0:
            raise ModelError("std_scale and rob_scale are positive")


# Behind the published numbers; "yaml" are what the configuration files come to, whose scales of
# logits have no effect.
PUBLISHED: dict[str, Constants] = {
    "cifar100-edm": Constants(2.5, 2, 1.3, 0.15, 0.84, 2, 1),
    "cifar100-trades": Constants(2.0, 2, 1.0, 0.10, 0.815, 2, 1),
    "cifar10-edm": Constants(3.0, 2, 1.05, 0.04, 0.96, 1.2, 0.3),
    "cifar100-edm-yaml": Constants(2.5, 2, 1.3, 0.15, 0.84, 1, 1),
    "cifar100-trades-yaml": Constants(1.75, 2, 1.0, 0.10, 0.815, 1, 1),
    "cifar10-edm-yaml": Constants(2.5, 2, 1.3, 0.15, 0.84, 1, 1),
}


class Answers(NamedTuple):
    """What both bases say: logits (B, K) each, and two features each."""

    accurate_BK: Tensor
    robust_BK: Tensor
    accurate_features: tuple[Tensor, Tensor]
    robust_features: tuple[Tensor, Tensor]


class Composite(nn.Module):
    """log((1 - alpha) softmax(std_scale z_g) + alpha softmax(rob_scale z_h)).

    Only the mixing network and the normalisation of its output are ever trained or change their
    mode; the bases stay frozen, in evaluation mode.

    Parameters
    ----------
    accurate, robust : nn.Module
        The bases g and h: images in [0, 1] to logits, with ``forward_features``.
    mixing : nn.Module, optional
        Features of both to (B, 1); without it the weight is sigmoid(constants.gamma).
    constants : Constants
        See there.
    policy_graph : bool
        Whether input gradients go through the mixing network's features too.
    resize : int, optional
        The accurate base gets images of this size (bilinear), such as 128 for BiT.
    """

    def __init__(
        self,
        accurate: nn.Module,
        robust: nn.Module,
        mixing: nn.Module | None = None,
        *,
        constants: Constants | None = None,
        policy_graph: bool = True,
        resize: int | None = None,
    ) -> None:
        super().__init__()
        for field in fields(Constants):
            self.register_parameter(field.name, nn.Parameter(torch.empty(()), requires_grad=False))
        self.models = nn.ModuleList([accurate, robust]).requires_grad_(False).eval()
        self.policy_net = mixing
        self.bn = nn.BatchNorm1d(1, affine=False, momentum=0.01)
        self.policy_graph, self.resize = policy_graph, resize
        self.scale_alpha: bool | None = None
        self.constants = constants or Constants()
        self.register_load_state_dict_post_hook(_read_constants)

    @property
    def constants(self) -> Constants:
        """The seven numbers; they are saved and loaded with the weights."""
        return self._constants

    @constants.setter
    def constants(self, constants: Constants) -> None:
        self._constants = constants
        with torch.no_grad():
            for name, value in asdict(constants).items():
                self.get_parameter(name).fill_(value)

    def with_constants(self, **changes: float) -> Self:
        """Change some constants, in place."""
        self.constants = replace(self.constants, **changes)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the mixing network and of its output's normalisation."""
        self.training = mode
        for part in (self.policy_net, self.bn):
            if part is not None:
                part.train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (B, K) of images in [0, 1]."""
        return self.forward_with_gamma(x)[0]

    def forward_with_gamma(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (B, K), and gamma (B,) before the weight's range is set."""
        single = self._single()
        if single is not None:
            base, scale, gamma = single
            inner = self._resized(x) if base == 0 else x
            logits_BK = scale * self.models[base](inner)
            return F.log_softmax(logits_BK.float(), 1), logits_BK.new_full((len(x),), gamma)
        return self.mix(self.ask(x))

    def ask(self, x: Tensor) -> Answers:
        """Ask both bases; they need no gradient where the images need none."""
        accurate_BK, accurate = self._base(0).forward_features(self._resized(x))
        robust_BK, robust = self._base(1).forward_features(x)
        return Answers(accurate_BK, robust_BK, accurate, robust)

    def mix(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """Mix what both bases said: log-probabilities (B, K) and gamma (B,)."""
        gamma_B = self._gamma(answers)
        accurate_BK = F.log_softmax(self.constants.std_scale * answers.accurate_BK.float(), 1)
        robust_BK = F.log_softmax(self.constants.rob_scale * answers.robust_BK.float(), 1)
        log_keep_B, log_alpha_B = self._log_weights(gamma_B)
        # Sums of exponentials of logarithms: nothing overflows or underflows to log 0.
        mixed_BK = torch.logaddexp(
            log_keep_B[:, None] + accurate_BK, log_alpha_B[:, None] + robust_BK
        )
        return mixed_BK, gamma_B

    def alpha(self, gamma_B: Tensor) -> Tensor:
        """Return the robust network's weight (B,) for values of gamma."""
        return self._log_weights(gamma_B)[1].exp()

    def _log_weights(self, gamma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return log(1 - alpha) and log(alpha), with finite gradients however large gamma is."""
        gamma_B = gamma_B.float()
        scaled = (not self.training) if self.scale_alpha is None else self.scale_alpha
        if self.policy_net is None or not scaled:
            return F.logsigmoid(-gamma_B), F.logsigmoid(gamma_B)
        scale, bias = self.constants.alpha_scale, self.constants.alpha_bias
        return (
            _log_sum(1 - scale - bias, scale, F.logsigmoid(-gamma_B)),
            _log_sum(bias, scale, F.logsigmoid(gamma_B)),
        )

    def _gamma(self, answers: Answers) -> Tensor:
        rows = len(answers.accurate_BK)
        if self.policy_net is None:
            return answers.accurate_BK.new_full((rows,), self.constants.gamma)
        if self.constants.alpha_scale == 0:
            bias = self.constants.alpha_bias
            return answers.accurate_BK.new_full((rows,), math.log(bias / (1 - bias)))
        features = [answers.accurate_features, answers.robust_features]
        if not self.policy_graph:
            features = [(a.detach(), b.detach()) for a, b in features]
        mixed_B1 = self.policy_net(*features).float()
        if self.training and rows > 1:
            mean, std = mixed_B1.detach().mean(), mixed_B1.detach().std()
            mixed_B1 = mixed_B1.clamp(mean - _CLAMP * std, mean + _CLAMP * std)
        scaled = self.bn(mixed_B1) * self.constants.gamma_scale + self.constants.gamma_bias
        return scaled[:, 0]

    def _single(self) -> tuple[int, float, float] | None:
        """Return which base answers alone, its scale and gamma, or None."""
        constants = self.constants
        alone = constants.gamma if self.policy_net is None else 0.0
        if alone == -math.inf or (constants.alpha_scale == constants.alpha_bias == 0):
            return 0, constants.std_scale, -math.inf
        if alone == math.inf or constants.alpha_bias == 1:
            return 1, constants.rob_scale, math.inf
        return None

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize is None:
            return x
        size = (self.resize, self.resize)
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    def _base(self, number: int) -> Base:
        base: Any = self.models[number]
        if not hasattr(base, "forward_features"):
            which = ("accurate", "robust")[number]
            raise ModelError(f"the {which} base has no forward_features: it can't be mixed")
        return cast(Base, base)


def _read_constants(composite: nn.Module, _: Any) -> None:
    """Take over the constants that were just loaded."""
    assert isinstance(composite, Composite)
    names = [field.name for field in fields(Constants)]
    if not composite.gamma.is_meta:  # type: ignore[union-attr]
        found = {name: float(composite.get_parameter(name)) for name in names}
        composite._constants = Constants(**found)


def _log_sum(constant: float, scale: float, log_B: Tensor) -> Tensor:
    """Return log(constant + scale exp(log_B)); what is zero up to rounding is left out."""
    if scale <= _NOTHING:
        return torch.full_like(log_B, math.log(constant))
    moving = math.log(scale) + log_B
    if constant <= _NOTHING:
        return moving
    return torch.logaddexp(moving, torch.full_like(log_B, math.log(constant)))
