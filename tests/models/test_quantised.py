"""The quantised networks: as TensorFlow computes them, in three modes, with and without BPDA."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robustray.cli import main
from robustray.models import ModelError, create_model, load_weights, profile
from robustray.models.architectures.quantised import QuantisedNetwork, Quantiser, frozen_copy
from robustray.models.weights.convert import freeze_weights
from robustray.models.weights.quantised_names import from_tensorflow

REFERENCE = Path(__file__).parent / "reference"
DATA = Path(__file__).resolve().parents[3] / "shared/data"
SPECS = Path(__file__).resolve().parents[3] / "shared/specs"


@pytest.fixture(params=[1, 2])
def reference(request):
    model = create_model(f"robust_model_zoo_{request.param}", width=4).eval()
    load_weights(model, REFERENCE / f"model_{request.param}")
    values = np.load(REFERENCE / f"model_{request.param}.npz")
    x = torch.from_numpy(values["images"]).permute(0, 3, 1, 2).contiguous()
    return model, x, values


def gradient(function, x, labels):
    x = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(function(x), labels, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def test_logits_and_gradients_are_tensorflows_without_quantisers(reference):
    model, x, values = reference
    model.quantise(False)
    np.testing.assert_allclose(model(x).detach().numpy(), values["plain_logits"], atol=2e-5)
    found = gradient(model, x, torch.from_numpy(values["labels"])).permute(0, 2, 3, 1).numpy()
    scale = np.abs(values["plain_gradient"]).max()
    np.testing.assert_allclose(found, values["plain_gradient"], atol=1e-4 * scale)


def test_the_quantiser_is_tensorflows_bit_for_bit():
    values = np.load(REFERENCE / "quantiser.npz")
    assert values["v"].size >= 4025
    found = Quantiser("literal")(torch.from_numpy(values["v"])).numpy()
    assert found.tobytes() == values["y"].tobytes()


def test_with_quantisers_rounding_is_amplified_and_nothing_else(reference):
    model, x, values = reference
    apart = np.abs(model(x).detach().numpy() - values["quantised_logits"]).max()
    assert apart < 0.5, "a staircase amplifies the last bit, but not to another network"


def test_published_gradients_are_nan_everywhere_and_straight_through_ones_finite(reference):
    model, x, values = reference
    labels = torch.from_numpy(values["labels"])
    assert gradient(model, x, labels).isnan().all()
    through = gradient(model.surrogate, x, labels)
    assert through.isfinite().all()
    assert (through != 0).float().mean() > 0.99
    assert torch.equal(model.surrogate(x), model(x))


@pytest.mark.parametrize(("model", "parameters"), [(1, 43_911_430), (2, 25_916_422)])
def test_published_parameter_counts(model, parameters):
    with torch.device("meta"):
        network = create_model(f"robust_model_zoo_{model}")
    assert isinstance(network, QuantisedNetwork)
    assert profile(network, (3, 32, 32)).parameters == parameters
    assert len(network.quantisers()) == {1: 12, 2: 14}[model]


@pytest.mark.parametrize("model", [1, 2])
def test_every_published_variable_is_mapped(model):
    file = SPECS / f"model_{model}_variables.json"
    if not file.exists():
        pytest.skip("the list of published variables is not at hand")
    shapes = {v["name"]: v["shape"] for v in json.loads(file.read_text())}
    with torch.device("meta"):
        network = create_model(f"robust_model_zoo_{model}")
        state = from_tensorflow({name: torch.empty(shape) for name, shape in shapes.items()})
    expected = network.state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def small(mode="literal", **options) -> QuantisedNetwork:
    torch.manual_seed(0)
    model = create_model("robust_model_zoo_1", width=2, depths=(1, 1, 1), mode=mode, **options)
    assert isinstance(model, QuantisedNetwork)
    return model.eval()


@pytest.mark.parametrize("mode", ["frozen", "per_image"])
def test_two_modes_are_ordinary_classifiers(mode):
    model, x = small(mode), torch.rand(6, 3, 32, 32)
    if mode == "frozen":
        model.calibrate(torch.rand(8, 3, 32, 32))
    assert not model.batch_dependent
    assert torch.allclose(model(x)[2], model(x[2:3])[0], atol=1e-4)


def test_the_published_mode_depends_on_batch_mates():
    model, x = small(), torch.rand(6, 3, 32, 32)
    assert model.batch_dependent
    assert (model(x)[:3] - model(x[:3])).abs().max() > 1e-3


def test_one_image_is_the_same_in_literal_and_per_image_mode():
    x = torch.rand(1, 3, 32, 32)
    assert torch.allclose(small()(x), small("per_image")(x), atol=1e-5)


def test_a_calibrated_network_repeats_the_calibration_batch_and_keeps_its_statistics(tmp_path):
    literal, frozen, x = small(), small("frozen"), torch.rand(5, 3, 32, 32)
    frozen_copy(frozen, literal, x)
    assert torch.allclose(frozen(x), literal(x), atol=1e-3)
    again = small("frozen")
    again.load_state_dict(frozen.state_dict())
    assert torch.equal(again(x), frozen(x))
    with pytest.raises(ModelError, match="only the mode frozen"):
        literal.calibrate(x)


def test_the_quantiser_takes_the_upper_step_and_half_steps_on_ties():
    v = torch.tensor([0.51, 0.55, 0.59, -0.51, 0.0, 1.0, -1.0])
    expected = torch.tensor([0.6, 0.6, 0.6, -0.5, 0.05, 1.05, -0.95])
    assert torch.allclose(Quantiser("literal")(v), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"), [({"mode": "other"}, "literal"), ({"width": 0}, "width")]
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ModelError, match=words):
        create_model("robust_model_zoo_1", **options)


def test_the_command_freezes_tensorflows_weights(tmp_path, capsys):
    if not DATA.is_dir():
        pytest.skip("the images are not at hand")
    output = tmp_path / "frozen.safetensors"
    command = ["weights", "freeze", str(REFERENCE / "model_1"), "--model", "robust_model_zoo_1"]
    command += ["--set", "width=4", "--output", str(output), "--data-root", str(DATA)]
    command += ["--parts", "data_batch_1", "--images", "20"]
    assert main(command) == 0
    assert "calibrated on 20 images" in capsys.readouterr().out
    model = create_model("robust_model_zoo_1", width=4, mode="frozen").eval()
    load_weights(model, output)
    x = torch.rand(3, 3, 32, 32)
    assert torch.allclose(model(x)[1], model(x[1:2])[0], atol=1e-4)


def test_only_quantised_networks_are_frozen(tmp_path):
    with pytest.raises(ModelError, match="statistics are fixed already"):
        freeze_weights("x", tmp_path / "y", "rrn_a1", torch.rand(2, 3, 32, 32))
