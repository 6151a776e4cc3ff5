"""The catalogue as text."""

from __future__ import annotations

from collections.abc import Callable

from robustray.errors import choice_error
from robustray.models.registry import Entry, PublishedWeights, find_model, list_models


def describe_models(pattern: str, published: Callable[[str], list[str]]) -> str:
    """Return a line for each model that matches; all that is known if it is only one.

    Parameters
    ----------
    pattern : str
        A shell pattern of names.
    published : callable
        Takes a model's name; returns lines on what tables say of it.

    Raises
    ------
    ModelError
        If none matches.
    """
    names = list_models(pattern)
    if not names:
        raise choice_error("model", pattern, list_models())
    if len(names) == 1:
        return _whole(find_model(names[0]), published(names[0]))
    return "\n".join(_line(find_model(name)) for name in names)


def _line(entry: Entry) -> str:
    cost = ""
    if entry.cost is not None:
        cost = f"{entry.cost.parameters / 1e6:.1f}M  {entry.cost.macs / 1e9:.2f}G"
    return f"{entry.name:<16} {cost:>15}  {entry.summary}"


def _whole(entry: Entry, published: list[str]) -> str:
    options = ", ".join(("num_classes", "in_channels", *entry.options))
    lines = [_line(entry), f"options    {options}"]
    if entry.paper is not None:
        paper = entry.paper
        lines.append(f"paper      {paper.title}, {paper.venue}, arXiv:{paper.arxiv}")
    if entry.published is not None:
        lines.append(f"printed    {entry.published.parameters}, {entry.published.macs}")
    lines += [f"note       {correction}" for correction in entry.corrections]
    lines += published
    for weights in entry.weights:
        lines += _weights(weights)
    return "\n".join(lines)


def _weights(weights: PublishedWeights) -> list[str]:
    options = ", ".join(f"{name}={value}" for name, value in weights.options) or "none"
    numbers = ", ".join(f"{metric} {value:.2f}" for metric, value in weights.numbers)
    return [
        f"weights    {weights.name}: {weights.data}; {numbers}",
        *(f"           {source}" for source in weights.sources),
        f"           options {options}; normalisation {weights.normalisation}; licence "
        f"{weights.licence}; sha256 {weights.sha256 or 'not published'}",
        *([f"           {weights.note}"] if weights.note else []),
    ]
