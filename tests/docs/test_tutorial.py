"""The commands of the documents that have a mark are executed, page by page as a reader would."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from robustray.cli import main
from tests.docs.blocks import PAGES, REPOSITORY, Block, read_blocks, read_commands
from tests.helpers.study_runs import end, fresh_database, wait_for

TUTORIAL = ["first_sweep", "reading_a_page", "judging", "resuming"]
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
QUICK = [block for block in BLOCKS if block.is_run and not block.is_slow]
PLACES = ("ROBUSTRAY_STORE", "ROBUSTRAY_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader sits, as on a laptop where nothing is set up, with the files of the pages."""
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text)
    return tmp_path


def test_the_tutorial_has_all_blocks_that_take_long():
    pages = {block.page.stem for block in BLOCKS if block.is_slow}
    assert pages <= set(TUTORIAL)
    names = [block.file for block in BLOCKS if block.file is not None]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("block", QUICK, ids=lambda block: block.where)
def test_quick_blocks(block, folder):
    execute(block)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial(folder, local_ray):
    """One folder for all of it: what a page has made, the next one uses."""
    (folder / "runs").mkdir()
    shutil.copyfile(fresh_database(), folder / "runs/mlflow.db")
    for name in TUTORIAL:
        for block in read_blocks(REPOSITORY / f"docs/tutorial/{name}.md"):
            if block.is_run and block.is_slow:
                execute(block)
    loaded = runpy.run_path("load.py")
    tables = sorted(folder.glob("runs/reports/*/table.csv"))
    first, stopped = (
        path for path in tables if path.parent.name.startswith(("first-", "stopped-"))
    )
    undisturbed, resumed = pd.read_csv(first), pd.read_csv(stopped)
    assert undisturbed[resumed.columns].equals(resumed)  # the first was judged once more
    assert len(resumed) == 4
    best = undisturbed.sort_values("pgd-20").iloc[-1]
    assert loaded["accuracy"] == pytest.approx(best["clean"], abs=0.01)


def execute(block: Block) -> None:
    """Execute a block's commands, which are robustray's, in the folder of the process."""
    for program, *arguments in read_commands(block.text):
        assert program == "robustray", block.where
        ended = stop(arguments) if block.is_stopped else main(arguments)
        assert ended == block.exit_code, f"{block.where}: {' '.join(arguments)}"


def stop(arguments: list[str]) -> int:
    """Start a command, and send Ctrl-C when its first epoch is committed."""
    before = set(Path().glob("runs/store/studies/*/trials/*/checkpoints/*/record.json"))

    def committed() -> bool:
        found = set(Path().glob("runs/store/studies/*/trials/*/checkpoints/*/record.json"))
        return bool(found - before)

    process = subprocess.Popen(
        [sys.executable, "-m", "robustray.cli", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(committed, what="for a committed epoch")
        process.send_signal(signal.SIGINT)
        return process.wait(120)
    finally:
        end(process)
