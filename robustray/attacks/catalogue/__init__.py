"""The attacks and the suites that have a name: every module registers its own when imported."""

from robustray.attacks.catalogue import (
    apgd,
    apgd_adaptive,
    carlini_wagner,
    ddn,
    deepfool,
    fab,
    fmn,
    pgd,
    square,
    stadv,
)

# isort: split
from robustray.attacks.catalogue import suites  # of the attacks above

__all__ = [
    "apgd",
    "apgd_adaptive",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "fab",
    "fmn",
    "pgd",
    "square",
    "stadv",
    "suites",
]
