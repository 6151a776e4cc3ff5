"""The notebooks of the documentation, run from top to bottom as a reader would."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.interrupting_kind import COUNTING
from tests.helpers.study_runs import REPOSITORY, fresh_database

NOTEBOOKS = sorted((REPOSITORY / "docs/notebooks").glob("*.ipynb"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a notebook runs, as on a laptop where nothing is set up."""
    for name in ("ROBUSTRAY_STORE", "ROBUSTRAY_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    path = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def put_database(folder: Path) -> None:
    """Put an empty database where MLflow's is by default; to make one takes long."""
    (folder / "runs").mkdir()
    shutil.copyfile(fresh_database(), folder / "runs/mlflow.db")


def execute(notebook: Any, folder: Path) -> dict[str, Any]:
    """Run a notebook or a file; return what cells show, by the last lines of their code."""
    if isinstance(notebook, Path):
        notebook = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=280, kernel_name="python3", resources=resources).execute()
    return {
        cell.source.splitlines()[-1]: output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_what_they_show(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert path.name in (REPOSITORY / "docs/guides/python.md").read_text()


def test_the_notebook_on_attacks(folder):
    shown = execute(REPOSITORY / "docs/notebooks/attack.ipynb", folder)
    judged = shown["judged"]["text/plain"]
    clean, robust = map(float, re.findall(r"_accuracy=([\d.]+)", judged))
    assert 0.6 < robust < clean < 1
    assert len(judged) < 300  # no tensors
    (table,) = (data["text/plain"] for line, data in shown.items() if line == ").T")
    assert "cw-40" in table
    assert any("image/png" in data for data in shown.values())
    assert not any(folder.glob("runs"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_notebook_on_sweeps(folder):
    put_database(folder)
    shown = execute(REPOSITORY / "docs/notebooks/sweep.ipynb", folder)
    assert "finished, 3 trials" in shown["outcome"]["text/plain"]
    assert "<table" in shown["outcome"]["text/html"]
    assert "d1-1-1_w0.25-0.25-0.5" in shown["outcome"]["text/html"]
    assert "pgd-20" in shown["outcome.best"]["text/plain"]
    (same,) = (data for line, data in shown.items() if line.startswith("again.id"))
    assert same["text/plain"] == "(True, True)"
    assert len(list((folder / "runs/reports").glob("notebook-*/report.html"))) == 1


INTERRUPTED = """
import os
import robustray
wanted = {"kind": "counts:KIND", "name": "x", "resources": {"gpus": 0}}
first = robustray.run(wanted | {"interrupts": -os.getpgid(0)})
first"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kernel_that_is_interrupted_stops_in_order_and_goes_on(folder):
    """As Jupyter does it: the signal goes to all processes of the kernel's group."""
    (folder / "counts.py").write_text(COUNTING)
    put_database(folder)
    again = INTERRUPTED.replace("first", "second")
    cells = [nbformat.v4.new_code_cell(code) for code in (INTERRUPTED, again)]
    shown = execute(nbformat.v4.new_notebook(cells=cells), folder)
    assert "interrupted" in shown["first"]["text/plain"]
    assert "finished" in shown["second"]["text/plain"]
