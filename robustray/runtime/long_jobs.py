"""What the command line does with a job of any kind: run it, and say how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from robustray.manifest import Manifest
from robustray.pipelines.run import run_job
from robustray.pipelines.work import Product
from robustray.runtime.job import Context
from robustray.store import ObjectStore
from robustray.tracking import default_tracking_uri, ui_command

Say = Callable[[str], None]


def carry_out(
    manifest: Manifest,
    kind: str,
    work: Callable[[Context], Product],
    store: ObjectStore,
    report_root: Path,
    *,
    steps: int,
    coordinates: bool = False,
    yes: bool,
    say: Say,
    describe: Callable[[Mapping[str, float]], str],
) -> tuple[bool, bool]:
    """Run a job and print what it found.

    Parameters
    ----------
    manifest, kind, work, store, report_root, steps, coordinates, say
        As in `robustray.pipelines.run.run_job`.
    yes : bool
        Work on a CPU what asks for a GPU, where there is none.
    describe : callable
        From the result's metrics to text.

    Returns
    -------
    bool, bool
        Whether it is finished; whether it was stopped by hand.
    """
    uri, root = default_tracking_uri(), os.environ.get("ROBUSTRAY_DATA")
    done = run_job(
        manifest,
        kind,
        work,
        store,
        uri,
        report_root,
        steps=steps,
        coordinates=coordinates,
        data_folder=Path(root) if root else None,
        assume_yes=yes,
        say=say,
    )
    if done.result is not None:
        say(f"\n{describe(done.result['metrics'])}")
        say(f"\nfiles        {done.folder}")
    if done.failure:
        say(f"failed: {done.failure}")
    if done.untracked:
        say("MLflow       the run is not there yet; nothing is lost: run the same command again")
    say(f"MLflow UI    {ui_command(uri)}")
    return done.result is not None, done.interrupted
