"""Where runs are shown: MLflow always, TensorBoard and wandb where a manifest names a folder."""

from __future__ import annotations

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

    def submit(self, key: str, make_record: RecordMaker) -> None:
        """Have the record of a run brought to each sink; see `Uploader.submit`."""
        for uploader in self._all:
            uploader.submit(key, make_record)

    def check(self) -> dict[str, str]:
        """Return what is wrong with each sink that does not answer, by its name."""
        answers = {uploader.name: uploader.check() for uploader in self._all}
        return {title: answer for title, answer in answers.items() if isinstance(answer, str)}

    def drain(self, timeout_s: float) -> list[str]:
        """Return the keys whose newest record is not everywhere after some seconds."""
        end = time.monotonic() + timeout_s
        missing: list[str] = []
        for uploader in self._all:
            missing += uploader.drain(max(0.0, end - time.monotonic()))
        return list(dict.fromkeys(missing))

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop; see `Uploader.close`."""
        for uploader in self._all:
            uploader.close(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
