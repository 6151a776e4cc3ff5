"""``robustray submit``, ``robustray data push`` and ``robustray doctor``: work on a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustray.cli.shared import say
from robustray.errors import MachineError, UserError
from robustray.manifest import DataConfig, load_manifest


def add_cluster(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the command line's; ``common`` takes a manifest."""
    submit = commands.add_parser(
        "submit",
        help="run a command on a Ray cluster, and follow it",
        usage="robustray submit [--address URL] [--working-dir DIR] [--no-follow] -- COMMAND ...",
        epilog="Ctrl-C asks the job to stop; the same command again continues its study.",
    )
    submit.add_argument(
        "--address", metavar="URL", help="default: $RAY_API_SERVER_ADDRESS, or this machine"
    )
    submit.add_argument(
        "--working-dir", metavar="DIR", default=".", help="goes along, without data; default: ."
    )
    submit.add_argument("--no-follow", action="store_true", help="return once it is submitted")
    submit.add_argument("words", nargs="*", metavar="COMMAND", help="python jobs/... ARGUMENTS")
    submit.set_defaults(command=_submit)

    data = commands.add_parser("data", help="bring data sets to a cluster")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    push = actions.add_parser(
        "push", parents=[common], help="put verified data files into the store, for nodes to fetch"
    )
    push.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="official data sets, such as cifar10; or --manifest",
    )
    push.add_argument("--download", action="store_true", help="download what is missing here")
    push.set_defaults(command=_push)

    doctor = commands.add_parser(
        "doctor", parents=[common], help="check Ray, store, MLflow, data, GPU and disk"
    )
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
