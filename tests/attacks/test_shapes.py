import pytest
import torch
from torch import nn

from robustray.attacks import AttackSpec, ThreatModel, evaluate
from robustray.attacks.engine import oracle
from robustray.attacks.engine.inputs import Shapes, allow_larger, find_equal_shapes
from robustray.attacks.engine.network import Network
from robustray.attacks.engine.oracle import find_shapes


@pytest.mark.parametrize("full", [8, 24, 64, 128])
@pytest.mark.parametrize("smaller", [(), (32, 16, 8), (32,)])
def test_cuts_hold_all_rows_and_are_stable(full, smaller):
    shapes = Shapes(full, tuple(s for s in smaller if s < full))
    for rows in range(1, 3 * full):
        cut = shapes.cut(rows)
        assert rows <= sum(cut) == shapes.padded(rows) <= -(-rows // full) * full
        assert set(cut) <= {full, *shapes.smaller}
        assert shapes.cut(sum(cut)) == cut
        parts = list(shapes.slices(sum(cut)))
        assert [part.stop - part.start for part in parts] == list(cut)
        assert parts[-1].stop == sum(cut)


def test_small_rests_take_small_passes_unless_larger_ones_are_cheaper():
    shapes = Shapes(64, (32, 16, 8))
    assert shapes.cut(1) == (8,)
    assert shapes.cut(40) == (32, 8)
    assert shapes.cut(60) == (64,)
    assert shapes.cut(70) == (64, 8)


def test_only_shapes_of_the_same_bits_are_used():
    probe = torch.rand(64, 5)

    def evaluate(x):
        return [x * 3, x.sum(1) + (1e-7 if len(x) < 32 else 0)]

    assert find_equal_shapes(64, evaluate, probe) == Shapes(64, (32,))
    assert find_equal_shapes(24, lambda x: [x], probe[:24]) == Shapes(24, ())
    assert find_equal_shapes(64, lambda x: [x], probe) == Shapes(64, (32, 16, 8))


class Centred(nn.Module):
    """Depends on the rest of the batch, in the gradient alone."""

    def forward(self, x):
        flat = x.flatten(1)
        return flat[:, :3] + 1e-3 * (flat - flat.detach()).sum()


def test_models_that_look_at_their_batch_or_are_random_get_one_shape():
    image = torch.rand(2, 4, 4)
    for model in (Centred(), nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 3))):
        assert find_shapes(Network(model, torch.device("cpu")), 64, image, 3) == Shapes(64)


def test_cheap_networks_take_all_rows_at_once_where_that_gives_the_same_bits():
    asked = []

    def evaluate(x):
        asked.append(len(x))
        return [x * 3, x.sum(1) + (1e-7 if len(x) == 24 else 0)]

    probe = torch.rand(64, 5)
    shapes = find_equal_shapes(16, evaluate, probe[:16])
    asked.clear()
    shapes = allow_larger(shapes, 64, evaluate, lambda first, last: probe[first:last])
    assert asked == []
    assert shapes.cut(33) == (40,)
    assert shapes.cut(70) == (64, 8)
    assert shapes.cut(20) == (16, 8), "a pass of 24 has other bits"
    assert shapes.cut(88) == (64, 16, 8)
    assert asked == [16, 16, 16, 40, 16, 64, 8, 24], "each size is asked about once"
    for rows in range(1, 200):
        cut = shapes.cut(rows)
        assert rows <= sum(cut) == shapes.padded(rows)
        assert shapes.cut(sum(cut)) == cut


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_larger_passes_change_neither_verdicts_nor_points_nor_counts(norm, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.rand(90, 3, 5, 5)
    y = model(x).argmax(1)
    threat = ThreatModel(norm, 0.06 if norm == "linf" else 0.3)
    attacks = [
        AttackSpec("apgd-t", options={"n_iter": 20, "n_targets": 2}),
        AttackSpec("fab-t", options={"n_iter": 10, "n_targets": 2}),
        AttackSpec("square", options={"n_queries": 60}),
    ]

    def results(cheap):
        monkeypatch.setattr(oracle, "_CHEAP_S", cheap)
        return evaluate(model, x, y, threat, attacks, compute_shape=16)

    plain, larger = results(0.0), results(float("inf"))
    assert 0.1 < plain.robust_accuracy < 0.9
    assert plain.broken_by == larger.broken_by
    for name in ("robust", "x_adv", "forwards", "backwards", "flawed"):
        assert torch.equal(getattr(plain, name), getattr(larger, name)), name
