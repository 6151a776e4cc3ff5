"""Names under which people's stores keep results: they may never change by accident.

Where one has to change, the old one must still be found; then write the file anew:

    python -m tests.test_identities
"""

from __future__ import annotations

import json
from pathlib import Path

from robustray.evaluation.images import load_images, ranges_of
from robustray.evaluation.task import Conditions, Subject, Task
from robustray.manifest import load_manifest, study_id
from robustray.sweeps.grid import expand
from tests.helpers.evaluation_tasks import SUITE, digits

ROOT = Path(__file__).resolve().parent.parent
PINNED = Path(__file__).parent / "pinned/identities.json"


def shipped_ids() -> dict[str, str]:
    """Return the id of every manifest that comes with the program, by its path."""
    paths = sorted((ROOT / "manifests").rglob("*.yaml"))
    return {str(p.relative_to(ROOT / "manifests")): study_id(load_manifest(p)) for p in paths}


def trial_names() -> list[str]:
    """Return the names of the quickstart's trials: folders in a study's store."""
    manifest = load_manifest(ROOT / "manifests/quickstart.yaml")
    return [trial.name for trial in expand(manifest)]


def unit_keys() -> dict[str, list[str]]:
    """Return where an evaluation of fixed weights keeps its units, for two ways of adding up."""
    keys = {}
    for name, attack_all in (("cascade", False), ("all", True)):
        task = Task(
            name="pinned",
            subject=Subject({"factory": "somebody:net", "arguments": {}}, "0" * 64),
            data=digits(20),
            ranges=ranges_of(load_images(digits(20), None), 10),
            norm="linf",
            eps=0.12,
            attacks=tuple(spec.describe() for spec in SUITE.attacks),
            attack_all=attack_all,
            conditions=Conditions(3, 16, {"name": "robustray"}),
        )
        keys[name] = [unit.prefix for unit in task.units()]
    return keys


def identities() -> dict[str, object]:
    return {"manifests": shipped_ids(), "quickstart": trial_names(), "units": unit_keys()}


def test_names_in_stores_are_those_that_people_have():
    assert identities() == json.loads(PINNED.read_text())


if __name__ == "__main__":
    PINNED.write_text(json.dumps(identities(), indent=1) + "\n")
