"""From accuracies by corruption and severity to the benchmark's numbers.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations" (ICLR 2019), section 4. With the error E of a network under corruption c at severity
s, and that of a baseline,

    CE_c = sum_s E_cs / sum_s E_cs(baseline)
    relative CE_c = sum_s (E_cs - E_clean) / sum_s (E_cs - E_clean)(baseline)

and mCE and relative mCE are their means over corruptions. Without a baseline the denominators are
the number of severities, so that mCE is the mean error: what is reported for CIFAR-10-C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustray.manifest.corruptions import BENCHMARK

# Means over the five severities of ImageNet-C, as the authors publish them with their code, and the
# clean error of their table 1.
_ALEXNET_ERRORS = (
    0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572,
    0.819324, 0.564592, 0.853204, 0.646056, 0.717840, 0.606500,
)  # fmt: skip


@dataclass(frozen=True)
class Errors:
    """Errors of a network in [0, 1].

    Attributes
    ----------
    by_corruption : mapping of str to float
        Mean over the severities.
    clean : float or None
        On images without corruption; None where it is not known.
    """

    by_corruption: Mapping[str, float]
    clean: float | None = None


ALEXNET_ERRORS = Errors(dict(zip(BENCHMARK, _ALEXNET_ERRORS, strict=True)), 0.435)


@dataclass(frozen=True)
class Scores:
    """What a network's errors come to.

    Attributes
    ----------
    mean_accuracy : float
        In [0, 1], over the corruptions that are averaged, and their severities.
    mce : float or None
        Mean corruption error: 1 is the baseline's; without a baseline the mean error. None where
        the baseline makes no error under some corruption.
    relative_mce : float or None
        The same of how much the errors exceed the clean one. None where a clean error is not
        known, or a corruption does not raise the baseline's.
    ce, relative_ce : mapping of str to float or None
        By corruption: also of those that are not averaged, where the baseline has them.
    """

    mean_accuracy: float
    mce: float | None
    relative_mce: float | None
    ce: Mapping[str, float | None]
    relative_ce: Mapping[str, float | None]


def score(errors: Errors, averaged: Sequence[str], baseline: Errors | None = None) -> Scores:
    """Return the numbers of the benchmark.

    Parameters
    ----------
    errors : Errors
        Of the network.
    averaged : sequence of str
        Which corruptions means are over; at least one.
    baseline : Errors, optional
        Of the network by which errors are divided.
    """
    ce = {name: _divide(error, _of(baseline, name)) for name, error in errors.by_corruption.items()}
    relative = {
        name: _divide(_excess(errors, name), _excess(baseline, name) if baseline else 1.0)
        for name in errors.by_corruption
    }
    return Scores(
        mean_accuracy=1 - sum(errors.by_corruption[name] for name in averaged) / len(averaged),
        mce=_mean([ce[name] for name in averaged]),
        relative_mce=_mean([relative[name] for name in averaged]),
        ce=ce,
        relative_ce=relative,
    )


def _of(baseline: Errors | None, name: str) -> float | None:
    return 1.0 if baseline is None else baseline.by_corruption.get(name)


def _excess(errors: Errors, name: str) -> float | None:
    """Return how much more often images are misclassified than without corruption."""
    found = errors.by_corruption.get(name)
    return None if found is None or errors.clean is None else found - errors.clean


def _divide(error: float | None, by: float | None) -> float | None:
    return None if error is None or by is None or by <= 0 else error / by


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
