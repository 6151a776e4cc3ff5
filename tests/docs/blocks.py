"""Blocks of code in the documents, what is said about running them, and the commands in them.

A comment before a block says what the tests do with it; readers do not see it:

- ``<!-- file: first.yaml -->``: the block is saved under this name for the blocks that follow;
- ``<!-- run -->``, ``<!-- run: slow -->``: its commands are executed, in the fast or slow tests;
- ``<!-- run: exit 2 -->``: and they end with this exit code;
- ``<!-- run: slow, stopped -->``: and they are interrupted after the first committed epoch.

Commands of other ``bash`` blocks are read by the parser and not executed: they need a GPU, a
cluster, a download, or a file of the reader's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
]
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>(?:run|file)\b.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ENDS = {"|", "||", "&&", ";", "&", "(", ")", "{", "}", "then", "do"}


@dataclass(frozen=True)
class Block:
    """A block of a page; ``mark`` is what the comment before it says."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def where(self) -> str:
        """Page and line, as editors write them."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether its commands are executed."""
        return self.mark.startswith("run")

    @property
    def is_slow(self) -> bool:
        """Whether that takes long."""
        return "slow" in self.mark

    @property
    def is_stopped(self) -> bool:
        """Whether its command is interrupted."""
        return "stopped" in self.mark

    @property
    def exit_code(self) -> int:
        """What its commands end with."""
        found = re.search(r"exit (\d+)", self.mark)
        return 130 if self.is_stopped else int(found[1]) if found else 0

    @property
    def file(self) -> str | None:
        """The name under which it is saved."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    text = page.read_text()
    return [
        Block(
            page,
            text[: match.start("language")].count("\n") + 1,
            match["language"],
            match["text"],
            match["mark"] or "",
        )
        for match in _BLOCK.finditer(text)
    ]


def read_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command, without settings (``NAME=value``) and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r" [<>]+ *\S+", "", line), posix=True, punctuation_chars=";&|()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in _ENDS:
                if words:
                    yield words
                words = []
            elif words or not re.fullmatch(r"\w+=.*", word):
                words.append(word)
