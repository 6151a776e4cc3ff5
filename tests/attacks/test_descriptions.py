"""What attacks and suites say of themselves is hashed into the keys of stored results."""

from __future__ import annotations

import json
from pathlib import Path

from robustray.attacks import AttackSpec, attack_suite, list_attacks, list_suites

PINNED = Path(__file__).parents[1] / "pinned/attacks.json"


def descriptions() -> dict[str, object]:
    """Return every registered attack with its defaults, and every suite under each norm."""
    return {
        "attacks": [AttackSpec(name).describe() for name in list_attacks()],
        "suites": {
            norm: [attack_suite(name, norm).describe() for name in list_suites()]
            for norm in ("linf", "l2", "l1", "l0")
        },
    }


def test_descriptions_are_those_that_stores_were_keyed_by():
    assert json.dumps(descriptions(), indent=1) + "\n" == PINNED.read_text()


if __name__ == "__main__":
    PINNED.write_text(json.dumps(descriptions(), indent=1) + "\n")
