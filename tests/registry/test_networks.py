"""Networks that users bring: in the working folder, and in an installed package."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import yaml

from robustray.errors import ManifestError
from robustray.manifest import pin_code, study_id, validate
from robustray.registry import MODELS
from robustray.store import open_store
from robustray.sweeps import Study, make_plan, read_trial
from robustray.sweeps.trial import TrialJob, attempt_trial
from tests.helpers.study_runs import STUDY
from tests.helpers.user_packages import REPOSITORY, put_package

NETWORK = "toyplugin.nets:toy"


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """Lies in a fresh folder with the package, and forgets its modules in the end."""
    put_package(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "toyplugin"]:
        del sys.modules[name]


def manifest(model: dict, grid: dict | None = None):
    document = yaml.safe_load(STUDY)
    document["data"] |= {"train_limit": 200, "validation": 40, "test_limit": 20}
    document["recipe"] |= {"epochs": 1}
    document |= {"model": model, "grid": grid}
    return validate(document)


def test_a_users_network_trains_under_a_grid_of_its_arguments(working_folder):
    grid = {"arguments": {"width": [1, 3], "pool": [True, False]}}
    study = Study.from_manifest(manifest({"name": NETWORK, "arguments": {"width": 2}}, grid))
    names = ["width1_pooltrue", "width1_poolfalse", "width3_pooltrue", "width3_poolfalse"]
    assert [trial.name for trial in study.trials] == names
    costs = make_plan(study).costs
    assert costs["width3_pooltrue"].profile.parameters == 27 + 6 + 30 + 10
    prefix, third = study.trial_prefix(names[2]), study.trials[2]
    job = TrialJob(prefix, study.manifest, "store", None, third)
    assert attempt_trial(job, lambda report: None)["outcome"] == "finished"
    result = read_trial(open_store("store"), study, job.trial).result
    assert result["model"] == {"name": NETWORK, "arguments": {"width": 3, "pool": True}}


def test_edited_code_is_another_study_and_workers_refuse_it(working_folder):
    study = Study.from_manifest(manifest({"name": NETWORK}))
    assert Study.from_manifest(manifest({"name": NETWORK})).id == study.id
    helper = working_folder / "toyplugin/blocks.py"
    helper.write_text(helper.read_text() + "# edited\n")
    assert Study.from_manifest(manifest({"name": NETWORK})).id != study.id
    (trial,) = study.trials
    job = TrialJob(study.trial_prefix(trial.name), study.manifest, "store", None, trial)
    outcome = attempt_trial(job, lambda report: None)
    assert (trial.name, outcome["outcome"]) == ("toy", "user_error")
    assert "here differs from the code with which the study was started" in outcome["message"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "nowhere.nets:toy"}, r"model\.name: nowhere\.nets can't be imported"),
        ({"name": "toyplugin.nets:toi"}, r"model\.name: toyplugin\.nets has no .*'toi'"),
        (
            {"name": NETWORK, "arguments": {"widht": 2}},
            r"model\.arguments\.widht: unknown key; did you mean 'width'\? Allowed: .*width, pool",
        ),
        (
            {"name": NETWORK, "arguments": {"width": "wide"}},
            r"model\.arguments\.width: must be an integer \(got 'wide'\)",
        ),
        ({"name": NETWORK, "arguments": {"width": -1}}, r"model: .*toy fails: RuntimeError"),
        ({"name": NETWORK, "width": 2}, r"model\.width: unknown key\. Allowed: name, arguments"),
        ({"name": "rrn_a1", "arguments": {"width": 2}}, r"model\.arguments: unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(working_folder, model, words):
    with pytest.raises(ManifestError, match=words):
        make_plan(Study.from_manifest(manifest(model)))


def test_what_robustray_brings_has_no_digest():
    assert not MODELS.is_brought("rrn_a1")


def test_a_base_of_a_mixture_may_be_a_users(working_folder):
    document = yaml.safe_load((REPOSITORY / "manifests/smoothing/digits.yaml").read_text())
    document["robust"]["model"] = {"name": NETWORK}
    mixing = validate(document)
    pinned: Any = pin_code(mixing)
    assert pinned.code == {NETWORK: MODELS.code_digest(NETWORK)}
    assert study_id(pinned) != study_id(mixing)
    assert pin_code(pinned) == pinned
