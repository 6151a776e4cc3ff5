"""A user's attack in an evaluation's manifest: found, checked, and described with its digest."""

from __future__ import annotations

from tests.helpers.user_packages import ask
from tests.registry.test_extending import FILES

ASK = """
import json
from robustray.attacks import ThreatModel, attack_suite
from robustray.evaluation.units.compute import rebuilt_spec
from robustray.evaluation.agenda import attack_passes
from robustray.evaluation.units.engines import load_engine
from robustray.evaluation.suites import resolve_suite
from robustray.manifest.evaluation import SuiteItem

def resolve(**item):
    threat = ThreatModel("linf", 0.1)
    return resolve_suite([SuiteItem(**item)], threat, load_engine("robustray"), "float32")

def answer(make):
    try:
        return make()
    except ValueError as error:
        return str(error)

jumps = {"name": "jumps", "attack": "attacks:Jumps"}
(spec,) = resolve(**jumps, options={"tries": 7}).attacks
(plain,) = resolve(name="half", attack="attacks:half_step").attacks
described = spec.describe()
print(json.dumps({
    "described": described,
    "plain": plain.describe()["options"],
    "passes": attack_passes(described, 10).forwards,
    "rebuilt": rebuilt_spec(described) == spec,
    "option": answer(lambda: resolve(**jumps, options={"trials": 7})),
    "range": answer(lambda: resolve(**jumps, options={"tries": 0})),
    "name": answer(lambda: resolve(name="x", attack="attacks:Leaps")),
    "suite": [s.name for s in attack_suite(["suites:PAIR", "fgsm", "attacks:half_step"]).attacks],
    "whole": attack_suite("suites:PAIR", "l1").name,
    "none": answer(lambda: attack_suite("suites:THREE")),
    "kind": answer(lambda: resolve(name="x", attack="attacks:torch")),
}))
"""

SUITE = """
from robustray.attacks import AttackSpec, Suite

PAIR = Suite("pair", (AttackSpec("square"), AttackSpec("few", "attacks:Jumps", {"tries": 2})))
THREE = 3
"""

AGAIN = """
import json
from robustray.errors import UserError
from robustray.evaluation.units.compute import rebuilt_spec
try:
    rebuilt_spec({described!r})
except UserError as error:
    print(json.dumps(str(error)))
"""


def test_a_manifest_names_an_attack_and_edited_code_is_another_one(tmp_path):
    (tmp_path / "attacks.py").write_text(FILES["attacks.py"])
    (tmp_path / "suites.py").write_text(SUITE)
    told = ask(ASK, tmp_path)
    assert told["described"]["options"] == {"tries": 7}
    assert len(told["described"]["code_sha256"]) == 64
    assert told["plain"] == {"share": 0.5}
    assert (told["passes"], told["rebuilt"]) == (7, True)
    assert (
        "attack attacks:Jumps has no option 'trials'; it has: tries; did you mean" in told["option"]
    )
    assert "attack jumps: tries is at least 1, not 0" in told["range"]
    assert "attacks has no function 'Leaps'" in told["name"]
    assert told["suite"] == ["square", "few", "fgsm", "attacks:half_step"]
    assert (told["whole"], told["none"]) == ("pair", "suites:THREE is no suite but int")
    assert "neither a declaration (Attack) nor a function" in told["kind"]
    (tmp_path / "attacks.py").write_text(
        FILES["attacks.py"].replace("tries: int = 10", "tries: int = 9")
    )
    assert ask(AGAIN.format(described=told["described"]), tmp_path) == (
        "the code of attacks:Jumps here differs from the code with which the evaluation was started"
    )
