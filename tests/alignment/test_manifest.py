"""Manifests of kind Alignment: what is refused, and the published experiments."""

from pathlib import Path

import pytest
import yaml

from robustray.alignment.job.commands import describe_plan, steps_of
from robustray.alignment.manifest import Alignment
from robustray.errors import ManifestError
from robustray.manifest import build_manifest, load_manifest
from scripts.alignment_manifests import manifest_text, run_name
from tests.helpers.typed_manifests import load_as

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = sorted((ROOT / "manifests/alignment/published").glob("*.yaml"))
OURS = sorted((ROOT / "manifests/alignment").glob("*.yaml"))
BASE = {"kind": "Alignment", "name": "a", "data": {"name": "spheres"}}


def test_there_are_98_published_experiments():
    assert len(PUBLISHED) == 98
    stages = [load_as(Alignment, path).stage for path in PUBLISHED]
    assert {"classifier", "generator", "conditional_generator", "evaluation"} == set(stages)


@pytest.mark.parametrize("path", [*OURS, *PUBLISHED], ids=lambda path: path.stem)
def test_manifests_are_sound_and_have_a_plan(path):
    manifest = load_manifest(path)
    assert isinstance(manifest, Alignment)
    assert manifest.stage in describe_plan(manifest)
    assert steps_of(manifest) >= 1


def test_published_manifests_are_those_of_the_table(shared_data):
    table = shared_data.parent / "specs/gradient_direction_commands.yaml"
    experiments = yaml.safe_load(table.read_text())["experiments"]
    written = {path.stem: path.read_text() for path in PUBLISHED}
    assert {run_name(one["id"]): manifest_text(one) for one in experiments} == written


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "generator"}, "generator is missing"),
        ({"stage": "classifier", "training": {"method": "l_alpha"}}, "needs a delta-x"),
        ({"stage": "classifier", "training": {"penalty": 1}}, "has no penalty"),
        ({"stage": "classifier", "probe": {}}, "not a section of stage classifier"),
        ({"stage": "evaluation"}, "weights"),
        ({"stage": "projections"}, "made with source projected"),
        ({"stage": "projections", "projections": {"splits": []}}, "splits"),
        ({"stage": "projections", "projections": {"classes": []}}, "null is all"),
        ({"stage": "comparison"}, "comparison is missing"),
        ({"stage": "comparison", "comparison": {"jobs": ["one"]}}, "jobs"),
        ({"stage": "comparison", "comparison": {"jobs": ["a", "a"]}}, "appears twice"),
        ({"stage": "probe", "probe": {}}, "probe.studies: name one at least"),
        ({"stage": "classifier", "weights": "other"}, "weights: stage classifier judges none"),
        ({"stage": "generator", "generator": {}, "model": {"name": "preact_resnet"}},
         "model: stage generator has no choice of it"),
        ({"stage": "classifier", "data": {"name": "digits", "preprocessing": "Crop288"}},
         "digits has no choice of it"),
        ({"stage": "classifier", "delta_x": {"source": "direct"}}, "needs a generator"),
        ({"stage": "classifier", "delta_x": {"source": "exact"}, "data": {"name": "mnist"}},
         "known of spheres"),
        ({"stage": "evaluation", "weights": "x", "evaluation": {"attacks": [{"attack": "cw"}]}},
         "l2"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(changes, words):
    with pytest.raises(ManifestError, match=words):
        build_manifest(BASE | changes)
