"""Grids that list their networks, and the manifests of the compound scaling study."""

from __future__ import annotations

import pytest
import yaml

from robustray.errors import ManifestError
from robustray.manifest import Sweep, load_manifest, study_id, validate
from robustray.scaling.rules import (
    BY_DEPTH,
    BY_WIDTH,
    COMPOUND,
    RATIO_TARGETS,
    STANDARD,
    Setting,
    ratio_settings,
)
from robustray.sweeps import Study, expand, profile_trials
from tests.helpers.study_runs import REPOSITORY, STUDY

SWEEPS = REPOSITORY / "manifests/sweeps"


def sweep(settings: list[dict], **model: object) -> Sweep:
    document = yaml.safe_load(STUDY)
    document["model"] = {"name": "preact_resnet", **model}
    document["grid"] = {"settings": settings}
    manifest = validate(document)
    assert isinstance(manifest, Sweep)
    return manifest


def listed(file: str) -> list[tuple]:
    manifest = load_manifest(SWEEPS / file)
    assert isinstance(manifest, Sweep)
    return [(trial.depths, trial.widths) for trial in expand(manifest)]


def as_pairs(settings: list[Setting]) -> list[tuple]:
    return [(setting.depths, tuple(map(float, setting.widths))) for setting in settings]


def test_the_ratio_manifest_is_what_the_rule_gives():
    wanted = [setting for target in RATIO_TARGETS for setting in ratio_settings(target * 1e9)]
    assert listed("ratio_5g_20g.yaml") == as_pairs(wanted)


def test_the_table_manifest_holds_every_published_setting():
    tables = (BY_DEPTH, BY_WIDTH, COMPOUND, STANDARD)
    assert listed("scaling_table2.yaml") == as_pairs(
        [setting for table in tables for setting in table.values()]
    )


def test_earlier_studies_keep_their_names():
    known = {"depth_343": "1754e05bfb", "width_512": "d78a0287c5", "digits_64": "95ce16b91c"}
    for name, digest in known.items():
        assert study_id(load_manifest(SWEEPS / f"{name}.yaml")) == f"{name}-{digest}"


def test_settings_change_what_they_name_and_keep_the_rest():
    settings = [{"depths": [1, 2, 1]}, {"widths": [1, 1, 1], "block": "robust"}, {"name": "rrn_a1"}]
    trials = expand(sweep(settings[:2], activations="SiLU", widths=None))
    assert [trial.name for trial in trials] == ["d1-2-1", "w1-1-1_robust"]
    assert all(trial.model.options()["activations"] == "SiLU" for trial in trials)
    (named,) = expand(sweep(settings[2:]))
    assert (named.name, named.model.name) == ("rrn_a1", "rrn_a1")


def test_a_listed_study_is_profiled_and_stored():
    manifest = sweep([{"widths": [1, 1, 1]}, {"name": "wrn_28_10"}])
    study = Study.from_manifest(manifest)
    assert validate(yaml.safe_load(study.manifest_yaml())) == manifest
    assert profile_trials(study)["wrn_28_10"].parameters > 30e6


@pytest.mark.parametrize(
    ("settings", "model", "words"),
    [
        ([{}], {}, "an empty setting"),
        ([{"name": "rrn_a1", "block": "basic"}], {}, "give the name alone"),
        ([{"depths": [1, 1]}] * 2, {}, "appears twice"),
        ([{"name": "rrn_a1"}], {"block": "basic"}, "rrn_a1 fixes what model sets"),
        ([{"widths": [1, 1, 1]}], {"channels": [16, 16, 32, 64]}, "model fixes channels"),
    ],
)
def test_contradictions_are_refused(settings, model, words):
    with pytest.raises(ManifestError, match=words):
        expand(sweep(settings, **model))


def test_a_list_and_a_product_are_refused_together():
    document = yaml.safe_load(STUDY)
    document["grid"]["settings"] = [{"depths": [1, 1, 1]}]
    with pytest.raises(ManifestError, match="not both"):
        validate(document)
