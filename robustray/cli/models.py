"""``robustray models``: the catalogue, for a shell."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robustray.cli.help import Page, add_page
from robustray.cli.shared import read_assignment
from robustray.errors import ManifestError, UserError, choice_error
from robustray.registry import MODELS

if TYPE_CHECKING:
    from robustray.zoo import ZooRecord


_MODELS = Page(
    "list the networks of the catalogue; all that is known of one",
    "Names go into manifests (model.name) and after --model. Networks of timm, torchvision and "
    "others have a prefix.",
    (
        ("some of them", "robustray models 'rrn_*'"),
        ("one: options, paper, published weights", "robustray models rrn_a1"),
        ("another library's", "robustray models 'timm:vit_small*'"),
    ),
)


def add_models(commands: Any) -> None:
    """Add the command to the command line's."""
    models = add_page(commands, "models", _MODELS)
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
