"""``robustray plan --target-gmacs``: which network has a budget of multiply-accumulates."""

from __future__ import annotations

import argparse
from typing import Any

from robustray.cli.shared import EXIT_OK, read_assignment
from robustray.errors import UserError

# What is said of a network of one's own, and the option that says it.
_OF_A_MODEL = {
    "input": "--input", "rule": "--rule", "stages": "--stages", "num_classes": "--num-classes",
    "widths": "--widths", "multiple": "--multiple", "tolerance": "--tolerance",
}  # fmt: skip


def add_target(plan: argparse.ArgumentParser) -> None:
    """Add to ``plan`` what finds a network for a budget."""
    group = plan.add_argument_group("instead of a manifest: a network for a budget (RobustScaling)")
    group.add_argument("--target-gmacs", type=float, metavar="G", help="the budget in GMACs")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="a function of depths and widths, package.module:function or preact_resnet; without "
        "it, the published study's networks are listed",
    )
    group.add_argument("--input", metavar="CxHxW", help="the image; default: 3x32x32")
    group.add_argument(
        "--rule",
        metavar="NAME",
        help="robust_resnet (default), uniform, or package.module:name of a Rule",
    )
    group.add_argument("--stages", type=int, metavar="N", help="2 to 6; default: the rule's, 3")
    group.add_argument(
        "--num-classes", type=int, metavar="N", help="default: the function's, or 10"
    )
    group.add_argument(
        "--widths",
        metavar="KIND",
        help="what the function takes: channels (default for yours) or factors, of 16 * 2**i "
        "channels in stage i = 0, 1, ...",
    )
    group.add_argument(
        "--multiple", metavar="N", help="of which widths are multiples; default: 8 channels"
    )
    group.add_argument(
        "--tolerance", type=float, metavar="SHARE", help="of the budget; default: 0.1"
    )


def plan_target(options: argparse.Namespace) -> int | None:
    """Print the network for a budget; return None where none was asked for.

    Raises
    ------
    UserError
        If the options don't fit together, or there is no such network.
    """
    given = [option for name, option in _OF_A_MODEL.items() if getattr(options, name) is not None]
    if options.target_gmacs is None:
        if given or options.model:
            named = ["--model"] if options.model else []
            raise UserError(
                f"{', '.join([*named, *given])}: only with --target-gmacs G, which says the budget"
            )
        return None
    _refuse_studies(options)
    if options.model is None:
        from robustray.scaling.rules import describe_target

        if given or options.set:
            raise UserError(
                f"{', '.join([*given, *(['--set'] if options.set else [])])}: only with --model, "
                "which names the network that is to be scaled"
            )
        print(describe_target(options.target_gmacs))
    else:
        print(_describe(options))
    return EXIT_OK


def _refuse_studies(options: argparse.Namespace) -> None:
    """Refuse what only plans of manifests have."""
    flags = ("manifest", "measure", "all", "large")
    if found := [f"--{flag}" for flag in flags if getattr(options, flag)]:
        raise UserError(
            f"--target-gmacs takes no manifest: it plans a network; leave out {', '.join(found)}"
        )


def _describe(options: argparse.Namespace) -> str:
    from robustray.scaling import scale
    from robustray.scaling.planning import check_gmacs, describe_scaled, read_shape

    check_gmacs(options.target_gmacs)
    wanted: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("stages", "num_classes", "widths", "multiple", "tolerance", "rule")
        if getattr(options, name) is not None
    }
    if options.input is not None:
        wanted["input_shape"] = read_shape(options.input)
    arguments = dict(read_assignment(text) for text in options.set)
    found = scale(options.model, options.target_gmacs * 1e9, arguments=arguments, **wanted)
    return describe_scaled(found)
