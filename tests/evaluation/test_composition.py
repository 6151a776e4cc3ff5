"""Networks that look at their batch: judged in declared batches, whatever the shards."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.errors import ManifestError
from robustray.evaluation.units.composed import BatchLayout, composed_logits, in_composition
from robustray.manifest import build_manifest
from robustray.models import create_model
from tests.evaluation.test_run import canonical, evaluate, monkeypatch_module, tracking

__all__ = ["monkeypatch_module", "tracking"]

pytestmark = pytest.mark.timeout(600)


@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from(["file", "random"]))
@settings(deadline=None)
def test_every_image_has_one_place(count, size, order):
    batches, which, place = BatchLayout(size, order, 3).places(count)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    for image in range(count):
        assert int(batches[int(which[image])][int(place[image])]) == image


@pytest.mark.parametrize("mode", ["literal", "frozen", "per_image"])
def test_an_image_at_its_place_is_judged_as_in_its_batch(mode):
    torch.manual_seed(0)
    model = create_model("robust_model_zoo_1", width=2, depths=(1, 1, 1), mode=mode).eval()
    x = torch.rand(7, 3, 32, 32)
    composition = BatchLayout(3, "random", 1)
    logits = composed_logits(model, x, composition)
    batches, which, place = composition.places(7)
    for image in range(7):
        inside: Any = in_composition(model, x[batches[int(which[image])]], int(place[image]))
        found = inside(x[image][None])[0]
        assert torch.allclose(found, logits[image], atol=1e-5)
        surrogate = inside.surrogate(x[image][None])[0]
        assert torch.allclose(surrogate, logits[image], atol=1e-5)
    twice = in_composition(model, x[:3], 1)(torch.stack([x[1], 1 - x[1]]))
    assert torch.allclose(twice[0], in_composition(model, x[:3], 1)(x[1:2])[0], atol=1e-6)


FIELDS = {
    "factory": {"function": "tests.helpers.worker_networks:Batchy", "arguments": {"contrast": 2.0}},
    "weights": None,
    "data": {"name": "digits", "first": 24},
    "composition": {"size": 8},
    "audit": True,
}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_shards_change_nothing_and_companions_are_audited(tmp_path):
    one, _ = evaluate(tmp_path / "one", shard_size=24, **FIELDS)
    other, _ = evaluate(tmp_path / "other", shard_size=7, batch_size=16, **FIELDS)
    assert canonical(one) == canonical(other)
    result = json.loads((one.folder / "result.json").read_text())
    assert result["composition"] == {"size": 8, "order": "file", "seed": 0}
    audit = {finding["check"]: finding for finding in result["audit"]}
    assert audit["batch_mates"]["severity"] == "warning"
    assert audit["companions"]["severity"] == "warning"
    assert "random batches of 8" in audit["companions"]["message"]
    assert 0 <= audit["robust_companions"]["measured"] <= audit["companions"]["measured"]
    moved, _ = evaluate(
        tmp_path / "moved",
        shard_size=24,
        **FIELDS | {"composition": {"size": 8, "order": "random"}},
    )
    assert moved.id != one.id
    assert canonical(moved)["table.csv"] != canonical(one)["table.csv"]


@pytest.mark.usefixtures("local_ray")
def test_an_honest_network_is_not_flagged_and_has_its_ordinary_verdicts(tmp_path):
    """Where batch mates don't matter, declared batches change nothing."""
    honest = FIELDS | {"factory": "tests.helpers.evaluation_tasks:trained_net"}
    declared, _ = evaluate(tmp_path / "declared", **honest)
    plain, _ = evaluate(tmp_path / "plain", **honest | {"composition": None, "audit": False})
    found = json.loads((declared.folder / "result.json").read_text())
    checks = {f["check"]: f["severity"] for f in found["audit"]}
    assert checks["companions"] == checks["robust_companions"] == checks["batch_mates"] == "ok"
    assert found["robust"] == json.loads((plain.folder / "result.json").read_text())["robust"]


def test_a_seed_without_a_random_order_is_refused():
    document = {"kind": "Evaluation", "model": "wrn_28_10", "weights": "w"}
    with pytest.raises(ManifestError, match="order of the file has no seed"):
        build_manifest({**document, "composition": {"seed": 3}})
