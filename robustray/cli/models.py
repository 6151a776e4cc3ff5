"""``robustray models`` and ``robustray weights``: the catalogue, for a shell."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustray.cli.shared import read_assignment
from robustray.errors import ManifestError, UserError, choice_error
from robustray.registry import MODELS

if TYPE_CHECKING:
    from robustray.zoo import ZooRecord


def add_models(commands: Any) -> None:
    """Add both commands to the command line's."""
    models = commands.add_parser("models", help="list the catalogue; check its published costs")
    models.add_argument(
        "pattern", nargs="?", default="*", help="of names, such as 'rrn_*' or 'timm:vit*'"
    )
    models.add_argument(
        "--check",
        action="store_true",
        help="count every network of the published tables and compare; exit code 1 if a count "
        "differs from the recorded one",
    )
    models.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an argument of another library's network, such as commit=... of hf:OWNER/REPO; may "
        "be repeated",
    )
    models.set_defaults(command=_models)

    weights = commands.add_parser("weights", help="bring published weights into our format")
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    convert = actions.add_parser("convert", help="write a published file as safetensors")
    convert.add_argument("file", metavar="FILE", help="what torch.save wrote, or safetensors")
    convert.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help="of the catalogue, of a library (timm:NAME), or package.module:function for a network "
        "of one's own",
    )
    convert.add_argument("--output", required=True, metavar="FILE.safetensors")
    convert.add_argument(
        "--published", metavar="SET", help="one of the model's sets of weights that the zoo records"
    )
    convert.add_argument("--format", default="auto", help="layout of the file; default: auto")
    convert.add_argument("--sha256", metavar="DIGEST", help="that the file must have")
    convert.add_argument(
        "--drop-objects",
        action="store_true",
        help="leave out objects other than tensors and containers, such as schedules",
    )
    convert.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the model, such as num_classes=100, or an argument of the function; "
        "may be repeated",
    )
    convert.set_defaults(command=_convert)

    assemble = actions.add_parser(
        "assemble", help="write the parts of a mixed classifier as one file, with its constants"
    )
    assemble.add_argument("--accurate", metavar="FILE", help="weights of the accurate base")
    assemble.add_argument("--robust", metavar="FILE", help="weights of the robust base")
    assemble.add_argument("--mixing", metavar="FILE", help="weights of the mixing network")
    assemble.add_argument(
        "--folder",
        metavar="DIR",
        help="of published files: Base/ and CompModel/; with --set preset",
    )
    assemble.add_argument("--output", required=True, metavar="FILE.safetensors")
    assemble.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    assemble.set_defaults(command=_assemble)

    freeze = actions.add_parser(
        "freeze", help="store the batch statistics of training images in weights: mode frozen"
    )
    freeze.add_argument("file", metavar="FILE", help="weights that normalise with their batch")
    freeze.add_argument("--model", required=True, metavar="NAME", help="of the catalogue")
    freeze.add_argument("--output", required=True, metavar="FILE.safetensors")
    freeze.add_argument("--data", default="cifar10", help="data set; default: cifar10")
    freeze.add_argument("--data-root", metavar="DIR")
    freeze.add_argument("--parts", help="files of the training set, comma-separated; default: all")
    freeze.add_argument("--images", type=int, default=1000, help="the first ones; default: 1000")
    freeze.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    freeze.set_defaults(command=_freeze)


def _models(options: argparse.Namespace) -> int:
    if not options.check:
        given = dict(read_assignment(text) for text in options.set)
        print(_describe_models(options.pattern, given))
        return 0
    from robustray.scaling.check import check_row, cost_rows, describe

    if options.pattern != "*":
        raise UserError("--check counts every row of the tables; leave out the pattern")
    rows = [check_row(row) for row in cost_rows()]
    print(describe(rows))
    return int(any(row.broken for row in rows))


def _describe_models(pattern: str, given: Mapping[str, Any]) -> str:
    """Return a line for each model that matches; all that is known if it is only one.

    ``given`` are arguments of that one, which is another library's.

    Raises
    ------
    ManifestError, ModelError
        If none matches, or it has no such arguments.
    """
    from robustray.models import find_model, list_models
    from robustray.scaling.check import describe_published, known_costs
    from robustray.zoo import records_of

    library, costs = MODELS.library(pattern), known_costs()
    if library is not None and not any(sign in pattern for sign in "*?["):
        names = [find_model(pattern).name]  # of a hub, which lists none, too
    else:
        names = list_models(pattern)
    if not names and library is not None:
        raise UserError(f"no network matches {pattern}; a hub's are not listed")
    if not names:
        raise choice_error("model", pattern, list_models())
    if given and (library is None or len(names) > 1):
        raise UserError("--set goes with the name of one network of another library")
    lines, width = [], max(24, *map(len, names))
    for name in names:
        row = costs.get(name)
        cost = (
            f"{row.recorded.parameters / 1e6:.1f}M  {row.recorded.macs / 1e9:.2f}G" if row else ""
        )
        lines.append(f"{name:<{width}} {cost:>15}  {find_model(name).summary}")
    if len(names) == 1:
        entry = find_model(names[0])
        lines.append(f"options    {', '.join(('num_classes', 'in_channels', *entry.options))}")
        if entry.paper is not None:
            paper = entry.paper
            lines.append(f"paper      {paper.title}, {paper.venue}, arXiv:{paper.arxiv}")
        lines += describe_published(names[0])
        lines += _describe_library(names[0], given)
        for record in records_of(names[0]).values():
            lines += _weights(record)
    if pattern == "*":
        prefixes = ", ".join(f"{prefix}:..." for prefix in MODELS.libraries)
        lines.append(f"and those of other libraries: {prefixes}")
    return "\n".join(lines)


def _describe_library(name: str, given: Mapping[str, Any]) -> list[str]:
    """Return what another library says of its network: the input, and published accuracies.

    Raises
    ------
    ManifestError
        If given arguments don't go with it.
    """
    from robustray.models import declared_input

    library = MODELS.library(name)
    if library is None:
        return []
    versions = ", ".join(f"{package} {text}" for package, text in library.versions().items())
    lines = [f"library    {versions}"]
    try:
        facts = declared_input(name, given)
        published = library.published(MODELS.within(name), given)
    except ManifestError as error:  # it depends on options which network that is
        if given:
            raise
        return [*lines, f"           {error}"]
    assert facts is not None
    resized = "as they are" if facts.resize is None else f"resized to {facts.resize}"
    lines.append(
        f"input      {resized} ({facts.interpolation}), the middle {facts.size[0]} x "
        f"{facts.size[1]} cut out; mean {facts.mean or 'none'}, deviation {facts.std or 'none'}"
    )
    if published is not None:
        numbers = {"clean": published.clean, "robust": published.robust}
        words = ", ".join(f"{what} {100 * n:.2f} %" for what, n in numbers.items() if n)
        threat = f", {published.norm}, eps {published.eps:.4g}" if published.eps else ""
        lines.append(f"published  {words} ({published.data}{threat}; {published.source})")
    return lines


def _weights(record: ZooRecord) -> list[str]:
    options = ", ".join(f"{name}={value}" for name, value in record.options.items()) or "none"
    numbers = ", ".join(f"{metric} {value:.2f}" for metric, value in record.published.items())
    known = f"normalisation {record.normalisation}; " if record.normalisation else ""
    return [
        f"weights    {record.name}: {record.data}; {numbers}",
        *(
            f"           {_address(source)} (sha256 {file.sha256 or 'not published'})"
            for file in record.files
            for source in file.sources
        ),
        f"           options {options}; {known}licence {record.licence}",
        *([f"           {record.note}"] if record.note else []),
    ]


def _address(source: str) -> str:
    return source.removeprefix("page:").replace("drive:", "https://drive.google.com/uc?id=")


def _convert(options: argparse.Namespace) -> int:
    from robustray.evaluation.networks import build_function
    from robustray.models.weights.convert import convert_weights
    from robustray.zoo import known_as, records_of

    given = dict(read_assignment(text) for text in options.set)
    model: Any = options.model
    sha256 = options.sha256
    if options.published is not None:
        sets = records_of(model)
        if options.published not in sets:
            raise choice_error(f"set of weights of {model}", options.published, sets or ("none",))
        record = sets[options.published]
        given = record.options | given
        sha256 = sha256 or record.sha256
    if MODELS.is_reference(model):
        model, given = build_function(model, given), {}
    try:
        done = convert_weights(
            options.file,
            options.output,
            model,
            format=options.format,
            sha256=sha256,
            drop_objects=options.drop_objects,
            options=given,
        )
    except OSError as error:
        raise UserError(str(error)) from error
    names = ", ".join(known_as(done.report.sha256))
    print(f"{done}\nknown as   {names or 'none of the digests in the zoo'}")
    return 0


def _assemble(options: argparse.Namespace) -> int:
    from robustray.models.weights.assemble import assemble, published_files

    given = dict(read_assignment(text) for text in options.set)
    accurate, robust, mixing = options.accurate, options.robust, options.mixing
    if options.folder is not None:
        if accurate or robust or mixing or not given.get("preset"):
            raise UserError("--folder goes with --set preset=NAME, and without single files")
        files = published_files(Path(options.folder), str(given["preset"]))
        accurate, robust, mixing = (files[role] for role in ("accurate", "robust", "mixing"))
    if accurate is None or robust is None:
        raise UserError("name the parts with --accurate, --robust and --mixing, or with --folder")
    parts = Path(accurate), Path(robust), None if mixing is None else Path(mixing)
    try:
        composite = assemble(Path(options.output), given, *parts)
    except OSError as error:
        raise UserError(str(error)) from error
    print(f"constants  {composite.constants}\nwrote      {options.output}")
    return 0


def _freeze(options: argparse.Namespace) -> int:
    from robustray.evaluation.images import load_images
    from robustray.manifest import build_manifest
    from robustray.models.weights.convert import freeze_weights

    parts = {"parts": options.parts.split(",")} if options.parts else {}
    data = {"name": options.data, "split": "train", "first": options.images, **parts}
    manifest: Any = build_manifest(
        {"kind": "Evaluation", "factory": "weights:freeze", "data": data}
    )
    images = load_images(manifest.data, options.data_root)
    given = dict(read_assignment(text) for text in options.set)
    try:
        freeze_weights(
            options.file,
            options.output,
            options.model,
            images.x_NCHW.float() / 255,
            options=given,
        )
    except OSError as error:
        raise UserError(str(error)) from error
    print(f"calibrated on {len(images)} images (sha256 {images.digest}); wrote {options.output}")
    return 0
