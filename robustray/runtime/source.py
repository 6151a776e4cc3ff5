"""Which code a run was started from: the script's name, and git's commit, where there is one."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

_PATIENCE_S = 5


@cache
def find_source() -> dict[str, str]:
    """Return what is known of the code: ``name``, ``commit``, ``dirty``.

    ``name`` is the script that was started. ``commit`` is that of the repository that the working
    folder belongs to, ``dirty`` ("true" or "false") whether tracked files were changed since then;
    both are absent where git, or a repository, is.
    """
    found = {"name": _program()}
    commit = _ask_git("rev-parse", "HEAD")
    if commit:
        changed = _ask_git("status", "--porcelain", "--untracked-files=no")
        found |= {"commit": commit}
        found |= {} if changed is None else {"dirty": str(bool(changed)).lower()}
    return found


def source_tags(source: dict[str, str]) -> dict[str, str]:
    """Return the tags by which MLflow shows where a run's code comes from."""
    names = {"name": "name", "commit": "git.commit", "dirty": "git.dirty"}
    tags = {f"mlflow.source.{names[key]}": value for key, value in source.items() if key in names}
    return {"mlflow.source.type": "LOCAL", **tags} if tags else {}


def _program() -> str:
    """Return the script's name; that of the module where Python was asked to run one."""
    name = Path(sys.argv[0]).name or "python"
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec and name == "__main__.py" else name


def _ask_git(*words: str) -> str | None:
    """Return what git answers in the working folder; None if it has no answer."""
    try:
        answer = subprocess.run(  # noqa: S603
            ["git", *words],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
