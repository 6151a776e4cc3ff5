"""``robustray zoo``: published weights, listed, fetched, verified and imported."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustray.errors import UserError

if TYPE_CHECKING:
    from robustray.zoo.records import ZooRecord


def add_zoo(commands: Any) -> None:
    """Add the command to the command line's."""
    zoo = commands.add_parser("zoo", help="published weights: list, fetch, verify, import")
    actions = zoo.add_subparsers(required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="one line for each set of weights")
    listed.add_argument("pattern", nargs="?", default="*", help="of names, such as 'wrn*'")
    listed.set_defaults(command=_list)
    for name, command, words in (
        ("show", _show, "everything that is known of a set"),
        ("fetch", _fetch, "download a set, and check it"),
        (
            "verify",
            _verify,
            "check a set's files here; exit code 1 if one is damaged",
        ),
    ):
        action = actions.add_parser(name, help=words)
        action.add_argument("name", metavar="NAME")
        action.set_defaults(command=command)
    imported = actions.add_parser("import", help="fetch a set and write it as safetensors")
    imported.add_argument("name", metavar="NAME")
    imported.add_argument("--output", metavar="FILE.safetensors", help="default: beside the file")
    imported.add_argument(
        "--drop-objects", action="store_true", help="leave out objects other than tensors"
    )
    imported.set_defaults(command=_import)


def _list(options: argparse.Namespace) -> int:
    from fnmatch import fnmatchcase

    from robustray.zoo import load_records

    rows = [r for n, r in load_records().items() if fnmatchcase(n, options.pattern)]
    if not rows:
        raise UserError(f"no set of weights matches {options.pattern!r}: see robustray zoo list")
    width = max(len(record.name) for record in rows)
    for record in rows:
        numbers = ", ".join(f"{k} {v:g}" for k, v in record.published.items())
        print(f"{record.name:<{width}}  {record.description}{f' ({numbers})' if numbers else ''}")
    return 0


def _show(options: argparse.Namespace) -> int:
    import yaml

    from robustray.zoo import find_record

    record = find_record(options.name).model_dump(mode="json", exclude_none=True)
    print(yaml.safe_dump(record, sort_keys=False, width=100), end="")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from robustray.zoo import find_record

    for fetched in _cache().fetch(find_record(options.name)):
        words = "as published" if fetched.known else "as at the first download"
        print(f"{fetched.path}  sha256 {fetched.sha256}, {words}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from robustray.zoo import find_record

    cache, record = _cache(), find_record(options.name)
    found = cache.verify(record)
    for file, state in found:
        print(f"{state:<8} {file.name}")
        for name in cache.changed(record, file) if state == "DAMAGED" else ():
            print(f"changed  {name}")
    return int(any(state in ("DAMAGED", "missing") for _, state in found))


def _import(options: argparse.Namespace) -> int:
    from robustray.models import convert_weights
    from robustray.zoo import find_record

    record = find_record(options.name)
    if record.model == "adaptive_smoothing" and len(record.files) == 3:
        return _import_parts(record, options)
    if record.model is None or len(record.files) != 1:
        raise UserError(
            f"{record.name} is not the weights of one model of the catalogue; fetch it, and use "
            "its files as robustray zoo show says"
        )
    cache = _cache()
    (fetched,) = cache.fetch(record)
    output = Path(options.output or fetched.path.with_suffix(".safetensors"))
    if output == fetched.path:
        output = output.with_name(f"{output.stem}-imported.safetensors")
    done = convert_weights(
        weights_in(fetched.path),
        output,
        record.model,
        format=fetched.file.format,
        drop_objects=options.drop_objects,
        options=record.options,
    )
    cache.note_import(record, record.files, output)
    print(done)
    return 0


def _import_parts(record: ZooRecord, options: argparse.Namespace) -> int:
    """Put the three files of a mixed classifier together."""
    from robustray.models.weights.assemble import assemble

    cache = _cache()
    parts = {fetched.file.role: fetched.path for fetched in cache.fetch(record)}
    folder = next(iter(parts.values())).parent
    output = Path(options.output or folder / "composite.safetensors")
    composite = assemble(
        output, record.options, parts["accurate"], parts["robust"], parts["mixing"]
    )
    cache.note_import(record, record.files, output)
    print(f"constants  {composite.constants}\nwrote      {output}")
    return 0


def weights_in(path: Path) -> Path:
    """Return a file itself, or the one checkpoint in the folder that an archive became."""
    if not path.is_dir():
        return path
    found = sorted(path.rglob("*.index")) or sorted(p for p in path.rglob("*") if p.is_file())
    if len(found) != 1:
        names = ", ".join(str(p.relative_to(path)) for p in found[:6])
        raise UserError(
            f"{path} holds {len(found)} checkpoints ({names}); convert the one you mean with "
            "robustray weights convert"
        )
    return found[0]


def _cache():  # noqa: ANN202
    from robustray.data import data_root
    from robustray.zoo import Cache, Fetcher

    return Cache(data_root() / "zoo", Fetcher(say=lambda text: print(text, flush=True)))
