"""What people have: tables that small jobs gave, and a store that version 0.1 left half-way.

Both are the same four jobs, of `tests/pinned/*.yaml`. Numbers with a decimal point may differ by a
hundredth, one in fifty or a single one by an image, and digests of weights altogether: they depend
on the processor. All else is as it was, to the letter. Where a table has to change, write it anew:

    python -m tests.test_old_stores
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest

from robustray.cli import main
from robustray.store import LocalStore, read_sealed
from tests.helpers.study_runs import fresh_database
from tests.test_store_page import keys_of, undescribed

PINNED = Path(__file__).parent / "pinned"
TABLES = PINNED / "tables.json"
JOBS = ("study", "evaluation", "mixing", "alignment")
NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+(?:e[+-]\d+)?|e[+-]\d+))(?![\w.])")
RESUMED = {
    "study": {"d1-1-1_w0.25-0.125-0.25": [1]},
    "mixing": {"pinned-mixing-bac49b1333": [2]},
    "alignment": {"pinned-alignment-cd4a31b4df": [1]},
}
ONE_IMAGE = 1 / 8  # of the smallest of the test sets
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


class Place:
    """A folder with a store of its own, in which commands run in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        shutil.copyfile(fresh_database(), folder / "mlflow.db")
        shutil.copy(PINNED / "net.safetensors", folder)

    def run(self, job: str, command: str = "run") -> None:
        """Run a job to its end, or write its report again, as a user does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("ROBUSTRAY_STORE", str(self.store))
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{self.folder}/mlflow.db")
            assert main([command, "--manifest", str(PINNED / f"{job}.yaml")]) == 0

    def tables(self) -> dict[str, str]:
        """Return the canonical tables and results, by where they lie; digests left out."""
        found: list[Path] = []
        for report in self.folder.glob("runs/reports/*"):
            found += [*report.glob("*.csv"), *report.glob("result.json")]
            found += self.store.glob(f"studies/{report.name}/trials/*/result.json")
        kept = sorted(path for path in found if path.name != "provenance.csv")
        return {
            str(path.relative_to(self.folder)): DIGEST.sub("<sha256>", path.read_text())
            for path in kept
        }


def assert_same(tables: dict[str, str], pinned: dict[str, str]) -> None:
    """Compare texts to the letter, and the numbers in them as numbers."""
    assert tables.keys() == pinned.keys()
    for name, text in pinned.items():
        found, wanted = NUMBER.split(tables[name]), NUMBER.split(text)
        assert found[::2] == wanted[::2], name
        assert_close(list(map(float, found[1::2])), list(map(float, wanted[1::2])), name)


def assert_close(found: list[float], wanted: list[float], name: str) -> None:
    """Compare numbers; another processor may class a borderline image of the few differently."""
    flipped = [
        (place, one, other)
        for place, (one, other) in enumerate(zip(found, wanted, strict=True))
        if one != pytest.approx(other, rel=0.01, abs=0.005)
    ]
    assert len(flipped) <= max(1, len(wanted) // 50), (name, flipped)
    assert all(abs(one - other) <= ONE_IMAGE for _, one, other in flipped), (name, flipped)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(600)
def test_small_jobs_give_the_tables_that_they_gave(tmp_path, job):
    place = Place(tmp_path)
    place.run(job)
    assert_same(place.tables(), json.loads(TABLES.read_text())[job])
    shutil.rmtree(tmp_path / "runs/reports")
    place.run(job, "report")
    assert_same(place.tables(), json.loads(TABLES.read_text())[job])
    if job in ("mixing", "alignment"):
        (page,) = (tmp_path / "runs/reports").glob("*/report.html")
        assert 'class="answer"' in page.read_text()
    assert undescribed(keys_of(place.store)) == []


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(600)
def test_a_store_that_was_left_half_way_is_continued(tmp_path, capsys, job):
    place = Place(tmp_path)
    with tarfile.open(PINNED / "store-0.1.tar.gz") as archive:
        archive.extractall(place.store, filter="data")
    left = {path: path.read_bytes() for path in place.store.rglob("*") if is_commit(path)}
    place.run(job)
    assert_same(place.tables(), json.loads(TABLES.read_text())[job])
    assert {path: path.read_bytes() for path in left} == left
    if job == "evaluation":
        assert "computed     7 units" in capsys.readouterr().out  # of 12
    else:
        assert resumed_after(place.store) == RESUMED[job]


def is_commit(path: Path) -> bool:
    """Tell whether a file says that something is done: a result, or the record of a unit."""
    return path.name == "result.json" or (path.name == "record.json" and "units" in path.parts)


def resumed_after(store: Path) -> dict[str, list[int]]:
    """Return after which committed steps trials and jobs went on, by their names."""
    found: dict[str, list[int]] = {}
    for path in sorted(store.glob("**/checkpoints/*/record.json")):
        journal = read_sealed(LocalStore(path.parent), path.name).content["info"]["journal"]
        steps = [event["epoch"] for event in journal if event["event"] == "resumed"]
        if steps:
            found.setdefault(path.parents[2].name, []).extend(steps)
    return found


def write_tables() -> None:
    """Run all jobs from their beginning, and pin what they give."""
    tables = {}
    for job in JOBS:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder))
            place.run(job)
            tables[job] = place.tables()
    TABLES.write_text(json.dumps(tables, indent=1) + "\n")


if __name__ == "__main__":
    write_tables()
