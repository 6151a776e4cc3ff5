"""The reference of commands, from the parser that reads them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from robustray.cli.main import make_parser
from scripts.pages.markdown import escape, render_table

FOLDER = "reference/commands"


def make_pages() -> dict[str, str]:
    """Return a page for each command, and one that lists them."""
    parser = make_parser()
    commands = dict(subcommands(parser))
    lines = ["# Commands", "", escape(parser.description or ""), ""]
    rows = [(f"[`{name}`]({name}.md)", escape(said)) for name, (said, _) in commands.items()]
    lines += render_table(("command", "what it does"), rows)
    lines += ["", "[Exit codes](../settings.md#exit-codes) are the same for all commands.", ""]
    pages = {
        f"{FOLDER}/{name}.md": _render(one, f"robustray {name}", said)
        for name, (said, one) in commands.items()
    }
    return {f"{FOLDER}/index.md": "\n".join(lines), **pages}


def subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, tuple[str, argparse.ArgumentParser]]]:
    """Yield name, summary and parser of what a parser's command may be."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, one in action.choices.items():
                if name in said:
                    yield name, (said[name], one)


def _render(parser: argparse.ArgumentParser, title: str, summary: str) -> str:
    lines = [f"# {title}", "", *_body(parser, summary)]
    for name, (said, inner) in subcommands(parser):
        lines += [f"## {title} {name}", "", *_body(inner, said)]
    return "\n".join(lines)


def _body(parser: argparse.ArgumentParser, summary: str) -> list[str]:
    usage = re.sub(r"^usage: ", "", parser.format_usage().strip())
    said = parser.description or f"{summary[:1].upper()}{summary[1:]}."
    lines = [*_paragraphs(said), "```text", usage, "```", ""]
    for title, wanted in (("argument", False), ("option", True)):
        rows = [_row(action) for action in _shown(parser) if bool(action.option_strings) is wanted]
        lines += [*render_table((title, "meaning"), rows), ""] if rows else []
    return lines + _paragraphs(parser.epilog or "")


def _paragraphs(text: str) -> list[str]:
    """Return a help's text, its indented lines as code."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if not block.strip():
            continue
        rows = block.splitlines()
        code = [row for row in rows if row.startswith("  ")]
        plain = [row for row in rows if not row.startswith("  ")]
        lines += [escape(" ".join(plain)), ""] if plain else []
        lines += ["```text", *(row[2:] for row in code), "```", ""] if code else []
    return lines


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
        and action.help != argparse.SUPPRESS
    ]


def _row(action: argparse.Action) -> tuple[str, str]:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    names = ", ".join(action.option_strings) or str(value)
    shown = f"{names} {value}" if action.option_strings and action.nargs != 0 else names
    said = action.help or ""
    if "%" in said:
        said %= {**vars(action), "prog": "robustray"}
    return f"`{shown}`", escape(said)
