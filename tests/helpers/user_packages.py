"""Folders in which a user's code lies, and Python in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN = REPOSITORY / "tests/plugin"


def put_package(folder: Path, *, metadata: bool = False) -> Path:
    """Copy the package of a user's into a folder, with an installed package's metadata if asked."""
    shutil.copytree(PLUGIN / "toyplugin", folder / "toyplugin", dirs_exist_ok=True)
    if metadata:
        project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
        info = folder / "toyplugin-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toyplugin\nVersion: 0.1\n")
        groups = project["entry-points"].items()
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
                 for group, points in groups]  # fmt: skip
        (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


def ask(code: str, folder: Path, *paths: Path) -> Any:
    """Run Python in a folder, and return what it prints last, read as JSON."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (*paths, REPOSITORY))),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
