"""Training classifiers: the penalty's gradient, frozen norms, going on, and what it is for."""

from typing import Any

import pytest
import torch
from torch import nn

from robustray.alignment.classifier import alignment_loss, fit_classifier
from robustray.alignment.curves import error_curve
from robustray.alignment.delta_x import Exact, Nearest
from robustray.alignment.distances import TwoLogits, class_gradient
from robustray.alignment.metrics import ALPHA, alignment
from robustray.alignment.splits import StudySplit
from robustray.alignment.stages import ClassifierTraining, CurveAttack
from robustray.alignment.synthetic import draw_spheres, sphere_delta_x

SHAPE = 12


def spheres(role, count):
    index = torch.arange(count)
    x, y = draw_spheres(index, seed=3, purpose=role, dimensions=SHAPE)
    return StudySplit("spheres", f"spheres {role}", 2, x, y, index, sphere_delta_x)


def network(seed=0):
    torch.manual_seed(seed)
    return TwoLogits(
        nn.Sequential(nn.Linear(SHAPE, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 1))
    )


def settings(**changes):
    return ClassifierTraining.model_validate(
        {
            "batch_size": 20, "epochs": 3, "steps_per_epoch": 15, "optimizer": {"lr": 3e-3},
            "validation": {"eps": [0.02, 0.05, 0.1], "steps": 5}, **changes,
        }
    )  # fmt: skip


TRAIN, VALIDATION = spheres("train", 2000), spheres("validation", 60)
METHODS = {
    "baseline": {},
    "pgd": {"attack": {"eps": 0.05, "steps": 3, "step_size": 0.03}},
    "l_alpha": {"penalty": 1.0},
}


def train(method, **options):
    return fit_classifier(
        options.pop("model", None) or network(), TRAIN, VALIDATION,
        settings(method=method, **METHODS[method], **options.pop("changes", {})),
        box=None, delta_x=options.pop("delta_x", Exact(TRAIN) if method == "l_alpha" else None),
        **options,
    )  # fmt: skip


def test_the_penaltys_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    direction = torch.randn(4, 5, dtype=torch.float64)

    def source(x, y_B, target_B, index_B):
        return direction

    weight: Any = model[0].weight
    loss = alignment_loss(model, x, y, source, torch.arange(4))
    (found,) = torch.autograd.grad(loss, weight)
    with torch.no_grad():
        for row, column in ((0, 0), (3, 2), (6, 4)):
            values = []
            for step in (1e-6, -2e-6):
                weight[row, column] += step
                values.append(float(alignment_loss(model, x, y, source, torch.arange(4))))
            weight[row, column] += 1e-6
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(found[row, column]),
                                                                  abs=1e-6)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_training_goes_on_with_the_same_bytes(method):
    kept = {}

    def keep(epoch, metrics, state):
        kept[epoch] = (epoch, state())

    whole = train(method, on_epoch=keep)
    resumed = train(method, resumed=kept[1])
    assert resumed.metrics == whole.metrics
    for name, tensor in whole.weights.items():
        assert torch.equal(tensor, resumed.weights[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_measuring_alignment_changes_nothing_of_a_training(method):
    model, reports = network(), []
    changes = {"alignment": "both", "selection_start": 3}  # the last epoch
    found = train(
        method, model=model, changes=changes, delta_x=Exact(TRAIN),
        on_epoch=lambda epoch, metrics, state: reports.append(metrics),
    )  # fmt: skip
    last = train(method, changes={"selection_start": 3})
    assert ("train_alignment" in last.metrics) == (method == "l_alpha")
    for name, tensor in last.weights.items():
        assert torch.equal(tensor, found.weights[name]), name
    assert {name: found.metrics[name] for name in last.metrics} == last.metrics

    x, y = VALIDATION.images(), VALIDATION.y_N
    gradient = class_gradient(model.eval(), x, 1 - y, y)
    alpha = alignment(gradient, sphere_delta_x(x, y))
    assert found.metrics[f"{ALPHA}_val"] == pytest.approx(float(alpha.mean()), abs=1e-5)
    # On spheres delta-x is parallel to the point, and signs may cancel in one mean only.
    for one in reports:
        for suffix in ("val", "train"):
            assert one[f"alpha_x_{suffix}"] >= abs(one[f"{ALPHA}_{suffix}"]) - 1e-5
    if method == "l_alpha":
        for one in reports:
            assert one["train_alignment"] == pytest.approx(one[f"{ALPHA}_train"], abs=1e-4)


def test_without_a_delta_x_only_alpha_x_is_measured():
    found = train("baseline", changes={"alignment": "validation"}).metrics
    assert [name for name in found if "cosine" in name or name.endswith("_train")] == []
    assert 0 <= found["alpha_x_val"] <= 1


@pytest.mark.parametrize(("mode", "moved"), [("frozen", False), ("updated", True)])
def test_norms_keep_their_statistics_if_they_are_frozen(mode, moved):
    fitted = train("baseline", changes={"batch_norm": mode})
    mean = next(v for k, v in fitted.weights.items() if k.endswith("running_mean"))
    assert bool((mean != 0).any()) is moved


def test_the_penalty_aligns_gradients_and_makes_robust():
    found = {}
    for method in ("baseline", "l_alpha"):
        model = network()
        changes = {"epochs": 8, "steps_per_epoch": 60}
        fitted = train(method, model=model, changes=changes)
        model.load_state_dict(fitted.weights)
        cosine = alignment_loss(
            model, VALIDATION.images(), VALIDATION.y_N, Exact(TRAIN), VALIDATION.index_N
        )
        found[method] = float(cosine.detach()), fitted.metrics["epsilon_50_corrected"]
    assert found["l_alpha"][0] > found["baseline"][0] + 0.05
    assert found["l_alpha"][1] > found["baseline"][1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_curves_of_a_linear_classifier_are_known(norm):
    inner = nn.Linear(4, 1)
    with torch.no_grad():
        inner.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 0.0]]))
        inner.bias.zero_()
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    logit = x @ inner.weight[0].detach()
    y = (logit > 0).long()
    split = StudySplit("points", "points", 2, x, y, torch.arange(50))
    size = inner.weight.norm() if norm == "l2" else inner.weight.abs().sum()
    distance = (logit.abs() / size).detach()
    attack = CurveAttack(eps=(0.1, 0.3, 0.6), norm=norm, step_size=0.1, steps=60)
    curve = error_curve(TwoLogits(inner), split, attack, box=None)
    assert curve.errors[0.0] == 0
    for eps in attack.eps:
        assert curve.errors[eps] == pytest.approx(float((distance < eps).double().mean()), abs=0.03)


def test_the_nearest_example_of_a_class():
    known = StudySplit("points", "-", 3, torch.tensor([[0.0, 0], [1, 0], [0, 3]]),
                       torch.tensor([0, 1, 2]), torch.arange(3))  # fmt: skip
    x, y = torch.tensor([[0.1, 0.0]]), torch.tensor([0])
    source = Nearest(known)
    for target, delta in ((1, [0.9, 0.0]), (2, [-0.1, 3.0])):
        found = source(x, y, torch.tensor([target]), torch.tensor([0]))
        assert torch.allclose(found, torch.tensor([delta]))
