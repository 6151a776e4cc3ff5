"""Which models exist: entry points, the papers they are from, and building a model by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import nn

from robustray.errors import ModelError
from robustray.manifest.explaining import check_options
from robustray.registry import MODELS, options_of
from robustray.user_code import call
from robustray.words import suggest

_Build = TypeVar("_Build", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Paper:
    """Where a model comes from."""

    authors: str
    title: str
    venue: str
    arxiv: str


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    Attributes
    ----------
    name, build : str, callable
        The entry point; ``build(num_classes=..., in_channels=..., **options)``.
    paper : Paper or None
        Its source.
    purpose : str
        What it is; only a "classifier" can be trained by a sweep, mixed or evaluated.
    """

    name: str
    build: Callable[..., nn.Module]
    paper: Paper | None = None
    purpose: str = "classifier"

    @property
    def options(self) -> tuple[str, ...]:
        """What may be varied: the named options of ``build``, which fixes the rest."""
        return tuple(options_of(self.build, MODELS.supplied).model_fields)

    @property
    def summary(self) -> str:
        """First line of the entry point's documentation."""
        return (inspect.getdoc(self.build) or "").split("\n")[0]


def register(**record: Any) -> Callable[[_Build], _Build]:
    """Make the decorated function the entry point of the model with the function's name.

    Parameters
    ----------
    **record
        The fields of `Entry`, but for ``name`` and ``build``.
    """

    def add(build: _Build) -> _Build:
        MODELS.add(build.__name__, Entry(name=build.__name__, build=build, **record), build)
        return build

    return add


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern ("rrn_*"), sorted.

    Those of another library are listed only for patterns that begin with its prefix ("timm:vit*").

    Raises
    ------
    ManifestError
        If that library is not installed (a ``ValueError``).
    """
    names, library = MODELS.names(), MODELS.library(pattern)
    if library is not None:
        prefix = pattern.partition(":")[0]
        names = sorted(f"{prefix}:{name}" for name in library.names())
    return [name for name in names if fnmatchcase(name, pattern)]


def find_model(name: str) -> Entry:
    """Return a model's record.

    Parameters
    ----------
    name : str
        One of `list_models`, ``package.module:function`` for a network of one's own, or a name of
        another library behind its prefix ("timm:resnet50").

    Raises
    ------
    ManifestError
        If no model has this name; lists the closest ones (a ``ValueError``).
    """
    found = MODELS.find(name)
    return found if isinstance(found, Entry) else Entry(name, found)


def create_model(
    name: str, *, num_classes: int | None = None, in_channels: int | None = None, **options: Any
) -> nn.Module:
    """Build a model by name, with initial weights drawn from PyTorch's global generator.

    Parameters
    ----------
    name : str
        As in `find_model`.
    num_classes, in_channels : int
        Number of logits, and channels of the image; when not given, the entry's own defaults,
        which are 10 and 3 for classifiers of photographs.
    **options
        What the entry allows (``find_model(name).options``); None means not given.

    Returns
    -------
    nn.Module
        In training mode. Classifiers map images (B, C, H, W) in [0, 1] to logits
        (B, num_classes); networks for another purpose say in their class what they take.
        Within ``torch.device("meta")`` nothing is allocated or drawn.

    Raises
    ------
    UserError
        For an unknown name or a wrong option; says what is allowed (a ``ValueError``).

    Examples
    --------
    >>> model = create_model("preact_resnet", depths=(4, 4, 4), widths=(10, 10, 10))
    """
    entry = find_model(name)
    sizes = {"num_classes": num_classes, "in_channels": in_channels}
    given = {key: value for key, value in {**sizes, **options}.items() if value is not None}
    if MODELS.is_brought(name):
        return _build_brought(entry, given)
    allowed = ("num_classes", "in_channels", *entry.options)
    for option in given:
        if option not in allowed:
            hint = suggest(option, allowed) or "."
            raise ModelError(
                f"{name} does not take the option {option!r}{hint} Allowed: {', '.join(allowed)}"
            )
    return entry.build(**given)


def _build_brought(entry: Entry, given: dict[str, Any]) -> nn.Module:
    """Build a network by a user's function, which may do anything."""
    check_options(options_of(entry.build), given, "arguments")
    built = call(entry.name, entry.build, given)
    if not isinstance(built, nn.Module):
        raise ModelError(f"{entry.name} returns a {type(built).__name__}, not a torch.nn.Module")
    return built


REVISITING = Paper(
    "Shihua Huang, Zhichao Lu, Kalyanmoy Deb, Vishnu Naresh Boddeti",
    "Revisiting Residual Networks for Adversarial Robustness: An Architectural Perspective",
    "CVPR 2023",
    "2212.11005",
)
WIDE_RESNETS = Paper(
    "Sergey Zagoruyko, Nikos Komodakis", "Wide Residual Networks", "BMVC 2016", "1605.07146"
)
INGREDIENTS = Paper(
    "Hanxun Huang, Yisen Wang, Sarah Erfani, Quanquan Gu, James Bailey, Xingjun Ma",
    "Exploring Architectural Ingredients of Adversarially Robust Deep Neural Networks",
    "NeurIPS 2021",
    "2110.03825",
)
ROBNET = Paper(
    "Minghao Guo, Yuzhe Yang, Rui Xu, Ziwei Liu, Dahua Lin",
    "When NAS Meets Robustness: In Search of Robust Architectures against Adversarial Attacks",
    "CVPR 2020",
    "1911.10695",
)
ADVRUSH = Paper(
    "Jisoo Mok, Byunggook Na, Hyeokjun Choe, Sungroh Yoon",
    "AdvRush: Searching for Adversarially Robust Neural Architectures",
    "ICCV 2021",
    "2108.01289",
)
RACL = Paper(
    "Minjing Dong, Yanxi Li, Yunhe Wang, Chang Xu",
    "Adversarially Robust Neural Architectures",
    "arXiv 2020",
    "2009.00902",
)
BIT = Paper(
    "Alexander Kolesnikov, Lucas Beyer, Xiaohua Zhai, Joan Puigcerver, Jessica Yung, "
    "Sylvain Gelly, Neil Houlsby",
    "Big Transfer (BiT): General Visual Representation Learning",
    "ECCV 2020",
    "1912.11370",
)
UNCOVERING = Paper(
    "Sven Gowal, Chongli Qin, Jonathan Uesato, Timothy Mann, Pushmeet Kohli",
    "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples",
    "arXiv 2020",
    "2010.03593",
)
TRADES = Paper(
    "Hongyang Zhang, Yaodong Yu, Jiantao Jiao, Eric P. Xing, Laurent El Ghaoui, Michael I. Jordan",
    "Theoretically Principled Trade-off between Robustness and Accuracy",
    "ICML 2019",
    "1901.08573",
)
RESNETS = Paper(
    "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    "Deep Residual Learning for Image Recognition",
    "CVPR 2016",
    "1512.03385",
)
DIRECTIONS = Paper(
    authors="Ricardo Bigolin Lanfredi, Joyce D. Schroeder, Tolga Tasdizen",
    title="Quantifying the Preferential Direction of the Model Gradient in Adversarial Training "
    "With Projected Gradient Descent",
    venue="Pattern Recognition 139, 2023",
    arxiv="2009.04709",
)
REGRESSION_GAN = Paper(
    "Ricardo Bigolin Lanfredi, Joyce D. Schroeder, Clement Vachet, Tolga Tasdizen",
    "Adversarial Regression Training for Visualizing the Progression of Chronic Obstructive "
    "Pulmonary Disease with Chest X-Rays",
    "MICCAI 2019",
    "1908.10468",
)
MULTI_HINGE = Paper(
    "Ilya Kavalerov, Wojciech Czaja, Rama Chellappa",
    "A Multi-Class Hinge Loss for Conditional GANs",
    "WACV 2021",
    "1912.04216",
)
ADAPTIVE_SMOOTHING = Paper(
    "Bai, Anderson, Kim, Sojoudi",
    "Improving the accuracy-robustness trade-off of classifiers via adaptive smoothing",
    "SIMODS 2024",
    "2301.12554",
)
SMOOTHING = Paper(
    "Cohen, Rosenfeld, Kolter",
    "Certified adversarial robustness via randomized smoothing",
    "ICML 2019",
    "1902.02918",
)
