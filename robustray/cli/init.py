"""``robustray init``: a manifest to begin with, with comments."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.errors import UserError
from robustray.store import LocalStore, open_store

_TEMPLATES = Path(__file__).resolve().parents[1] / "manifest/templates"
_KINDS = ("sweep", "training", "evaluation", "mixing", "alignment")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_INIT = Page(
    "write a manifest to begin with: NAME.yaml, with comments",
    "It can be planned and run as it is: small, on this machine, without a download. Then change "
    "it. For published settings see robustray manifests, whose files can be copied.",
    (
        ("a sweep over networks", "robustray init my_study"),
        ("one network, one recipe", "robustray init my_training --kind training"),
        ("attack the networks of a study", "robustray init my_evaluation --kind evaluation"),
    ),
)
_STUDY = """\
# Every finished network of this study, on its own test images. Instead of a study, one network:
# model: rrn_a1                  # `robustray models` lists them; package.module:function is yours
# weights: FILE                  # safetensors, or a checkpoint of torch.save
# data: {{name: cifar10, first: 1000}}
# threat: {{norm: linf, eps: 8/255}}
study: {study}"""
_NETWORK = """\
# The network: one of the catalogue (`robustray models`), or package.module:function of yours.
# Or, instead of model, weights, data and threat: `study: ID` for every network of a study.
model: rrn_a1
weights: weights/rrn_a1.safetensors    # put it there, or change this
data: {name: cifar10, first: 1000}     # the first test images; without first, all
threat: {norm: linf, eps: 8/255}"""


def add_init(commands: Any) -> None:
    """Add the command to the command line's."""
    init = add_page(commands, "init", _INIT)
    init.add_argument("name", metavar="NAME", help="of the job; or FOLDER/NAME")
    init.add_argument("--kind", choices=_KINDS, default="sweep", help="default: sweep")
    init.set_defaults(command=_init)


def _init(options: argparse.Namespace) -> int:
    given = Path(options.name)
    path = given if given.suffix in (".yaml", ".yml") else given.with_name(f"{given.name}.yaml")
    if not _NAME.fullmatch(path.stem):
        raise UserError(f"{path.stem!r} is no name: small letters, digits, _ and -, at most 63")
    text = write_template(options.kind, path.stem)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists; choose another name, or remove it") from None
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
    print(f"wrote        {path}")
    print(f"next         robustray plan {path}\n             robustray run {path}")
    return 0


def write_template(kind: str, name: str) -> str:
    """Return a manifest of a kind with comments, as text."""
    text = (_TEMPLATES / f"{kind}.yaml").read_text()
    if kind == "evaluation":
        study = _newest_study()
        text = text.replace("SUBJECT", _STUDY.format(study=study) if study else _NETWORK)
    return text.replace("NAME", name)


def _newest_study() -> str | None:
    """Return the study that was begun last in a store on this machine."""
    store = open_store()
    if not isinstance(store, LocalStore):
        return None
    files = sorted(Path(store.folder).glob("manifests/*.yaml"), key=lambda one: one.stat().st_mtime)
    return files[-1].stem if files else None
