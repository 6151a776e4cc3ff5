"""``robustray manifests``: those that come along; and which file a command's manifest is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PurePath
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.errors import UserError
from robustray.files import write_atomically
from robustray.manifest.packaged import (
    TOP,
    describe_packaged,
    find_packaged,
    list_packaged,
    resolve_path,
)

_MANIFESTS = Page(
    "list the manifests that come along, or copy them",
    "Published sweeps, recipes, evaluations and jobs. Commands take them by their names, and "
    "robustray init writes a smaller one to begin with.",
    (
        ("all of them", "robustray manifests"),
        ("run one as it is", "robustray run manifests/training/rs_fgsm_digits.yaml"),
        ("copy one, to change it", "robustray manifests copy manifests/quickstart.yaml ."),
    ),
)
_COPY = Page(
    "copy manifests into a folder, to change them",
    "manifests/training/x.yaml becomes DIR/training/x.yaml. Equal files may be there.",
)


def add_manifests(commands: Any) -> None:
    """Add the command to the command line's."""
    manifests = add_page(commands, "manifests", _MANIFESTS)
    manifests.set_defaults(command=_list)
    actions = manifests.add_subparsers(metavar="ACTION", title="actions")
    usage = "robustray manifests copy (NAME ... | --all) DIR"
    copy = add_page(actions, "copy", _COPY, usage=usage)
    copy.add_argument("--all", action="store_true", help="copy all of them")
    copy.add_argument("names", nargs="*", metavar="NAME", help="such as manifests/quickstart.yaml")
    copy.add_argument("folder", metavar="DIR", help="where to")
    copy.set_defaults(command=_copy)


def settle_manifest(options: argparse.Namespace) -> None:
    """Set ``options.manifest`` to the file that is meant, and say so where it is a packaged one.

    Raises
    ------
    UserError
        If two are named.
    """
    first, second = getattr(options, "named", None), getattr(options, "manifest", None)
    if first and second:
        raise UserError(f"two manifests are named, {first} and {second}; name one")
    if wanted := first or second:
        options.manifest = resolve_path(wanted, _tell)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # what is printed may be read as YAML or JSON


def _list(options: argparse.Namespace) -> int:
    packaged = list_packaged()
    width = max(map(len, packaged), default=0)
    for name, path in packaged.items():
        print(f"{name:<{width}}  {describe_packaged(path)}")
    return 0


def _copy(options: argparse.Namespace) -> int:
    if options.all == bool(options.names):
        raise UserError("name manifests to copy, or --all of them (robustray manifests lists them)")
    names = list(list_packaged()) if options.all else options.names
    for path in copy_manifests(names, Path(options.folder)):
        print(path)
    return 0


def copy_manifests(names: list[str], folder: Path) -> list[Path]:
    """Copy manifests into a folder, as ``folder/training/mart.yaml``; equal files may be there.

    Raises
    ------
    UserError
        If there is no such manifest, or a file that differs; nothing is copied then.
    """
    copies = {
        folder / PurePath(name).relative_to(TOP): find_packaged(name).read_bytes() for name in names
    }
    for path, content in copies.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise UserError(f"{path} is there and differs; move it away, or name another folder")
    for path, content in copies.items():
        write_atomically(path, content)
    return list(copies)
