"""What the command line does about the published study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustray.scaling.job.paper import publish_paper
from robustray.store import ObjectStore
from robustray.sweeps.records import list_studies, load_study

Say = Callable[[str], None]


def paper(
    names: Sequence[str], store: ObjectStore, report_root: Path, tracking_uri: str, say: Say
) -> None:
    """Write the published study's tables and figures from some studies, or from all."""
    studies = [load_study(store, name) for name in names or list_studies(store)]
    written = publish_paper(studies, store, report_root, tracking_uri, say)
    say(f"measured     {written.measured} of {written.accuracies} accuracies of the tables")
    say(f"report       {written.folder / 'paper.html'}")
