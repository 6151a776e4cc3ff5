"""docs/reference/store.md describes every key that the code writes, and no other."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = re.findall(
    r"^([a-zA-Z][\w./-]*)(?:  .*)?$",
    "\n".join(
        re.findall(r"```\n(.*?)```", (ROOT / "docs/reference/store.md").read_text(), re.DOTALL)
    ),
    re.MULTILINE,
)
NAMES = {"KIND": "(mixing|alignment)", "NUMBER": r"\d+", "STEP": r"\d{6}", "SHA256": "[0-9a-f]{64}"}


def pattern_of(line: str) -> re.Pattern[str]:
    """Return what matches the keys that a line of the page describes."""
    parts = re.split(r"([A-Z][A-Z0-9]+|/\.\.\.$)", line)
    words = [NAMES.get(part, "[^/]+") if part[:1].isupper() else re.escape(part) for part in parts]
    return re.compile("".join(words).replace(re.escape("/..."), "/.+"))


def undescribed(keys: list[str]) -> list[str]:
    """Return the keys that no line of the page describes."""
    patterns = [pattern_of(line) for line in LINES]
    return [key for key in keys if not any(pattern.fullmatch(key) for pattern in patterns)]


def keys_of(store: Path) -> list[str]:
    """Return the keys of a store that is a folder."""
    return [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()]


def test_all_keys_of_a_store_of_version_0_1_are_described():
    with tarfile.open(ROOT / "tests/pinned/store-0.1.tar.gz") as archive:
        keys = archive.getnames()
    assert len(keys) > 40
    assert undescribed(keys) == []


def test_what_is_not_described_is_found():
    assert undescribed(["studies/a-1/secrets.json", "data/x/y"]) == [
        "studies/a-1/secrets.json",
        "data/x/y",
    ]


def test_every_fixed_part_of_a_described_key_stands_in_the_code():
    code = "\n".join(path.read_text() for path in (ROOT / "robustray").rglob("*.py"))
    for line in LINES:
        for part in re.split(r"/|[A-Z][A-Z0-9]+|\.\.\.", line):
            assert part.strip("-.") in code, f"{line}: no code writes {part!r}"
