"""Where runs are shown: MLflow always, TensorBoard and wandb where a manifest names a folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Self

from robustray.errors import UserError
from robustray.manifest import Tracking
from robustray.tracking.faults import resolve_uri
from robustray.tracking.mlflow_sink import MlflowSink
from robustray.tracking.sink import Sink
from robustray.tracking.uploader import RecordMaker, Uploader

# The fields of a manifest's section ``tracking`` that name a sink, and the package of each.
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
# How long the end of a run waits for a sink, and for one that did not answer when it was asked.
PATIENCE_S = 120.0
PATIENCE_WHEN_AWAY_S = 15.0


def check_sinks(uri: str, tracking: Tracking) -> None:
    """Refuse an address that is none of MLflow's, and a sink whose package is not here.

    Raises
    ------
    UserError
        Before anything has started.
    """
    resolve_uri(uri)
    for field, package in _PACKAGES.items():
        if getattr(tracking, field) is not None and find_spec(package) is None:
            raise UserError(
                f"tracking.{field}: the package {package} is not installed here; install it by "
                f"pip install 'robustray[{field}]', or leave tracking.{field} out"
            )


def make_sinks(uri: str, tracking: Tracking) -> list[Sink]:
    """Return what shows runs: MLflow, and what the manifest names beside it."""
    sinks: list[Sink] = [MlflowSink(uri)]
    if tracking.tensorboard is not None:
        from robustray.tracking.tensorboard_sink import TensorboardSink

        sinks.append(TensorboardSink(tracking.tensorboard))
    if tracking.wandb is not None:
        from robustray.tracking.wandb_sink import WandbSink

        sinks.append(WandbSink(tracking.wandb))
    return sinks


class Uploaders:
    """One uploader for each sink, so that none waits for another.

    Parameters
    ----------
    sinks : list of Sink
        What records are brought to.
    log, allowed
        As in `Uploader`.
    """

    def __init__(
        self, sinks: list[Sink], *, log: Callable[[str], None], allowed: Callable[[], bool]
    ) -> None:
        self._all = [Uploader(sink, log=log, allowed=allowed) for sink in sinks]
        self._patience = {uploader.name: PATIENCE_S for uploader in self._all}

    def submit(self, key: str, make_record: RecordMaker) -> None:
        """Have the record of a run brought to each sink; see `Uploader.submit`."""
        for uploader in self._all:
            uploader.submit(key, make_record)

    def check(self) -> dict[str, str]:
        """Return what is wrong with each sink that does not answer, by its name."""
        answers = {uploader.name: uploader.check() for uploader in self._all}
        problems = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
        self._patience |= dict.fromkeys(problems, PATIENCE_WHEN_AWAY_S)
        return problems

    def drain(self, limit_s: float = math.inf) -> dict[str, list[str]]:
        """Wait for each sink as long as there is hope for it, at most ``limit_s`` seconds.

        Returns
        -------
        dict of str to list of str
            By the name of each sink that lacks something: the keys whose newest record it lacks.
        """
        begun = time.monotonic()
        for uploader in self._all:
            uploader.hurry()
        missing: dict[str, list[str]] = {}
        for uploader in self._all:  # they work at the same time, so each has all of its time
            end = begun + min(limit_s, self._patience[uploader.name])
            missing[uploader.name] = uploader.drain(max(0.0, end - time.monotonic()))
        return {name: keys for name, keys in missing.items() if keys}

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop; see `Uploader.close`."""
        for uploader in self._all:
            uploader.close(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
