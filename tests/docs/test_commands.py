"""Every command in the documents that is not executed is read by the parser; see `blocks`."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import robustray.cli
from robustray.cli.main import make_parser
from robustray.evaluation.commands import manifest_of
from robustray.manifest import load_manifest
from robustray.manifest.packaged import resolve_path
from robustray.models import list_models
from robustray.zoo import load_records
from tests.docs.blocks import PAGES, REPOSITORY, read_blocks, read_commands

BLOCKS = [block for page in PAGES for block in read_blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "bash" and not block.is_run]
OURS = re.compile(r"^\s*(?:robustray|python (?:jobs|scripts|benchmarks)/|make) ", re.MULTILINE)
# What stands for a name of the reader's.
PLACEHOLDER = re.compile(
    r"[A-Z_]+|m\.yaml|my[-_]\w+\.yaml|probe\.yaml|network\.yaml|dataset\.yaml|\.\.\."
)


def test_every_command_stands_in_a_block_that_is_looked_at():
    hidden = [
        block.where
        for block in BLOCKS
        if block.language in ("", "text") and OURS.search(block.text)
    ]
    assert hidden == []
    assert all(block.language in ("bash", "yaml", "python") for block in BLOCKS if block.mark)
    assert sum(block.is_run for block in BLOCKS) > 10


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.where)
def test_commands_are_understood(block, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for words in read_commands(block.text):
        check_command(words, monkeypatch)


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a command of the documents without executing it."""
    program, *rest = words
    for word in words:
        if re.match(r"(docker|k8s|scripts|benchmarks|manifests|jobs|tests)/", word):
            assert Path(word).exists() or word.endswith(("...", "/.env")), word
    if program == "robustray":
        check_arguments(rest, None, monkeypatch)
    elif program == "python" and rest[0].startswith("jobs/"):
        check_arguments(*arguments_of(rest, monkeypatch), monkeypatch)
    elif program == "python" and rest[0].startswith(("scripts/", "benchmarks/")):
        text = Path(rest[0]).read_text()
        assert [o for o in rest if o.startswith("--") and f'"{o}"' not in text] == []
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", Path("Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "ray" and "--" in rest:
        check_command(rest[rest.index("--") + 1 :], monkeypatch)


def arguments_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Any]:
    """Return the arguments, and the default manifest, with which a job calls the command line."""
    called: list[tuple[list[str], Any]] = []

    def take(arguments: list[str], default_manifest: Any = None) -> int:
        called.append((arguments, default_manifest))
        return 0

    monkeypatch.setattr(robustray.cli, "main", take)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        runpy.run_path(words[0], run_name="__main__")
    return called[0]


def check_arguments(arguments: list[str], default: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the parser read a command, and build the manifest that it means."""
    options = make_parser(default).parse_args(arguments)
    named = vars(options)
    if arguments[0] == "submit":
        return check_command(options.words, monkeypatch)
    check_names(arguments, named)
    path = named.get("named") or named.get("manifest") or default
    if path is None and arguments[0] in ("evaluate", "audit"):
        manifest_of(options)
    elif path is not None and not PLACEHOLDER.fullmatch(str(path)):
        load_manifest(resolve_path(path, print), options.set)
    return None


def check_names(arguments: list[str], named: dict[str, Any]) -> None:
    """Check that networks and sets of weights have the names that a command gives."""
    if arguments[0] == "zoo" and isinstance(name := named.get("name"), str):
        assert name in load_records()
    for option in ("model", "pattern"):
        name = named.get(option)
        if name and not PLACEHOLDER.fullmatch(name) and ":" not in name:
            assert list_models(name), name


RESULTS = sorted((REPOSITORY / "docs/results").glob("*.md"))


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.stem)
def test_results_have_one_form(page):
    """What was asked, the answer, the command and the machine stand above the tables."""
    text = page.read_text()
    if page.stem == "index":
        listed = set(re.findall(r"\]\((\w+)\.md\)", text))
        measured = pytest.importorskip("scripts.pages.measured")
        made = {Path(path).stem for path in measured.make_pages()}
        assert listed == {one.stem for one in RESULTS} - {"index"} | made
    else:
        rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", text, re.MULTILINE)
        assert [name for name, _ in rows] == ["Asked", "Result", "Command", "Machine, versions"]
