"""``robustray weights``: of a study's trials, as files; and published ones, in our format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.cli.output import add_json
from robustray.cli.shared import make_request, read_assignment
from robustray.errors import UserError, choice_error
from robustray.registry import MODELS

_WEIGHTS = Page(
    "weights as files: export those of a study, convert published ones",
    examples=(
        (
            "the best network of a study",
            "robustray weights export my_study --best best.safetensors",
        ),
    ),
)
_EXPORT = Page(
    "write the weights of a study's trial as safetensors",
    "The selected checkpoint, whose digest must be that of the weights that were attacked. Prints "
    "which trial it is, how accurate, and the command that evaluates the file.",
    (
        (
            "the one that the study's report calls best",
            "robustray weights export my_study --best best.safetensors",
        ),
        ("another one", "robustray weights export my_study --trial d4-4-4_w8-8-8 net.safetensors"),
    ),
)
_CONVERT = Page(
    "write a published file as safetensors",
    examples=(
        (
            "a checkpoint of torch.save",
            "robustray weights convert a1.pt --model rrn_a1 --output a1.safetensors",
        ),
    ),
)
_ASSEMBLE = Page("write the parts of a mixed classifier as one file, with its constants")
_FREEZE = Page("store the batch statistics of training images in weights: mode frozen")


def add_weights(commands: Any) -> None:
    """Add the command to the command line's."""
    weights = add_page(commands, "weights", _WEIGHTS)
    actions = weights.add_subparsers(required=True, metavar="ACTION", title="actions")
    _add_export(actions)
    convert = add_page(actions, "convert", _CONVERT)
    convert.add_argument("file", metavar="FILE", help="what torch.save wrote, or safetensors")
    convert.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help="of the catalogue, of a library (timm:NAME), or package.module:function for a network "
        "of one's own",
    )
    convert.add_argument("--output", required=True, metavar="FILE.safetensors", help="where to")
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

    assemble = add_page(actions, "assemble", _ASSEMBLE)
    assemble.add_argument("--accurate", metavar="FILE", help="weights of the accurate base")
    assemble.add_argument("--robust", metavar="FILE", help="weights of the robust base")
    assemble.add_argument("--mixing", metavar="FILE", help="weights of the mixing network")
    assemble.add_argument(
        "--folder",
        metavar="DIR",
        help="of published files: Base/ and CompModel/; with --set preset",
    )
    assemble.add_argument("--output", required=True, metavar="FILE.safetensors", help="where to")
    assemble.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of adaptive_smoothing, such as preset=...; may be repeated",
    )
    assemble.set_defaults(command=_assemble)

    freeze = add_page(actions, "freeze", _FREEZE)
    freeze.add_argument("file", metavar="FILE", help="weights that normalise with their batch")
    freeze.add_argument("--model", required=True, metavar="NAME", help="of the catalogue")
    freeze.add_argument("--output", required=True, metavar="FILE.safetensors", help="where to")
    freeze.add_argument("--data", default="cifar10", help="data set; default: cifar10")
    freeze.add_argument(
        "--data-root", metavar="DIR", help="folder of data sets; default: $ROBUSTRAY_DATA, ./data"
    )
    freeze.add_argument("--parts", help="files of the training set, comma-separated; default: all")
    freeze.add_argument("--images", type=int, default=1000, help="the first ones; default: 1000")
    freeze.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the model; may be repeated",
    )
    freeze.set_defaults(command=_freeze)


def _add_export(actions: Any) -> None:
    export = add_page(actions, "export", _EXPORT)
    export.add_argument("study", metavar="STUDY", help="its id, its name, or how its id begins")
    export.add_argument("file", metavar="FILE", help="where to; an existing file is kept")
    which = export.add_mutually_exclusive_group(required=True)
    which.add_argument("--best", action="store_true", help="the one that the report calls best")
    which.add_argument("--trial", metavar="NAME", help="one by its name, as in the report")
    add_json(export)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from robustray.sweeps import load_study
    from robustray.sweeps.exporting import export_weights

    output = options.told
    store = make_request(output).store
    study = load_study(store, options.study)
    done = export_weights(store, study, options.trial, Path(options.file))
    accuracies = ", ".join(f"{name} {100 * acc:.2f} %" for name, acc in done.accuracies.items())
    output.say(f"trial        {done.trial}, epoch {done.result['selected_epoch']}")
    output.say(f"accuracy     {accuracies or 'not attacked'}")
    output.say(f"sha256       {done.sha256}")
    output.say(f"wrote        {options.file}")
    output.say(f"evaluate it  {done.evaluate}")
    output.tell(
        {
            "kind": "Sweep",
            "id": study.id,
            "name": study.manifest.name,
            "trial": done.trial,
            "selected_epoch": done.result["selected_epoch"],
            "metrics": dict(done.accuracies),
            "sha256": done.sha256,
            "file": Path(options.file),
            "evaluate": done.evaluate,
        }
    )
    output.end("Sweep")
    return 0


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
