"""``robustray zoo``: published weights, listed, fetched, verified and imported."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustray.cli.help import Page, add_page
from robustray.errors import UserError, choice_error

if TYPE_CHECKING:
    from robustray.models.libraries.leaderboards import RobustBenchRecord
    from robustray.zoo.records import ZooRecord


_ZOO = Page(
    "published weights: list, fetch, verify, import",
    "Files go to zoo/ in the folder of data sets (ROBUSTRAY_DATA). What is downloaded has the "
    "digest that was published, or that of the first download.",
    (
        ("what is there", "robustray zoo list 'wrn*'"),
        ("one of them, as safetensors", "robustray zoo import NAME --output weights.safetensors"),
    ),
)
_LIST = Page("one line for each set of weights, those of RobustBench too")
_IMPORT = Page("fetch a set of weights and write it as safetensors")


def add_zoo(commands: Any) -> None:
    """Add the command to the command line's."""
    zoo = add_page(commands, "zoo", _ZOO)
    actions = zoo.add_subparsers(required=True, metavar="ACTION", title="actions")
    listed = add_page(actions, "list", _LIST)
    listed.add_argument("pattern", nargs="?", default="*", help="of names, such as 'wrn*'")
    listed.set_defaults(command=_list)
    for name, command, words in (
        ("show", _show, "everything that is known of a set"),
        ("fetch", _fetch, "download a set, and check it"),
        ("verify", _verify, "check a set's files here; exit code 1 if one is damaged"),
    ):
        action = add_page(actions, name, Page(words))
        action.add_argument("name", metavar="NAME", help="as robustray zoo list has it")
        action.set_defaults(command=command)
    imported = add_page(actions, "import", _IMPORT)
    imported.add_argument("name", metavar="NAME", help="as robustray zoo list has it")
    imported.add_argument("--output", metavar="FILE.safetensors", help="default: beside the file")
    imported.add_argument(
        "--drop-objects", action="store_true", help="leave out objects other than tensors"
    )
    imported.set_defaults(command=_import)


def _list(options: argparse.Namespace) -> int:
    from fnmatch import fnmatchcase

    from robustray.models.libraries.leaderboards import load_robustbench
    from robustray.zoo import load_records

    ours = [
        (r.name, r.data, r.threat or "-", r.model or "-", r.published)
        for r in load_records().values()
    ]
    theirs = [(r.name, r.data, r.threat, r.architecture, r.published) for r in load_robustbench()]
    rows = [
        (*words, ", ".join(f"{key} {value:g}" for key, value in numbers.items()))
        for *words, numbers in (*ours, *theirs)
        if fnmatchcase(words[0], options.pattern)
    ]
    if not rows:
        raise UserError(f"no set of weights matches {options.pattern!r}: see robustray zoo list")
    rows.insert(0, ("name", "data", "threat", "network", "published, in percent"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
    if not theirs:
        print("With the package robustbench installed, its leaderboards stand here too.")
    return 0


def _show(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    import yaml

    from robustray.models.libraries.leaderboards import PREFIX
    from robustray.zoo import find_record

    if options.name.startswith(PREFIX):
        records: list[dict[str, Any]] = [asdict(record) for record in _theirs(options.name)]
    else:
        records = [find_record(options.name).model_dump(mode="json", exclude_none=True)]
    print(yaml.safe_dump_all(records, sort_keys=False, width=100), end="")
    return 0


def _theirs(name: str) -> list[RobustBenchRecord]:
    """Return RobustBench's records of a name: one for each leaderboard that has it."""
    from robustray.models.libraries.leaderboards import load_robustbench

    known = load_robustbench()
    if not known:
        raise UserError(f"{name}: the package robustbench is not installed")
    if found := [record for record in known if record.name == name]:
        return found
    raise choice_error("network of RobustBench", name, dict.fromkeys(r.name for r in known))


def _find(name: str) -> ZooRecord:
    """Return a record whose files can be fetched: one of ours."""
    from robustray.models.libraries.leaderboards import PREFIX
    from robustray.zoo import find_record

    if name.startswith(PREFIX):
        _theirs(name)
        raise UserError(f"{name}: RobustBench downloads its own weights when its network is built")
    return find_record(name)


def _fetch(options: argparse.Namespace) -> int:
    for fetched in _cache().fetch(_find(options.name)):
        words = "as published" if fetched.known else "as at the first download"
        print(f"{fetched.path}  sha256 {fetched.sha256}, {words}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    cache, record = _cache(), _find(options.name)
    found = cache.verify(record)
    for file, state in found:
        print(f"{state:<8} {file.name}")
        for name in cache.changed(record, file) if state == "DAMAGED" else ():
            print(f"changed  {name}")
    return int(any(state in ("DAMAGED", "missing") for _, state in found))


def _import(options: argparse.Namespace) -> int:
    from robustray.models import convert_weights

    record = _find(options.name)
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
