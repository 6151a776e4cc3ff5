"""Running a manifest of any kind: for the command line, and for notebooks as `robustray.run`."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from robustray.kinds import find_kind
from robustray.manifest import (
    Manifest,
    build_manifest,
    dump_manifest,
    load_manifest,
    pin_code,
    study_id,
)
from robustray.manifest.packaged import resolve_path
from robustray.runtime.commands import Ended, Request
from robustray.runtime.signals import keeping_handlers
from robustray.store import ObjectStore, open_store

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_ROWS = 20
_UNSHOWN = ["weights_sha256", "seed"]  # for records, not for the eye


@dataclass(frozen=True, repr=False)
class Outcome:
    """What came of a run.

    Attributes
    ----------
    id : str
        The job's id: its name and hash. The same manifest has the same id, and continues.
    kind : str
        The manifest's kind ("Sweep").
    status : {"finished", "failed", "interrupted"}
        "failed": parts of it were given up, as ``failed`` says, and the rest is done.
        "interrupted": stopped by hand; the same call continues it.
    failed : dict of str to str
        Why parts were given up, by their names.
    folder : Path or None
        Where the report or the other files are; None while there are none.
    """

    id: str
    kind: str
    status: str
    failed: Mapping[str, str]
    folder: Path | None
    _ended: Ended

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The table: a row for each trial of a study, one row for another job's numbers."""
        import pandas as pd  # takes a while, and only a reader needs it

        return pd.DataFrame({name: list(column) for name, column in self._ended.columns.items()})

    @property
    def best(self) -> pd.Series | None:
        """The finished row that is best under the strongest attack; None while there is none."""
        row = self._ended.best_row
        return None if row is None else self.trials.iloc[row]

    @property
    def page(self) -> Path | None:
        """The HTML report, where the kind writes one."""
        return self._ended.page

    def __repr__(self) -> str:
        return f"<{self._headline}>"

    @property
    def _headline(self) -> str:
        rows = f", {len(self.trials)} trials" if len(self.trials) > 1 else ""
        return f"{self.kind} {self.id}: {self.status}{rows}"

    def _repr_html_(self) -> str:
        """Show the outcome in a notebook: how it ended, the table, and where the report is."""
        table = self.trials.drop(columns=_UNSHOWN, errors="ignore")
        shown = table.to_html(
            index=False, border=0, max_rows=_SHOWN_ROWS, na_rep="", float_format="{:.4g}".format
        )
        failed = "".join(f"<li>{escape(f'{k}: {v}')}</li>" for k, v in self.failed.items())
        return "".join(
            (
                f"<p><b>{escape(self._headline)}</b></p>",
                shown if len(table) else "",
                f"<p>failed:</p><ul>{failed}</ul>" if failed else "",
                f"<p>report: <code>{escape(str(self.page))}</code></p>" if self.page else "",
            )
        )


def run(
    manifest: Manifest | Mapping[str, Any] | str | Path,
    *,
    overrides: Sequence[str] = (),
    store: str | Path | ObjectStore | None = None,
    tracking: str | None = None,
    reports: str | Path = "runs/reports",
    assume_yes: bool = False,
    large: bool = False,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Run a manifest of any kind, or continue it: what ``robustray run`` does, for notebooks.

    Everything is kept in the store: a run that was interrupted, whose process was killed, or that
    was done before, continues where it was. A Ray that is connected already is used and left
    alone; else ``RAY_ADDRESS`` names a cluster, or a local Ray is started and ended.

    Parameters
    ----------
    manifest : Manifest, mapping, str or Path
        A manifest, its fields, or a YAML file. ``manifests/...`` finds those that come with
        robustray, too.
    overrides : sequence of str
        ``"recipe.epochs=2"`` and so on, as ``--set`` takes them.
    store : str, Path or ObjectStore, optional
        A folder or ``s3://bucket/prefix``. Default: $ROBUSTRAY_STORE, else ``./runs/store``.
    tracking : str, optional
        MLflow. Default: $MLFLOW_TRACKING_URI, else ``sqlite:///./runs/mlflow.db``.
    reports : str or Path
        The folder for reports and other files for people.
    assume_yes : bool
        Use CPUs where the manifest asks for GPUs and there is none.
    large : bool
        Allow a study of more than 10,000 trials.
    say : callable
        Takes lines for a person. Progress goes to standard error all the same.

    Returns
    -------
    Outcome
        Its table, the best row, the report. In a main thread, the first Ctrl-C ends the run in
        order, with ``status`` "interrupted"; what the signals did before is put back.

    Raises
    ------
    UserError
        If it can't be run as asked; nothing was started then.
    MachineError
        If a machine or a service failed; the same call continues.
    KeyboardInterrupt
        At the second Ctrl-C.

    Examples
    --------
    >>> outcome = robustray.run("manifests/quickstart.yaml")  # doctest: +SKIP
    >>> outcome.trials.sort_values("cw-40").tail(3)  # doctest: +SKIP
    """
    wanted = pin_code(_read(manifest, overrides, say))
    opened = store if isinstance(store, ObjectStore) else open_store(str(store) if store else None)
    request = Request(
        opened,
        Path(reports).resolve(),
        say,
        assume_yes=assume_yes,
        large=large,
        tracking_uri=tracking,
    )
    with keeping_handlers():
        ended = perform(wanted, request)
    job = ended.id or study_id(wanted)
    return Outcome(job, wanted.kind, ended.status, dict(ended.failed), ended.folder, ended)


def perform(manifest: Manifest, request: Request) -> Ended:
    """Do what is left of a manifest's job, after a look at the cluster.

    Raises
    ------
    UserError
        If it can't be done as asked.
    MachineError
        If a machine or a service failed.
    """
    from robustray.cluster.doctor import preflight  # this loads Ray

    preflight(manifest.needed_data(), request.say)
    return find_kind(manifest.kind).commands.run(manifest, request)


def _read(
    manifest: Manifest | Mapping[str, Any] | str | Path,
    overrides: Sequence[str],
    say: Callable[[str], None],
) -> Manifest:
    if isinstance(manifest, str | Path):
        return load_manifest(resolve_path(manifest, say), overrides)
    if isinstance(manifest, Mapping):
        return build_manifest(copy.deepcopy(dict(manifest)), overrides)
    return build_manifest(yaml.safe_load(dump_manifest(manifest)), overrides)
