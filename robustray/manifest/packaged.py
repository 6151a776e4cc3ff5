"""The manifests that come with robustray, and how a path finds them.

In a checkout, and so in an editable installation, ``robustray/packaged`` has links to the
repository's ``manifests/`` and ``jobs/``. A wheel holds the files themselves there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePath

from robustray.errors import UserError
from robustray.words import suggest, unknown

QUICKSTART = "manifests/quickstart.yaml"

_SENTENCE = re.compile(r"\.\s+(?=[A-Z])")  # its end; "et al. (2020)" is none
TOP = "manifests"
_FOLDER = Path(__file__).resolve().parents[1] / "packaged" / TOP


def list_packaged() -> dict[str, Path]:
    """Return the files of the manifests that come with robustray, by names as in `QUICKSTART`."""
    folder = _FOLDER.resolve()  # rglob follows no links
    found = {PurePath(TOP, path.relative_to(folder)): path for path in folder.rglob("*.yaml")}
    return {name.as_posix(): found[name] for name in sorted(found, key=_order)}


def _order(name: PurePath) -> tuple[int, PurePath]:
    return len(name.parts), name


def find_packaged(name: str) -> Path:
    """Return the file of a manifest that comes with robustray.

    Raises
    ------
    UserError
        If none has the name; lists what there is.
    """
    packaged = list_packaged()
    if name not in packaged:
        raise UserError(unknown("packaged manifest", name, packaged))
    return packaged[name]


def resolve_path(path: str | Path, tell: Callable[[str], None]) -> Path:
    """Return a manifest's file: that of the path, or the packaged one of the same name.

    Parameters
    ----------
    path : str or Path
        A file, or a name as `list_packaged` returns it.
    tell : callable
        Told which file is taken, if it is not that of the path.

    Raises
    ------
    UserError
        If the path is below ``manifests/``, and neither a file nor such a name.
    """
    path = Path(path)
    if path.exists() or path.parts[:1] != (TOP,):
        return path
    packaged = list_packaged()
    if path.as_posix() not in packaged:
        hint = suggest(path.as_posix(), packaged) or "; robustray manifests lists those"
        raise UserError(f"{path} is neither a file here nor one that comes with robustray{hint}")
    tell(f"{path} is not in this folder; the one that comes with robustray is used")
    return packaged[path.as_posix()]


def describe_packaged(path: Path) -> str:
    """Return the first sentence of the comment at the head of a manifest."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return _SENTENCE.split(" ".join(lines))[0].removesuffix(".")
