"""The examples of the guides to code of one's own, as they stand there."""

from __future__ import annotations

import re

from tests.helpers.user_packages import REPOSITORY, ask

PAGES = ("own_network", "own_data", "extending")
PAGE = "\n".join((REPOSITORY / f"docs/guides/{name}.md").read_text() for name in PAGES)
FILES = dict(re.findall(r"`([\w.]+)`:\n\n```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL))
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

TRAIN = """
import json
from robustray.manifest import load_manifest
from robustray.sweeps import Study, make_plan
from robustray.sweeps.trial import TrialJob, attempt_trial

answers = {}
for file in ("network.yaml", "dataset.yaml", "objective.yaml"):
    study = Study.from_manifest(load_manifest(file))
    make_plan(study)
    trial = study.trials[0]
    outcome = attempt_trial(TrialJob(file, study.manifest, "store", None, trial), print)
    names = [trial.name for trial in study.trials]
    answers[file] = [outcome["outcome"], outcome["message"], names, list(study.manifest.code)]
print(json.dumps(answers))
"""


def test_the_examples_run_as_they_stand_there(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (attack,) = [block for block in BLOCKS if block not in FILES.values()]
    narrow = ["d1-1-1_w0.25-0.25-0.25"]
    assert ask(f"{attack}\n{TRAIN}", tmp_path) == {
        "network.yaml": ["finished", "", ["width2", "width4"], ["nets:small_cnn"]],
        "dataset.yaml": ["finished", "", narrow, ["shapes:stripes"]],
        "objective.yaml": ["finished", "", narrow, ["losses:pairing"]],
    }
