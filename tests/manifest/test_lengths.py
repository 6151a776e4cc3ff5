"""Perturbations and steps that no image has room for: one check, in every kind of manifest."""

import re
from pathlib import Path

import pytest
import torch

from robustray.alignment.manifest import AlignmentData
from robustray.alignment.synthetic import RADII, SQUARES, SQUARES32
from robustray.attacks import ThreatModel, evaluate
from robustray.attacks.suite import AttackSpec
from robustray.errors import ManifestError
from robustray.manifest import InnerAttack, JudgedThreat, Recipe, ThreatConfig, load_manifest
from robustray.manifest.fields import Extent

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
L2 = 128 / 255


def test_shapes_are_those_of_the_data():
    assert Extent.of("cifar10").size == 3072
    assert AlignmentData(name="mnist").extent().size == AlignmentData(name="mnist35").extent().size
    assert AlignmentData(name="spheres").extent().longest("l2") == 2 * max(RADII)
    assert AlignmentData(name="squares").extent().size == SQUARES.size**2
    assert AlignmentData(name="squares32").extent().size == SQUARES32.size**2


TOO_LONG = [
    ("quickstart", "recipe.threat.eps=8", "recipe.threat.eps"),
    ("quickstart", "evaluation.threat.eps=8", "evaluation.threat.eps"),
    ("quickstart", "evaluation.threat.eps=1.01", "evaluation.threat.eps"),
    ("quickstart", "recipe.inner.step_size=2", "recipe.inner.step_size"),
    ("quickstart", "recipe.inner.start_scale=8", "recipe.inner.start_scale"),
    ("quickstart", "recipe.threat={norm: l2, eps: 128}", "recipe.threat.eps"),
    ("quickstart", "evaluation.threat={norm: l2, eps: 8.01}", "evaluation.threat.eps"),
    ("training/trades_l2", "recipe.threat.eps=128", "recipe.threat.eps"),
    ("training/trades_l2", "recipe.inner.step_size=56", "recipe.inner.step_size"),
    ("evaluation/autoattack", "threat.eps=8", "threat.eps"),
    ("evaluation/autoattack", "threat={norm: l2, eps: 128}", "threat.eps"),
    ("evaluation/autoattack", "threat={norm: l1, eps: 3073}", "threat.eps"),
    ("evaluation/study", "threat={eps: 8}", "threat.eps"),
    ("evaluation/curve", "curve.eps=[0.1, 2]", "curve.eps[1]"),
    ("evaluation/curve", "suite=[{name: p, attack: pgd, options: {step_size: 2}}]",
     "suite[0].options.step_size"),
    ("smoothing/digits", "judging.threat.eps=25.5", "judging.threat.eps"),
    ("smoothing/digits", "robust.recipe.threat.eps=8", "robust.recipe.threat.eps"),
    ("smoothing/digits", "robust.recipe.inner.step_size=2", "robust.recipe.inner.step_size"),
    ("smoothing/digits", "recipe.attack={eps: 1, eps_span: 2}", "recipe.attack.eps_span"),
    ("smoothing/digits", "judging.certified.sigma=64", "judging.certified.sigma"),
    ("alignment/spheres_pgd", "training.attack.eps=3", "training.attack.eps"),
    ("alignment/spheres_pgd", "training.attack.step_size=3", "training.attack.step_size"),
    ("alignment/spheres_pgd", "training.validation.eps=[8]", "training.validation.eps[0]"),
    ("alignment/mnist35_baseline", "evaluation.attacks=[{eps: [0.1, 2.01]}]",
     "evaluation.attacks[0].eps[1]"),
    ("alignment/mnist35_baseline", "evaluation.attacks=[{norm: l2, eps: [57]}]",
     "evaluation.attacks[0].eps[0]"),
]  # fmt: skip
NO_LENGTHS = (".inf", ".nan", "-.inf", "1e999999999", "1e400", "true", "[1]")


@pytest.mark.parametrize(("manifest", "override", "field"), TOO_LONG)
def test_lengths_are_checked_in_every_kind_of_manifest(manifest, override, field):
    with pytest.raises(ManifestError) as caught:
        load_manifest(MANIFESTS / f"{manifest}.yaml", [override])
    assert caught.value.path == field
    assert "than" in str(caught.value)


@pytest.mark.parametrize("value", NO_LENGTHS)
@pytest.mark.parametrize(
    ("manifest", "field"),
    [(manifest, field) for manifest, override, field in TOO_LONG if override.startswith(field)],
)
def test_what_is_no_length_is_refused(manifest, field, value):
    with pytest.raises(ManifestError, match=re.escape(field)):
        load_manifest(MANIFESTS / f"{manifest}.yaml", [f"{field}={value}"])


@pytest.mark.parametrize(
    ("manifest", "override"),
    [
        ("quickstart", "recipe.threat.eps=1"),
        ("quickstart", "recipe.threat={norm: l2, eps: 8}"),
        ("evaluation/autoattack", "threat={norm: l1, eps: 12}"),
        ("evaluation/autoattack", "threat={norm: l2, eps: 3}"),
        ("alignment/mnist35_baseline", "evaluation.attacks=[{eps: [2]}, {norm: l2, eps: [56]}]"),
        ("alignment/mnist35_baseline", "evaluation.attacks=[{attack: stadv, eps: [200]}]"),
    ],
)
def test_all_that_a_box_has_room_for_is_accepted(manifest, override):
    load_manifest(MANIFESTS / f"{manifest}.yaml", [override])


def test_the_library_has_the_same_check():
    for make in (ThreatConfig, JudgedThreat, ThreatModel):
        with pytest.raises(ValueError, match=r"wider than the pixel box.*8/255, not 8"):
            make(norm="linf", eps=8)
    with pytest.raises(ValueError, match=r"inner.step_size: 2 is wider"):
        Recipe(inner=InnerAttack(step_size=2))
    with pytest.raises(ValueError, match="step_size: 2 is wider"):
        AttackSpec("p", "pgd", {"step_size": 2.0}).check(ThreatModel("linf", 8 / 255))
    x, y = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    for norm, eps in (("l2", 8.0), ("l1", 50.0)):
        with pytest.raises(ValueError, match=f"longer than the {norm} diameter"):
            evaluate(lambda z: z.flatten(1), x, y, ThreatModel(norm, eps), suite="fgsm")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("threat.norm=Linf", "did you mean 'linf'?"),
        ("threat.norm=L2", "did you mean 'l2'?"),
        ("threat.norm=L∞", "did you mean 'linf'?"),
        ("data.name=CIFAR-10", "did you mean 'cifar10'?"),
        ("data.name=MNIST", "did you mean 'mnist'?"),
        ("data.split=Test", "did you mean 'test'?"),
        ("Threat={}", "did you mean 'threat'?"),
        ("kind=evaluation", "did you mean 'Evaluation'?"),
    ],
)
def test_other_spellings_are_recognised(override, hint):
    with pytest.raises(ManifestError) as caught:
        load_manifest(MANIFESTS / "evaluation/autoattack.yaml", [override])
    assert hint in str(caught.value)


def test_a_wrong_value_of_a_list_is_told_once():
    with pytest.raises(ManifestError) as caught:
        load_manifest(MANIFESTS / "quickstart.yaml", ["evaluation.attacks=[autoattack]"])
    assert str(caught.value).count("evaluation.attacks") == 1
    with pytest.raises(ManifestError, match=r"model.block: must be text or a list \(got 3\)"):
        load_manifest(MANIFESTS / "quickstart.yaml", ["model.block=3"])
