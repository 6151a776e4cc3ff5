"""``robustray import-config``: configuration files of published studies, as manifests."""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import wrap
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.errors import UserError

_WIDTH = 98


_IMPORT = Page(
    "read a published study's configuration file as a manifest",
    "Files of RobustResNets (arXiv:2212.11005) and of adaptive smoothing. What has no counterpart "
    "is told in comments.",
    (("print the manifest", "robustray import-config configs/sat.yaml"),),
)


def add_configs(commands: Any) -> None:
    """Add the command to the command line's."""
    imported = add_page(commands, "import-config", _IMPORT)
    imported.add_argument("file", metavar="FILE", help="a YAML file of either study")
    imported.add_argument(
        "-o", "--output", metavar="MANIFEST", help="default: print it; an existing file is kept"
    )
    imported.add_argument(
        "--gpus",
        type=int,
        metavar="N",
        help="GPUs by which batch sizes per GPU are multiplied (default: as published)",
    )
    imported.set_defaults(command=_import_config)


def _import_config(options: argparse.Namespace) -> int:
    from robustray.manifest import dump_manifest
    from robustray.zoo.configs.importing import import_config

    if options.gpus is not None and options.gpus < 1:
        raise UserError(f"--gpus: {options.gpus} is no number of GPUs; it is 1 or more")
    manifest, notes = import_config(options.file, options.gpus)
    told = [f"Imported from {Path(options.file).name}.", *notes.lines()]
    lines = [
        line
        for text in told
        for line in wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   ")
    ]
    text = "\n".join([*lines, dump_manifest(manifest)])
    if options.output is None:
        print(text, end="")
        return 0
    output = Path(options.output)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{output} exists; name a new file, or remove it") from None
    except OSError as error:
        raise UserError(f"{output} can't be written: {error.strerror}") from error
    print("\n".join([*(line.removeprefix("# ") for line in lines), f"wrote {output}"]))
    return 0
