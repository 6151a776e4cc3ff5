"""``robustray completion``: what a shell suggests when the Tab key is pressed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustray.cli.help import Page, add_page
from robustray.manifest.packaged import list_packaged
from robustray.store import LocalStore, open_store

_PAGE = Page(
    "print a script that completes commands in bash, zsh or fish",
    "Commands, options, their choices, manifests that come along and YAML files, and studies of a "
    "store on this machine.",
    (
        ("bash: in ~/.bashrc", 'eval "$(robustray completion bash)"'),
        ("zsh: in ~/.zshrc, after compinit", 'eval "$(robustray completion zsh)"'),
        (
            "fish: once",
            "robustray completion fish > ~/.config/fish/completions/robustray.fish",
        ),
    ),
)


def add_completion(commands: Any) -> None:
    """Add the command to the command line's."""
    completion = add_page(commands, "completion", _PAGE)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell's name")
    completion.set_defaults(command=_print)


def _print(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["robustray"], shell=options.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks for completions, and end; else do nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete
    from argcomplete.completers import FilesCompleter

    files = FilesCompleter(("yaml", "yml"))

    def manifests(prefix: str, **asked: Any) -> list[str]:
        return [*list_packaged(), *files(prefix, **asked)]

    for action in _actions(parser):
        if action.dest in ("manifest", "named"):
            action.completer = manifests  # type: ignore[attr-defined]
        elif action.dest == "study":
            action.completer = _list_studies  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options and arguments of a parser, and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _list_studies(prefix: str, **asked: Any) -> list[str]:
    """Return the studies of a store on this machine; another would keep the shell waiting."""
    store = open_store()
    if not isinstance(store, LocalStore):
        return []
    return [path.stem for path in Path(store.folder).glob("manifests/*.yaml")]
