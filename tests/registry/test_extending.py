"""The examples of docs/extending.md, as they stand there."""

from __future__ import annotations

import re

import pytest

from tests.registry.place import REPOSITORY, ask

PAGE = (REPOSITORY / "docs/extending.md").read_text()
FILES = dict(re.findall(r"`([\w.]+)`:\n\n```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL))
CALLS = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
         if text not in FILES.values()]  # fmt: skip

TRAIN = """
import json
from robustray.manifest import load_manifest
from robustray.sweeps import Study, make_plan
from robustray.sweeps.trial import TrialJob, attempt_trial

study = Study.from_manifest(load_manifest("{file}"))
make_plan(study)
trial = study.trials[0]
job = TrialJob("a/" + trial.name, study.manifest, "store", None, trial)
outcome = attempt_trial(job, print)
print(json.dumps([outcome["outcome"], outcome["message"], [t.name for t in study.trials],
                  list(study.manifest.code)]))
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "trials", "brought"),
    [
        ("network.yaml", ["width2", "width4"], "nets:small_cnn"),
        ("dataset.yaml", ["d1-1-1_w0.25-0.25-0.25"], "shapes:stripes"),
        ("objective.yaml", ["d1-1-1_w0.25-0.25-0.25"], "losses:pairing"),
    ],
)
def test_the_examples_train(folder, file, trials, brought):
    answer = ask(TRAIN.format(file=file), folder)
    assert answer == ["finished", "", trials, [brought]]


def test_the_attack_runs(folder):
    (call,) = CALLS
    assert ask(f"{call}\nprint(1)", folder) == 1
