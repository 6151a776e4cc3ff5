"""The audit: each way to fool a judge is named, and an honest network is not."""

import pytest
import torch
from torch import nn

from robustray.attacks import ThreatModel
from robustray.attacks.engine.inputs import check_examples
from robustray.evaluation.audit.checks import audit, refusal
from robustray.evaluation.audit.findings import plain, worst
from robustray.evaluation.images import load_images
from tests.helpers.evaluation_tasks import EPS, digits, small_net, trained_net


class Around(nn.Module):
    """The trained network with something done to its input or output."""

    def __init__(self, before=None, after=None) -> None:
        super().__init__()
        self.net = trained_net()
        self._before, self._after = before or (lambda x: x), after or (lambda z: z)

    def forward(self, x):
        return self._after(self.net(self._before(x)))


class BatchStatistics(Around):
    """Normalises with the statistics of whatever else is in the batch."""

    def forward(self, x):
        return self.net((x - x.mean()) / x.std() * 0.4 + 0.3)


class Purified(Around):
    """Takes a gradient step of its own before it answers."""

    def forward(self, x):
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.net(inner).logsumexp(1).sum(), inner)
        return self.net(x - 0.01 * grad)


def found(model, norm="linf", eps=EPS):
    images = load_images(digits(), None)
    examples = check_examples(images.x_NCHW, images.y_N, images.index_N)
    findings = audit(model.eval(), examples, ThreatModel(norm, eps), seed=0, compute_shape=64)
    return {finding.check: finding for finding in findings}


def grave(findings):
    return {name for name, f in findings.items() if f.severity in ("warning", "error")}


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 1.0)])
def test_an_honest_network_passes_every_check(norm, eps):
    findings = found(trained_net(), norm, eps)
    assert grave(findings) == set()
    assert worst(plain(findings.values())) == "ok"
    assert len(findings) == 16


def test_quantised_inputs_have_no_gradient():
    def staircase(x):
        return torch.round(x * 16) / 16 + 0 * x

    findings = found(Around(before=staircase))
    assert findings["zero_gradient"].severity == "error"
    assert findings["zero_gradient"].measured == 1.0
    assert "random_points" not in findings, "an attack without a gradient says nothing"


def test_a_broken_graph_is_a_zero_gradient():
    findings = found(Around(before=lambda x: x.detach()))
    assert findings["zero_gradient"].severity == "error"
    assert "no gradient" in findings["zero_gradient"].message


def test_nan_gradients_are_an_error():
    def shaky(x):
        return torch.where(x == 0, torch.sqrt(x), x)  # the root's slope at 0, times 0

    findings = found(Around(before=shaky))
    assert findings["nan_gradient"].severity == "error"


def test_randomness_is_measured():
    findings = found(Around(before=lambda x: x + 0.1 * torch.randn_like(x)))
    assert findings["randomness"].severity == "error"
    assert findings["randomness"].measured > 1e-4
    assert findings["batch_mates"].severity == "info", "can't be told from the randomness"
    assert "the model draws random numbers" in findings["randomness"].message


def test_what_is_carried_over_is_not_called_chance():
    passes = []

    def counted(x):
        passes.append(1)
        return x + 0.01 * len(passes)

    findings = found(Around(before=counted))
    assert findings["randomness"].severity == "error"
    assert "draws no random numbers" in findings["randomness"].message
    assert "carries something over from one pass to the next" in findings["randomness"].message
    assert refusal(plain(findings.values())) is None


def test_a_model_that_looks_at_its_batch_is_refused():
    findings = found(BatchStatistics())
    assert findings["batch_mates"].severity == "error"
    assert "depends on the rest of its batch" in (refusal(plain(findings.values())) or "")


def test_huge_logits_saturate_the_cross_entropy():
    findings = found(Around(after=lambda z: 1000 * z))
    assert findings["logit_scale"].severity == "warning"
    assert findings["flat_cross_entropy"].severity == "warning"
    assert findings["zero_gradient"].severity == "ok", "margins still have one"
    assert findings["random_points"].severity == "ok", "and scale-free losses still attack"


def test_probabilities_are_recognised():
    assert found(Around(after=lambda z: z.softmax(1)))["probabilities"].severity == "warning"


def test_optimisation_within_the_forward_pass_is_noticed():
    findings = found(Purified())
    assert findings["inner_optimisation"].severity == "warning"
    assert findings["inner_optimisation"].measured == 1


def test_masked_gradients_lose_to_random_points_and_to_any_budget():
    def misleading(x):  # values of the image, slopes of its negative
        return (x - -x).detach() + -x

    findings = found(Around(before=misleading), eps=0.25)
    assert {"larger_eps", "random_points"} <= grave(findings)


def test_a_surrogate_lifts_the_gradient_findings():
    class WithSurrogate(Around):
        def surrogate(self, x):
            return self.net(x)

    findings = found(WithSurrogate(before=lambda x: torch.round(x * 16) / 16))
    assert findings["zero_gradient"].severity == "ok"
    assert findings["larger_eps"].severity == "ok"


def test_the_model_is_left_as_it_was():
    model = trained_net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad, backward = torch.autograd.grad, torch.autograd.backward
    images = load_images(digits(), None)
    examples = check_examples(images.x_NCHW, images.y_N, images.index_N)
    audit(model, examples, ThreatModel("linf", EPS), seed=0, compute_shape=64)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (torch.autograd.grad, torch.autograd.backward) == (grad, backward)
    assert all(p.grad is None for p in model.parameters())


def test_garbage_does_not_look_like_a_judgement():
    torch.manual_seed(0)
    untrained = found(small_net())
    assert untrained["clean_accuracy"].severity == "warning"
    assert "seems untrained" in untrained["clean_accuracy"].message
    constant = found(Around(after=lambda z: torch.arange(10.0) + 0 * z))
    assert {"clean_accuracy", "one_class"} <= grave(constant)
    scaled = found(Around(before=lambda x: x / 255))
    assert scaled["normalisation"].severity == "warning"
    assert "0..255" in scaled["normalisation"].message
    assert grave(found(Around(before=lambda x: 2 * x - 1))) >= {"normalisation"}
