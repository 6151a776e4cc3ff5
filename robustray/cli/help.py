"""What ``--help`` says: for each command one line, what else there is to know, and examples."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from dataclasses import dataclass
from typing import Any

_WIDEST = 100
_COLUMN = 26  # where options are explained


@dataclass(frozen=True)
class Page:
    """What is said of a command.

    Attributes
    ----------
    line : str
        What it does, in one line.
    more : str
        What else there is to know.
    examples : tuple of (str, str)
        What a command does, and the command.
    """

    line: str
    more: str = ""
    examples: tuple[tuple[str, str], ...] = ()


class HelpPage(argparse.HelpFormatter):
    """Folds paragraphs to the terminal's width, and leaves lines that are indented as they are."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns - 2
        super().__init__(prog, max_help_position=_COLUMN, width=min(columns, _WIDEST))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = [
            part if part.startswith("  ") or "\n" in part else textwrap.fill(part, width)
            for part in text.split("\n\n")
        ]
        return "\n\n".join(parts)


def add_page(commands: Any, name: str, page: Page, **settings: Any) -> argparse.ArgumentParser:
    """Add a command with its page; ``settings`` are those of ``add_parser``."""
    sentence = f"{page.line[:1].upper()}{page.line[1:]}."
    return commands.add_parser(
        name,
        help=page.line,
        description="\n\n".join([sentence, *([page.more] if page.more else [])]),
        epilog=list_examples(page.examples) or None,
        formatter_class=HelpPage,
        **settings,
    )


def list_examples(examples: tuple[tuple[str, str], ...]) -> str:
    """Return examples as lines: what each does, and below it the command."""
    if not examples:
        return ""
    lines = [f"  # {words}\n  {command}" for words, command in examples]
    return "\n".join(["examples:", *lines])
