"""A verdict belongs to the example: batch size, order and shards change no bit of it."""

import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel, evaluate

COUNT = 80
CASCADE = ("fgsm", AttackSpec("twice", "pgd", {"steps": 5, "restarts": 2, "loss": "dlr"}))
AUTOATTACK = (  # every attack of AutoAttack, shortened
    AttackSpec("apgd-ce", options={"n_iter": 4, "n_restarts": 2}),
    AttackSpec("apgd-t", options={"n_iter": 5, "n_targets": 2}),
    AttackSpec("fab-t", options={"n_iter": 3, "n_targets": 1, "n_restarts": 2}),
    AttackSpec("square", options={"n_queries": 20}),
)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        )

    def forward(self, x):
        return x + self.body(x)


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2), Block(12), Block(12), nn.Flatten(), nn.Linear(12 * 36, 9)
    )
    x = torch.rand(COUNT, 3, 14, 14)
    return model, x, model.eval()(x).argmax(1)


def run(problem, rows, norm="linf", suite="pgd-20", **options):
    model, x, y = problem
    threat = ThreatModel(norm, 0.01 if norm == "linf" else 0.12)
    return evaluate(
        model, x[rows], y[rows], threat, suite=suite, index=rows, compute_shape=32, **options
    )


def assert_same(result, reference, rows):
    assert torch.equal(result.x_adv, reference.x_adv[rows])
    assert torch.equal(result.robust, reference.robust[rows])
    assert result.broken_by == [reference.broken_by[row] for row in rows.tolist()]
    assert torch.equal(result.forwards, reference.forwards[rows])
    assert torch.equal(result.backwards, reference.backwards[rows])


CASES = [("linf", "pgd-20"), ("l2", "cw-40"), ("l2", CASCADE)]
CASES += [("linf", AUTOATTACK), ("l2", AUTOATTACK)]


@pytest.fixture(scope="module", params=CASES)
def reference(request, problem):
    norm, suite = request.param
    result = run(problem, torch.arange(COUNT), norm, suite)
    assert 0.1 < result.robust_accuracy < 0.9
    return norm, suite, result


@pytest.mark.parametrize("batch_size", [1, 7, 250])
def test_batch_size_changes_nothing(problem, reference, batch_size):
    norm, suite, expected = reference
    rows = torch.arange(COUNT)
    assert_same(run(problem, rows, norm, suite, batch_size=batch_size), expected, rows)


def test_order_changes_nothing(problem, reference):
    norm, suite, expected = reference
    rows = torch.randperm(COUNT, generator=torch.Generator().manual_seed(9))
    assert_same(run(problem, rows, norm, suite), expected, rows)


@pytest.mark.parametrize("shards", [3, 8])
def test_shards_change_nothing(problem, reference, shards):
    norm, suite, expected = reference
    for rows in torch.arange(COUNT).chunk(shards):
        assert_same(run(problem, rows, norm, suite), expected, rows)


def test_memory_layout_changes_nothing(problem):
    model, x, y = problem
    threat, strides = ThreatModel("linf", 0.01), []

    def watched(x):
        strides.append(x.stride())
        return model(x)

    plain = evaluate(watched, x, y, threat, suite="pgd-10")
    half = len(strides)
    strided = evaluate(watched, x.to(memory_format=torch.channels_last), y, threat, suite="pgd-10")
    assert torch.equal(plain.x_adv, strided.x_adv)
    assert strides[:half] == strides[half:]


def test_seed_and_index_change_the_noise(problem):
    rows = torch.arange(COUNT)
    model, x, y = problem
    first, again, other = (run(problem, rows, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.x_adv, again.x_adv)
    assert not torch.equal(first.x_adv, other.x_adv)
    moved = evaluate(model, x, y, first.threat, "pgd-20", index=rows + 1, compute_shape=32)
    assert not torch.equal(first.x_adv, moved.x_adv)
