"""An evaluation as a user runs it: in processes of its own, everything in one folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.evaluation_tasks import save_weights
from tests.helpers.study_runs import REPOSITORY, Place, end

# A small network and attacks of some seconds in all: long enough to be killed in the middle.
MANIFEST = """
kind: Evaluation
name: small
seed: 5
factory: tests.helpers.evaluation_tasks:small_net
weights: {weights}
data: {{name: digits, first: {count}}}
threat: {{norm: linf, eps: 0.12}}
suite:
- {{name: weak, attack: pgd, options: {{steps: 1, step_size: 0.05, start: none}}}}
- {{name: pgd, attack: pgd, options: {{steps: {steps}, step_size: 0.05}}}}
- {{name: dlr, attack: pgd, options: {{steps: {steps}, step_size: 0.04, loss: dlr, restarts: 2}}}}
compute_shape: 16
batch_size: 32
shard_size: 10
bundle: 2
resources: {{gpus: 0, cpus: 1, retries: {{backoff_seconds: 0.2}}}}
"""


class EvaluationPlace(Place):
    """A folder with a manifest of kind Evaluation."""

    def __init__(self, folder: Path, *, steps: int = 4, count: int = 60) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = save_weights(folder / "weights")
        super().__init__(folder, MANIFEST.format(weights=weights, steps=steps, count=count))

    def start(self, *arguments: str, job: str = "evaluate") -> subprocess.Popen[str]:
        """Start the job on the manifest."""
        return super().start(*arguments, job=job)

    @property
    def evaluation(self) -> Path:
        """The evaluation's folder in the store."""
        (folder,) = (self.folder / "store/evaluations").iterdir()
        return folder

    def canonical(self) -> dict[str, bytes]:
        """Return the canonical files."""
        names = ("result.json", "table.csv", "table.parquet", "examples.png", "model_info.json")
        return {name: (self.evaluation / "report" / name).read_bytes() for name in names}

    def provenances(self) -> list[dict]:
        """Return where and when each committed unit was computed."""
        paths = sorted(self.folder.glob("store/units/*/*/provenance.json"))
        return [json.loads(path.read_text()) for path in paths]

    def records(self) -> list[Path]:
        """Return the records of committed units."""
        return sorted(self.folder.glob("store/units/*/*/record.json"))


def robustray(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run ``robustray`` in a folder; return its exit code and what it printed."""
    command = [sys.executable, "-m", "robustray.cli", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        end(process)
    return process.returncode, output


__all__: Sequence[str] = ("REPOSITORY", "EvaluationPlace", "robustray")
