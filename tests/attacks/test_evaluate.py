from dataclasses import replace

import pytest
import torch
from torch import nn

from robustray.attacks import (
    AttackSpec,
    Suite,
    ThreatModel,
    evaluate,
    fgsm,
    pgd,
    register_attack,
)
from robustray.random import ExampleRandom
from robustray.registry import ATTACKS

THREAT = ThreatModel("linf", 0.1)


def small_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4 * 6 * 6, 5),
    )


def images(count=20, seed=1):
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def labels(model, x):
    """The predictions, every fourth one made wrong."""
    was, y = model.training, model.eval()(x).argmax(1)
    model.train(was)
    y[::4] = (y[::4] + 1) % 5
    return y


@pytest.fixture
def problem():
    model, x = small_model(), images()
    return model, x, labels(model, x)


@pytest.mark.parametrize("suite", ["fgsm", "pgd-20", "cw-40"])
def test_study_suites_attack_every_image_and_judge_the_final_point(problem, suite):
    model, x, y = problem
    result = evaluate(model, x, y, THREAT, suite=suite)
    model.eval()
    assert torch.equal(result.clean_correct, model(x).argmax(1) == y)
    assert torch.equal(result.robust, model(result.x_adv).argmax(1) == y)
    assert result.clean_accuracy == 0.75
    assert result.robust_accuracy == result.robust.float().mean().item()
    steps = {"fgsm": 1, "pgd-20": 20, "cw-40": 40}[suite]
    assert result.forwards.tolist() == [steps + 2] * 20
    assert result.backwards.tolist() == [steps] * 20
    assert ((result.x_adv - x).abs().flatten(1).amax(1) > 0).all()
    for name, robust, clean in zip(
        result.broken_by, result.robust, result.clean_correct, strict=True
    ):
        assert name == (suite if clean and not robust else None)


def test_suites_run_the_attacks_as_written(problem):
    model, x, y = problem
    model.eval()
    result = evaluate(model, x, y, THREAT, suite="fgsm", compute_shape=24)
    torch.testing.assert_close(result.x_adv, fgsm(model, x, y, THREAT).x_adv)
    index = torch.arange(20) + 5
    result = evaluate(model, x, y, THREAT, "pgd-10", seed=3, index=index, compute_shape=24)
    rng = ExampleRandom(3, "pgd-10")
    direct = pgd(model, x, y, THREAT, rng=rng, index=index, steps=10, step_size=0.01, start="study")
    torch.testing.assert_close(result.x_adv, direct.x_adv)


def test_cascades_attack_only_what_is_still_robust(problem):
    model, x, y = problem
    strong = AttackSpec("strong", "pgd", {"steps": 10, "step_size": 0.03, "restarts": 2})
    weak = ThreatModel("linf", 0.02)
    result = evaluate(model, x, y, weak, suite=["fgsm", strong])
    assert {None, "fgsm"} <= set(result.broken_by) <= {None, "fgsm", "strong"}
    assert not (result.robust & ~result.clean_correct).any()
    wrong = ~result.clean_correct
    assert torch.equal(result.x_adv[wrong], x[wrong])
    assert (result.forwards[wrong] == 1).all()
    for row, name in enumerate(result.broken_by):
        if name == "fgsm":
            assert (result.forwards[row], result.backwards[row]) == (3, 1)
        if result.robust[row]:
            assert (result.forwards[row], result.backwards[row]) == (3 + 2 * 11, 1 + 2 * 10)
    model.eval()
    broken = torch.tensor([name is not None for name in result.broken_by])
    assert (model(result.x_adv[broken]).argmax(1) != y[broken]).all()
    assert weak.contains(result.x_adv, x).all()


def test_suites_on_all_images_need_every_attack_withstood(problem):
    model, x, y = problem
    strong, weak = (AttackSpec(f"by {step}", "pgd", {"step_size": step}) for step in (0.01, 1e-6))
    alone = evaluate(model, x, y, THREAT, suite=Suite("strong", (strong,), attack_all=True))
    both = evaluate(model, x, y, THREAT, suite=Suite("both", (strong, weak), attack_all=True))
    assert torch.equal(both.robust, alone.robust)
    assert both.broken_by == alone.broken_by
    broken = ~both.robust
    assert torch.equal(both.x_adv[broken], alone.x_adv[broken])
    assert both.forwards.tolist() == [1 + 2 * 21] * 20
    assert set(both.broken_by) == {None, "by 0.01"}


def test_the_model_is_left_as_it_was(problem):
    model, x, y = problem
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, x, y, THREAT, suite="pgd-10")
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert model.training
    assert not model[0].bias.requires_grad
    assert model[0].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_nothing_outside_changes(problem):
    model, x, y = problem
    given = x.clone()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.inference_mode():
        inside = evaluate(model, x, y, THREAT, suite="pgd-10")
    with torch.no_grad(), torch.autocast("cpu"):
        reduced = evaluate(model, x, y, THREAT, suite="pgd-10")
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
    torch.set_float32_matmul_precision("medium")
    medium = evaluate(model, x, y, THREAT, suite="pgd-10")
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, given)
    assert torch.equal(inside.x_adv, reduced.x_adv)
    assert torch.equal(inside.x_adv, medium.x_adv)


class Gate(nn.Module):
    """Zero gradients in the model itself: a step function in front of a linear layer."""

    def __init__(self, with_surrogate):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(128, 3)
        self.asked = 0
        if with_surrogate:
            self.surrogate = self._smooth

    def forward(self, x):
        return self.linear((x * 64).round().flatten(1) / 64 + 0 * x.flatten(1))

    def _smooth(self, x):
        self.asked += 1
        return self.linear(x.flatten(1))


def test_gradients_come_from_the_surrogate_and_verdicts_from_the_model():
    x, masked, open_model = images(40), Gate(with_surrogate=False), Gate(with_surrogate=True)
    y = masked(x).argmax(1)
    assert evaluate(masked, x, y, THREAT, suite="fgsm").robust_accuracy == 1
    result = evaluate(open_model, x, y, THREAT, suite="pgd-10")
    assert result.robust_accuracy < 0.4
    assert torch.equal(result.robust, open_model(result.x_adv).argmax(1) == y)
    assert open_model.asked == 10


def test_bytes_are_divided_by_255(problem):
    model, x, _ = problem
    x = (x * 255).round().to(torch.uint8)
    y = labels(model, x / 255)
    from_bytes = evaluate(model, x, y, THREAT, suite="pgd-10")
    from_floats = evaluate(model, x.float() / 255, y, THREAT, suite="pgd-10")
    assert torch.equal(from_bytes.x_adv, from_floats.x_adv)
    assert from_bytes.x_adv.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_models_of_other_precision_are_fed_in_it(problem, dtype, norm):
    model, x, y = problem
    model = model.to(dtype)
    threat = ThreatModel(norm, 0.1 if norm == "linf" else 0.5)
    result = evaluate(model, x, y, threat, suite="pgd-20")
    assert result.x_adv.dtype == torch.float32
    assert threat.contains(result.x_adv, x).all()
    assert result.robust_accuracy < result.clean_accuracy


def test_functions_can_be_evaluated():
    weight = torch.randn(128, 3, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(20, dtype=torch.int64)
    result = evaluate(lambda x: x.flatten(1) @ weight, images(), y, THREAT, suite="sweep-quick")
    assert 0 <= result.robust_accuracy <= result.clean_accuracy < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.rand(20, 2, 8, 8) * 2 + 0.5}, r"instead of \[0, 1\]; normalisation belongs"),
        ({"x": torch.full((20, 2, 8, 8), float("nan"))}, r"instead of \[0, 1\]"),
        ({"x": torch.rand(20, 2, 8, 8).half()}, "float64 in .* not torch.float16"),
        ({"x": torch.rand(20)}, r"images \(N, C, H, W\).*not float32 \(20,\)"),
        ({"x": torch.rand(0, 2, 8, 8)}, "N >= 1"),
        ({"x": [[0.0]]}, "not list"),
        ({"y": torch.zeros(20)}, r"y is a tensor of 20 integers, not float32 \(20,\)"),
        ({"y": torch.zeros(20, dtype=torch.bool)}, "not bool"),
        ({"y": torch.zeros(19).long()}, r"not int64 \(19,\)"),
        ({"y": torch.full((20,), 5)}, r"y ranges over 5\.\.5, but the model has 5 classes"),
        ({"y": torch.full((20,), -1)}, r"-1\.\.-1"),
        ({"index": torch.arange(3)}, "index is a tensor of 20 integers"),
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"compute_shape": 20}, "multiple of 8, not 20"),
        ({"suite": "pgd"}, r"suite is one of .*not 'pgd': that is an attack.*\['pgd'\]"),
    ],
)
def test_wrong_arguments_are_explained(change, message):
    model, x = small_model(), images()
    arguments = {"x": x, "y": labels(model, x), "threat": THREAT} | change
    with pytest.raises(ValueError, match=message):
        evaluate(model, **arguments)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: torch.where(x.mean((1, 2, 3), keepdim=True)[:, 0, 0] > 0.5, torch.nan, 0.0)
         * torch.ones(1, 5), "NaN for .* of 20 clean images, the first of index"),
        (lambda x: x, r"returns a float32 tensor \(64, 2, 8, 8\) for .* logits \(64, K\), K >= 2"),
        (lambda x: x.mean((1, 2, 3))[:, None], r"returns a float32 tensor \(64, 1\)"),
    ],
)  # fmt: skip
def test_models_that_return_no_logits_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, images(), torch.zeros(20).long(), THREAT)


def test_a_model_that_turns_nan_under_attack_is_broken():
    def fragile(x):
        mean_B = x.mean((1, 2, 3))
        logits_BK = torch.stack([9 + mean_B, torch.zeros_like(mean_B)], dim=1)
        return logits_BK.where(x.amin((1, 2, 3))[:, None] > 0.25, torch.nan)

    x = torch.full((9, 2, 8, 8), 0.5)
    x[:, 0, 0, 0] = 0.3
    result = evaluate(fragile, x, torch.zeros(9).long(), THREAT, suite="pgd-20")
    assert result.clean_accuracy == 1
    assert result.robust_accuracy == 0


def test_what_leaves_the_threat_model_is_no_adversarial_example():
    def careless(model, x, y, threat, *, rng, index):
        return replace(fgsm(model, x, y, threat), x_adv=(x + 2 * threat.eps).clamp(0, 1))

    register_attack("careless", careless)
    model, x = small_model(), images()
    try:
        with pytest.raises(ValueError, match=r"attack careless left the threat model \(linf, eps="):
            evaluate(model, x, labels(model, x), THREAT, suite=["careless"])
    finally:
        ATTACKS._entries.pop("careless")
