"""Surrogates that a manifest names: where gradients come from, and who is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustray import attacks
from robustray.attacks import AttackSpec, ThreatModel, input_gradient
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.inputs import check_examples
from robustray.attacks.surrogates.catalogue import put_surrogate
from robustray.errors import ManifestError, UserError
from robustray.evaluation.audit.checks import audit
from robustray.evaluation.images import facts_of, load_images
from robustray.evaluation.networks import describe_network
from robustray.evaluation.subjects import find_subject, load_subject
from robustray.evaluation.units.reference import run_reference
from robustray.manifest import build_manifest
from robustray.models import create_model
from robustray.store import LocalStore
from tests.evaluation.test_run import canonical, evaluate, monkeypatch_module, tracking
from tests.helpers.evaluation_tasks import digits, save_weights, trained_net
from tests.helpers.worker_networks import quantised

__all__ = ["monkeypatch_module", "tracking"]

QUANTISED = "tests.helpers.worker_networks:quantised"


def undefended(network: nn.Module, sign: float = 1.0) -> nn.Module:
    """A user's own surrogate: the same network without its first part."""
    return nn.Sequential(*list(network)[1:]) if sign > 0 else network  # type: ignore[arg-type]


def manifest(surrogate=None, overrides=(), **fields) -> Any:
    data = {"name": "digits", "first": 20}
    document = {"kind": "Evaluation", "suite": "fgsm", "data": data, "factory": QUANTISED}
    return build_manifest(document | {"surrogate": surrogate} | fields, overrides)


def load(tmp_path, *args, **fields):
    store, found = LocalStore(tmp_path / "store"), manifest(*args, **fields)
    subject = find_subject(found, facts_of(found.data), store)
    return subject, load_subject(subject, store)


def finite(model):
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return bool(input_gradient(model, x, lambda logits: logits[:, 0]).grad.isfinite().all())


def test_short_forms_and_overrides_mean_sections():
    assert manifest("straight-through") == manifest({"name": "straight-through"})
    assert manifest(overrides=["surrogate=twin"]) == manifest("twin")
    smooth = manifest("smooth", ["surrogate.options.alpha=[10, 1000]"])
    assert smooth.surrogate.options == {"alpha": (10, 1000)}
    own = "tests.evaluation.test_surrogates:undefended"
    assert manifest(own).surrogate.function == own


@pytest.mark.parametrize(
    "surrogate",
    [
        "straight-through",
        {"name": "smooth", "options": {"alpha": [10, 1000]}, "modules": ["0"]},
        {"name": "twin", "options": {"loss_values": "surrogate"}},
        {"name": "nes", "options": {"samples": 2}},
        "tests.evaluation.test_surrogates:undefended",
    ],
)
def test_gradients_come_from_it_and_verdicts_from_the_network(tmp_path, surrogate):
    subject, model = load(tmp_path, surrogate)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(model(x), quantised()(x))
    assert finite(model)
    plain, bare = load(tmp_path)
    assert not finite(bare)
    assert subject.digest != plain.digest
    assert json.loads(json.dumps(subject.network["surrogate"])) == subject.network["surrogate"]


def test_weights_are_loaded_into_the_network_behind_it(tmp_path):
    path = save_weights(tmp_path)
    fields = {"factory": "tests.helpers.evaluation_tasks:small_net", "weights": str(path)}
    _, model = load(
        tmp_path,
        {"name": "straight-through", "modules": ["ReLU"]},
        preprocessing={"mean": [0.5], "std": [0.25]},
        **fields,
    )
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(x), trained_net()((x - 0.5) / 0.25))


def test_networks_of_the_catalogue_have_theirs_replaced(tmp_path):
    options = {"width": 1, "depths": [1, 1, 1], "mode": "per_image"}
    made = create_model("robust_model_zoo_1", in_channels=1, **options)
    save_file(made.state_dict(), str(tmp_path / "net"))
    fields = {
        "factory": None,
        "model": {"name": "robust_model_zoo_1", **options},
        "weights": str(tmp_path / "net"),
    }
    found = {name: load(tmp_path, name, **fields)[1] for name in (None, "none", "twin")}
    assert {name: finite(model) for name, model in found.items()} == {
        None: True,
        "none": False,
        "twin": True,
    }
    own = "tests.evaluation.test_surrogates:identity"
    subject, model = load(tmp_path, own, **fields)
    assert "code_sha256" in subject.network["surrogate"]
    assert finite(model)


def identity(network: nn.Module) -> nn.Module:
    """Another function of a user's own."""
    network.quantise(False)  # type: ignore[operator]
    again = create_model("robust_model_zoo_1", in_channels=1, width=1, depths=(1, 1, 1))
    network.quantise(True)  # type: ignore[operator]
    again.quantise(False)  # type: ignore[operator]
    return again


@pytest.mark.parametrize(
    ("surrogate", "words"),
    [
        ("strait-through", "surrogate: surrogate is one of none, spsa"),
        ({"name": "smooth", "options": {"beta": 1}}, "does not take the option 'beta'"),
        ({"name": "smooth", "options": {"alpha": -1}}, "alpha is positive"),
        ({"name": "clipped", "modules": ["Conv9d"]}, "no component is called 'Conv9d'"),
        ({"name": "none", "function": "a:b"}, "give a name or a function"),
        ({}, "give a name or a function"),
        ({"function": "a:b", "modules": ["x"]}, "modules belongs to a name"),
        ("tests.evaluation.test_surrogates:nothing", "has no function 'nothing'"),
        ({"function": QUANTISED}, "surrogate.arguments"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(surrogate, words):
    with pytest.raises((ManifestError, UserError), match=words):
        describe_network(manifest(surrogate), facts_of(digits()))


def test_a_checkpoint_of_several_files_is_to_be_converted_first(tmp_path):
    reference = Path(__file__).parents[1] / "models/reference/model_1/checkpoint-0"
    model = {"name": "robust_model_zoo_1", "width": 4}
    data = {"name": "cifar10", "first": 20}
    with pytest.raises(ManifestError, match="robustray weights convert"):
        load(tmp_path, factory=None, model=model, weights=str(reference), data=data)


FIELDS = {
    "factory": QUANTISED,
    "weights": None,
    "data": {"name": "digits", "first": 24},
    "suite": [{"name": "apgd-ce", "attack": "apgd-ce", "options": {"n_iter": 25}}],
    "audit": False,
}


def test_the_reference_engine_takes_them_too():
    chosen = load_images(digits(24), None)
    examples = check_examples(chosen.x_NCHW, chosen.y_N, chosen.index_N)
    spec = AttackSpec("apgd-ce", "apgd-ce", {"n_iter": 10})
    bare, broken = quantised(), {}
    found = {
        "none": put_surrogate(bare, "none"),
        "straight-through": put_surrogate(bare, "straight-through"),
        "twin": put_surrogate(bare, "twin", loss_values="surrogate"),
    }
    for name, model in found.items():
        with judging(model):
            result = run_reference(
                model, examples, ThreatModel("linf", 0.12), spec, seed=0, batch_size=24
            )
        broken[name] = int(result.success_B.sum())
        assert (result.flawed_B.sum() > 0) == (name == "none")
    assert min(broken["straight-through"], broken["twin"]) > broken["none"] + 4


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_sharded_evaluations_break_what_hides_its_gradient(tmp_path):
    through = FIELDS | {"surrogate": "straight-through"}
    one, _ = evaluate(tmp_path / "one", shard_size=24, **through)
    other, _ = evaluate(tmp_path / "two", shard_size=16, **through)
    assert canonical(one) == canonical(other)
    robust = json.loads((one.folder / "result.json").read_text())["robust"]["accuracy"]
    images = load_images(digits(24), None)
    bare = attacks.evaluate(
        quantised(),
        images.x_NCHW,
        images.y_N,
        ThreatModel("linf", 0.12),
        suite=[AttackSpec("apgd-ce", "apgd-ce", {"n_iter": 25})],
    )
    assert bare.robust_accuracy > robust + 0.2


def test_the_audit_flags_masked_gradients_and_is_silent_with_a_surrogate():
    chosen = load_images(digits(24), None)
    examples = check_examples(chosen.x_NCHW, chosen.y_N, chosen.index_N)
    found = {}
    for name in ("none", "straight-through"):
        model = put_surrogate(quantised(), name)
        findings = audit(model, examples, ThreatModel("linf", 0.12), seed=0, compute_shape=24)
        found[name] = {finding.check: finding for finding in findings}
    assert found["none"]["nan_gradient"].severity == "error"
    assert "100 % of their pixels" in found["none"]["nan_gradient"].message
    assert found["straight-through"]["nan_gradient"].severity == "ok"
    assert {checks["batch_mates"].severity for checks in found.values()} == {"ok"}
