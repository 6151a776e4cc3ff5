"""``robustray submit``, ``robustray data push`` and ``robustray doctor``: work on a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.cli.shared import say
from robustray.errors import MachineError, UserError
from robustray.manifest import DataConfig, load_manifest

_SUBMIT = Page(
    "run a command on a Ray cluster, and follow it",
    "Ctrl-C asks the job to stop; the same command again continues its study.",
    (
        (
            "a manifest of this folder",
            "robustray submit -- python -m robustray.cli run my_study.yaml",
        ),
        ("one that comes along", "robustray submit -- python jobs/sweep_width.py"),
    ),
)
_DATA = Page("bring data sets to a cluster")
_PUSH = Page(
    "put verified data files into the store, for nodes to fetch",
    examples=(("download here, then put it there", "robustray data push --download cifar10"),),
)
_DOCTOR = Page(
    "check Ray, store, MLflow, data, GPU and disk",
    "One line for each, with what to do about it. Exit code 3 if anything fails.",
    (
        ("this place", "robustray doctor"),
        ("and what a manifest needs", "robustray doctor --manifest my_study.yaml"),
    ),
)


def add_cluster(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the command line's; ``common`` takes a manifest."""
    usage = (
        "robustray submit [--address URL] [--working-dir DIR] [--no-follow]\n"
        "                        -- COMMAND ..."
    )
    submit = add_page(commands, "submit", _SUBMIT, usage=usage)
    submit.add_argument(
        "--address", metavar="URL", help="default: $RAY_API_SERVER_ADDRESS, or this machine"
    )
    submit.add_argument(
        "--working-dir", metavar="DIR", default=".", help="goes along, without data; default: ."
    )
    submit.add_argument("--no-follow", action="store_true", help="return once it is submitted")
    submit.add_argument("words", nargs="*", metavar="COMMAND", help="python jobs/... ARGUMENTS")
    submit.set_defaults(command=_submit)

    data = add_page(commands, "data", _DATA)
    actions = data.add_subparsers(required=True, metavar="ACTION", title="actions")
    push = add_page(actions, "push", _PUSH, parents=[common])
    push.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="official data sets, such as cifar10; or --manifest",
    )
    push.add_argument("--download", action="store_true", help="download what is missing here")
    push.set_defaults(command=_push)

    doctor = add_page(commands, "doctor", _DOCTOR, parents=[common])
    doctor.set_defaults(command=_doctor)


def _submit(options: argparse.Namespace) -> int:
    from robustray.cluster.submission import submit

    if not options.words:
        raise UserError(
            "no command given; for example: robustray submit -- python jobs/sweep_width.py"
        )
    return submit(
        options.words,
        options.address,
        Path(options.working_dir),
        follow=not options.no_follow,
        say=say,
    )


def _push(options: argparse.Namespace) -> int:
    from robustray.data import data_root
    from robustray.store import open_store
    from robustray.store.staged_data import push_data

    store = open_store()
    configs = _configs(options.names) or [_wanted(options)]
    for config in configs:
        if config is None:
            raise UserError("name data sets, such as cifar10, or a --manifest")
        if options.download:
            config = config.model_copy(update={"download": True})
        push_data(config, data_root(), store, say)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from robustray.cluster.doctor import FAIL, examine

    failed = False
    for finding in examine(_wanted(options)):
        say(str(finding))
        failed |= finding.state == FAIL
    return MachineError.exit_code if failed else 0


def _configs(names: Sequence[str]) -> list[DataConfig | None]:
    from robustray.data import official_names

    known = official_names()
    if unknown := sorted(set(names) - set(known)):
        raise UserError(f"no files of {unknown[0]!r} can be staged; allowed: {', '.join(known)}")
    return [DataConfig(name=name) for name in names]


def _wanted(options: argparse.Namespace) -> DataConfig | None:
    """Return the data of the manifest, if one is named that says it."""
    path = options.manifest or options.default_manifest
    if path is None:
        return None
    data = load_manifest(path, options.set).needed_data()
    if data is None:
        raise UserError(f"{path} names no official data set; name the study's own manifest")
    return data
