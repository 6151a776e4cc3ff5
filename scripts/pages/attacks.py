"""Attacks and suites as a page: what each is, its options, and what it costs."""

from __future__ import annotations

import inspect

import robustray.attacks
from robustray.attacks import AttackSpec, Passes, Suite, attack_suite, list_attacks, list_suites
from robustray.attacks.registry import AttackEntry, find_attack
from scripts.pages.markdown import describe_parameters, escape, render_table

_HEAD = """# Attacks and suites

A suite is a list of attacks. Manifests name suites, or list attacks with options of their own
([how](../guides/judging.md)). Passes are for one image that no attack breaks, of 10 classes; an
image that is broken costs less. An evaluation's `--dry-run` counts them for its images.
"""


def make_pages() -> dict[str, str]:
    """Return the page."""
    lines = [_HEAD, "## Suites", ""]
    rows = [_suite_row(name) for name in list_suites()]
    lines += render_table(("name", "attacks (linf)", "mode", "forward", "backward"), rows)
    lines += ["", "## Attacks", ""]
    for name in list_attacks():
        lines += _render_attack(name, find_attack(name))
    return {"reference/attacks.md": "\n".join(lines)}


def _suite_row(name: str) -> tuple[str, ...]:
    suite = attack_suite(name)
    passes = [find_attack(spec.attack).make(**spec.options).passes() for spec in suite.attacks]
    total = Passes(sum(one.forwards for one in passes), sum(one.backwards for one in passes))
    said = ", ".join(_describe(spec) for spec in suite.attacks)
    return f"`{name}`", said, _mode(suite), f"{total.forwards:,}", f"{total.backwards:,}"


def _mode(suite: Suite) -> str:
    return "all images" if suite.attack_all else "independent" if suite.columns else "cascade"


def _describe(spec: AttackSpec) -> str:
    options = ", ".join(f"{name} {value}" for name, value in spec.options.items())
    return f"[{spec.attack}](#{spec.attack})" + (f" ({escape(options)})" if options else "")


def _render_attack(name: str, entry: AttackEntry) -> list[str]:
    attack, function = entry.make(), getattr(robustray.attacks, name.replace("-", "_"))
    documented, said = inspect.getdoc(function) or "", describe_parameters(function)
    lines = [f"### `{name}` {{ #{name} }}", "", escape(documented.partition("\n\n")[0]), ""]
    passes = attack.passes()
    norms = ", ".join(attack.norms)
    lines += [
        f"Norms: {norms}. Passes: {passes.forwards:,} forward, {passes.backwards:,} backward.",
        "",
    ]
    rows = [(f"`{o}`", escape(said.get(o, "")), f"`{d}`") for o, d in entry.defaults.items()]
    return [*lines, *(render_table(("option", "meaning", "default"), rows) if rows else []), ""]
