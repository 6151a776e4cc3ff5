"""Mixed classifiers against the formulas in float64, and what must not change in them."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from robustray.models import ModelError, create_model
from robustray.smoothing import PUBLISHED, Composite, Constants, MixingNetwork


def thin(name="cifar_resnet18", seed=0):
    torch.manual_seed(seed)
    return create_model(name, width=4, depths=(1, 1, 1, 1)).eval()


def mixing():
    torch.manual_seed(2)
    return MixingNetwork((4, 8, 8, 16), (4, 8, 8, 16), version=4)


def composite(**options):
    return Composite(thin(), thin("cifar_preact_resnet18", 1), **options).eval()


X = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gamma", [-3.0, 0.0, 2.5])
def test_a_fixed_weight_mixes_probabilities(gamma):
    model = composite(constants=Constants(gamma=gamma, std_scale=2.0, rob_scale=0.5))
    g, h = (base(X).double() for base in model.models)
    alpha = 1 / (1 + math.exp(-gamma))
    expected = (1 - alpha) * torch.softmax(2 * g, 1) + alpha * torch.softmax(0.5 * h, 1)
    assert torch.allclose(model(X).double().exp(), expected, atol=1e-6)
    assert torch.allclose(model(X).exp().sum(1), torch.ones(5), atol=1e-5)


def test_the_weight_follows_the_mixing_network_and_its_range():
    constants = Constants(
        gamma_scale=2, gamma_bias=1.3, alpha_scale=0.15, alpha_bias=0.84, std_scale=2
    )
    model = composite(mixing=mixing(), constants=constants)
    model.bn.running_mean.fill_(0.1)
    model.bn.running_var.fill_(0.5)
    answers = model.ask(X)
    assert model.policy_net is not None
    raw = model.policy_net.eval()(answers.accurate_features, answers.robust_features).double()[:, 0]
    gamma = (raw - 0.1) / math.sqrt(0.5 + 1e-5) * 2 + 1.3
    alpha = (torch.sigmoid(gamma) * 0.15 + 0.84)[:, None]
    g, h = (base(X).double() for base in model.models)
    expected = torch.log((1 - alpha) * torch.softmax(2 * g, 1) + alpha * torch.softmax(h, 1))
    log_probs, found = model.forward_with_gamma(X)
    assert torch.allclose(found.double(), gamma, atol=1e-4)
    assert torch.allclose(log_probs.double(), expected, atol=1e-5)
    alphas = model.alpha(found)
    assert ((alphas >= 0.84) & (alphas <= 0.99 + 1e-6)).all()


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("gamma", [-200.0, 0.0, 13.0, 17.0, 21.0, 500.0])
def test_a_weight_at_its_limit_leaves_finite_answers_and_gradients(name, gamma):
    constants = dataclasses.replace(PUBLISHED[name], gamma_scale=1.0, gamma_bias=gamma)
    model = composite(mixing=mixing(), constants=constants)
    x = X.clone().requires_grad_()
    log_probs, found = model.forward_with_gamma(x)
    log_probs[:, 0].sum().backward()
    assert log_probs.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    expected = constants.alpha_scale * torch.sigmoid(found.double()) + constants.alpha_bias
    assert torch.allclose(model.alpha(found).double(), expected, atol=1e-6)


def test_training_leaves_the_range_out_and_touches_only_the_mixing_network():
    model = composite(mixing=mixing(), constants=PUBLISHED["cifar10-edm"]).train()
    before = {k: v.clone() for k, v in model.models.state_dict().items()}
    gamma = model.forward_with_gamma(X)[1]
    assert torch.allclose(model.alpha(gamma), torch.sigmoid(gamma), atol=1e-6)
    (gamma * torch.arange(5.0)).sum().backward()
    assert not any(base.training for base in model.models)
    assert all(p.grad is None for p in model.models.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.models.state_dict().items())
    assert model.policy_net is not None
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.policy_net.parameters())


@pytest.mark.parametrize(("gamma", "base"), [(-math.inf, 0), (math.inf, 1)])
def test_one_base_alone(gamma, base):
    model = composite(constants=Constants(gamma=gamma, std_scale=2, rob_scale=3))
    scale = (2, 3)[base]
    expected = torch.log_softmax(scale * model.models[base](X), 1)
    assert torch.allclose(model(X), expected, atol=1e-6)
    assert (model.forward_with_gamma(X)[1] == gamma).all()


def test_far_apart_logits_neither_overflow_nor_become_minus_infinity():
    class Loud(nn.Module):
        def forward_features(self, x):
            logits = torch.tensor([[300.0, 0, -300]]).expand(len(x), 3)
            return logits.half(), (x, x)

    model = Composite(Loud(), Loud(), constants=Constants(gamma=0.0)).eval()
    log_probs = model(X)
    assert log_probs.isfinite().all()
    assert torch.allclose(log_probs[0], torch.tensor([0.0, -300.0, -600.0]), atol=1e-3)


def test_gradients_go_through_the_mixing_network_only_if_asked():
    found = []
    for graph in (True, False):
        model = composite(mixing=mixing(), policy_graph=graph, constants=Constants(gamma_scale=5))
        x = X.clone().requires_grad_()
        model(x)[:, 0].sum().backward()
        found.append(x.grad)
    assert (found[0] - found[1]).abs().max() > 0.01 * found[1].abs().max()


def test_a_scale_of_zero_leaves_a_constant_weight():
    model = composite(mixing=mixing(), constants=Constants(alpha_scale=0, alpha_bias=0.9))
    g, h = (torch.softmax(base(X).double(), 1) for base in model.models)
    with torch.no_grad():
        assert torch.allclose(model(X).double().exp(), 0.1 * g + 0.9 * h, atol=1e-6)


@pytest.mark.parametrize(
    "fields", [{"alpha_scale": 0.9, "alpha_bias": 0.2}, {"alpha_bias": -0.1}, {"std_scale": 0}]
)
def test_impossible_constants_are_refused(fields):
    with pytest.raises(ModelError):
        Constants(**fields)


def test_networks_of_the_catalogue_can_be_bases():
    torch.manual_seed(0)
    wide: Any = create_model("preact_resnet", depths=(1, 1, 1), widths=(1, 1, 1)).eval()
    logits, (first, second) = wide.forward_features(X)
    assert torch.equal(logits, wide(X))
    assert first.shape[-1] == 32
    assert second.shape[-1] == 16
    assert wide.feature_channels == (first.shape[1], second.shape[1])


COUNTS = {
    (64, 64, 4): 44_119_296, (64, 160, 4): 80_075_456, (160, 160, 4): 127_836_288,
    (256, 256, 4): 66_275_328, (512, 512, 4): 69_422_080, (512, 160, 4): 96_167_488,
    (512, 256, 4): 67_848_704, (64, 64, 3): 44_053_760, (64, 160, 3): 79_874_752,
}  # fmt: skip


@pytest.mark.parametrize("preset", COUNTS)
def test_mixing_networks_have_the_published_size(preset):
    with torch.device("meta"):
        network = MixingNetwork.preset(*preset)
    assert sum(p.numel() for p in network.parameters()) == COUNTS[preset]
    assert len(network.state_dict()) == {4: 77, 3: 76}[preset[2]]
    assert "layers.0.0.shortcut.0.weight" in network.state_dict()


def test_version_3_adds_and_refuses_what_can_not_be_added():
    network = MixingNetwork((4, 8, 8, 8), (4, 8, 8, 8), version=3)
    features = torch.rand(2, 4, 32, 32), torch.rand(2, 8, 16, 16)
    assert network(features, features).shape == (2, 1)
    with pytest.raises(ModelError, match="take version 4"):
        MixingNetwork.preset(512, 256, 3)


def test_published_composites_have_their_size():
    with torch.device("meta"):
        model = Composite(
            create_model("bit_r152x2", num_classes=100),
            create_model("dm_wrn_70_16", num_classes=100),
            MixingNetwork.preset(512, 256),
            resize=128,
        )
    assert sum(p.numel() for p in model.parameters()) == 567_385_375


def test_constants_are_saved_with_the_weights():
    model = composite(mixing=mixing(), constants=PUBLISHED["cifar10-edm"])
    names = list(model.state_dict())
    assert names[:7] == [field.name for field in dataclasses.fields(Constants)]
    assert {"models.0.conv1.weight", "policy_net.conv1x1.weight", "bn.running_var"} <= set(names)
    other = composite(mixing=mixing())
    assert not torch.allclose(other(X), model(X))
    other.load_state_dict(model.state_dict())
    assert other.constants.rob_scale == pytest.approx(0.3)
    assert torch.equal(other(X), model(X))


def test_a_bias_of_one_is_the_robust_base_alone():
    for part in (None, mixing()):
        model = composite(mixing=part, constants=Constants(gamma=0, alpha_scale=0, alpha_bias=1))
        assert torch.equal(model(X), torch.log_softmax(model.models[1](X), 1))
