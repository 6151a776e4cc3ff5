"""``robustray plan``, ``run``, ``quickstart``, ``evaluate`` and ``audit``: what computes."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.cli.output import add_json
from robustray.cli.scaling import add_target, plan_target
from robustray.cli.shared import (
    EXIT_OK,
    add_yes,
    make_request,
    plan_manifest,
    read_manifest,
    run_manifest,
)
from robustray.errors import UserError
from robustray.manifest import load_manifest, pin_code
from robustray.manifest.packaged import QUICKSTART, find_packaged

_QUICKSTART = Page(
    "train and attack eight small networks, on any machine: about 2 minutes",
    "Handwritten digits, two cores, no download. It ends with a table, an HTML page and runs in "
    "MLflow, all below ./runs. Ctrl-C stops it; the same command continues.",
    (
        ("the whole of it", "robustray quickstart"),
        ("shorter still", "robustray quickstart --set recipe.epochs=2"),
    ),
)
_PLAN = Page(
    "say what a manifest's job computes and costs; start nothing",
    "For a sweep: parameters, multiply-accumulates (MACs) and floating-point operations (FLOPs) of "
    "each trial, bytes of checkpoints, and device-hours once such were trained or measured. "
    "What a run would refuse is refused here, with the field's name.",
    (
        ("a manifest of yours", "robustray plan my_study.yaml"),
        ("measure this device first", "robustray plan my_study.yaml --measure"),
        ("how does a field change it?", "robustray plan my_study.yaml --set recipe.epochs=10"),
        ("a network of 5 GMACs", "robustray plan --target-gmacs 5"),
        (
            "what to train next, and what 20 GMACs would give",
            "robustray plan --from my_study --macs 20e9",
        ),
    ),
)
_RUN = Page(
    "run a manifest's job, or continue it",
    "Everything is kept in the store (ROBUSTRAY_STORE, default ./runs/store): after Ctrl-C, a kill "
    "or a failure the same command continues. Without RAY_ADDRESS, Ray is started on this machine.",
    (
        ("a manifest that comes along", "robustray run manifests/quickstart.yaml"),
        ("look at the whole manifest and its plan first", "robustray run my_study.yaml --dry-run"),
        ("change fields", "robustray run my_study.yaml --set recipe.epochs=10 --set seed=1"),
    ),
)
_EVALUATE = Page(
    "attack a network, or every selected network of a study",
    "The network is one of the catalogue, a function of yours, or that of a manifest of kind "
    "Evaluation. Default: AutoAttack on CIFAR-10's test images at eps = 8/255 (linf).",
    (
        (
            "a network of the catalogue",
            "robustray evaluate --model rrn_a1 --weights rrn_a1.safetensors",
        ),
        (
            "your own, on the first 1,000 images, in an l2 ball",
            "robustray evaluate --model my_package.nets:make --set data.first=1000 \\\n"
            "      --set threat.norm=l2 --set threat.eps=0.5",
        ),
        ("every network of a study", "robustray evaluate --study my_study --suite cw-40"),
        ("for a script", "robustray evaluate my_evaluation.yaml --json > result.json"),
    ),
)
_AUDIT = Page(
    "look for what makes a network's robust accuracy doubtful",
    "Checks gradients, randomness, dependence on the batch and more on a few images. Evaluations "
    "do the same before they attack.",
    (
        (
            "a network of the catalogue",
            "robustray audit --model rrn_a1 --weights rrn_a1.safetensors",
        ),
    ),
)
_DRY_RUN = "print the whole manifest and the plan, and stop"


def add_quickstart(commands: Any) -> None:
    """Add ``quickstart``."""
    quickstart = add_page(commands, "quickstart", _QUICKSTART)
    quickstart.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of its manifest, such as recipe.epochs=2; may be repeated",
    )
    quickstart.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
    add_json(quickstart)
    quickstart.set_defaults(command=_quickstart, yes=False)


def add_jobs(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``plan`` and ``run``; ``common`` takes a manifest."""
    plan = add_page(commands, "plan", _PLAN, parents=[common])
    plan.add_argument("--all", action="store_true", help="list every trial, not a dozen of them")
    plan.add_argument("--measure", action="store_true", help="measure this device's speed first")
    _add_large(plan)
    add_json(plan)
    add_target(plan)
    _add_advice(plan)
    plan.set_defaults(command=_plan)

    run = add_page(commands, "run", _RUN, parents=[common])
    run.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
    add_yes(run)
    _add_large(run)
    add_json(run)
    run.set_defaults(command=_run)


def _add_large(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--large", action="store_true", help="allow a study of more than 10,000 trials"
    )


def _add_advice(plan: argparse.ArgumentParser) -> None:
    group = plan.add_argument_group("instead of a manifest: what a study suggests")
    group.add_argument(
        "--from",
        dest="study",
        metavar="STUDY",
        help="fit its finished networks: which trials next, and how robust they may be",
    )
    group.add_argument(
        "--macs",
        type=float,
        metavar="N",
        help="and what a network of so many MACs would have, such as 20e9",
    )


def _plan_from(options: argparse.Namespace) -> int:
    """Say what a study suggests."""
    from robustray.sweeps.commands import advise_study, chosen_study

    flags = ("manifest", "set", "measure", "all", "large", "model", "target_gmacs")
    if found := [f"--{flag.replace('_', '-')}" for flag in flags if getattr(options, flag)]:
        raise UserError(f"--from plans from a study in the store; leave out {', '.join(found)}")
    if options.macs is not None and not 0 < options.macs < math.inf:
        raise UserError(f"--macs must be positive, such as 20e9 (got {options.macs:g})")
    request = make_request(options.told)
    advise_study(chosen_study(request.store, options.study), options.macs, request)
    options.told.end("Sweep")
    return EXIT_OK


def _plan(options: argparse.Namespace) -> int:
    if options.study is not None:
        return _plan_from(options)
    if options.macs is not None:
        raise UserError("--macs: only with --from STUDY, whose networks are fitted")
    if options.target_gmacs is not None and options.json:
        raise UserError("--json gives the plan of a manifest; leave it out with --target-gmacs")
    planned = plan_target(options)
    if planned is not None:
        return planned
    manifest, output = read_manifest(options), options.told
    request = replace(
        make_request(output), measure=options.measure, in_full=options.all, large=options.large
    )
    plan_manifest(manifest, request, output)
    return EXIT_OK


def _run(options: argparse.Namespace) -> int:
    return run_manifest(read_manifest(options), options)


def _quickstart(options: argparse.Namespace) -> int:
    manifest = load_manifest(find_packaged(QUICKSTART), options.set)
    return run_manifest(pin_code(manifest), options)


def add_evaluations(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add what takes a network from the command line."""
    network = argparse.ArgumentParser(add_help=False)
    network.add_argument(
        "--model",
        metavar="NAME",
        help="of the catalogue (robustray models), or package.module:function",
    )
    network.add_argument("--weights", metavar="FILE_OR_URI", help="a file, or s3://bucket/key")
    add_yes(network)
    evaluate = add_page(commands, "evaluate", _EVALUATE, parents=[common, network])
    evaluate.add_argument("--study", metavar="ID", help="attack every selected checkpoint of it")
    evaluate.add_argument(
        "--suite",
        metavar="NAME[,NAME]",
        help="default: autoattack-standard; published-table: clean, FGSM, PGD-20, CW-40, AA",
    )
    evaluate.add_argument(
        "--suite-mode",
        choices=("cascade", "independent"),
        help="cascade: each attack on the images that those before it have left (default for a "
        "list); independent: each on all correctly classified images, as in published tables",
    )
    evaluate.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
    add_json(evaluate)
    evaluate.set_defaults(command=_evaluate)
    audit = add_page(commands, "audit", _AUDIT, parents=[common, network])
    add_json(audit)
    audit.set_defaults(command=_audit, suite=None, suite_mode=None, study=None)


def _evaluate(options: argparse.Namespace) -> int:
    from robustray.evaluation.commands import manifest_of

    return run_manifest(manifest_of(options), options)


def _audit(options: argparse.Namespace) -> int:
    from robustray.evaluation.commands import audit, manifest_of

    request = replace(make_request(options.told, patient=True), assume_yes=options.yes)
    findings = audit(manifest_of(options), request)
    if options.told.as_json:
        options.told.write(findings)
    return EXIT_OK
