"""One way to take, join, pad and put rows, which forgets no field; and what would be lost."""

from dataclasses import MISSING, dataclass, fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustray.attacks import AttackResult, AttackSpec, ThreatModel, evaluate, fgsm
from robustray.attacks.engine.batches import Examples
from robustray.evaluation.audit.checks import audit
from robustray.evaluation.units.reference import ReferenceResult

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Extended(AttackResult):
    """A result with a field that nobody has thought of."""

    new_B: Tensor
    pair_B2: Tensor


def made(kind: type, count: int, base: int = 0):
    """A value of a class whose every column holds the rows' numbers."""
    number_B = torch.arange(base, base + count)
    return kind(**{f.name: number_B[:, None].expand(-1, k + 1) for k, f in enumerate(fields(kind))})


KINDS = [AttackResult, ReferenceResult, Extended, Examples]


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
@settings(deadline=None, max_examples=25)
def test_every_field_has_the_same_rows_whatever_is_done(kind, data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    whole = kind.cat([made(kind, n, at) for n, at in zip(sizes, starts, strict=True)])
    count = sum(sizes)
    rows = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True)))
    put = whole.put(rows, made(kind, len(rows), 100))
    padding = torch.arange(count + 3).clamp(max=count - 1)
    expected = torch.arange(count)
    placed = expected.clone()
    placed[rows] = torch.arange(100, 100 + len(rows))
    for found, numbers in [
        (whole, expected),
        (whole.take(rows), rows),
        (whole.take(slice(1, 3)), expected[1:3]),
        (whole.pad(count + 3), padding),
        (whole.to(CPU), expected),
        (put, placed),
    ]:
        assert type(found) is kind
        for field in fields(kind):
            column = getattr(found, field.name)
            assert torch.equal(column, numbers[:, None].expand_as(column)), field.name


@pytest.mark.parametrize("kind", [AttackResult, ReferenceResult])
def test_no_field_of_a_result_has_a_default_to_hide_behind(kind):
    assert all(f.default is MISSING and f.default_factory is MISSING for f in fields(kind))


class Flawed(torch.autograd.Function):
    """The identity, with a gradient that is not a number for the first class."""

    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, torch.nan)


W = torch.randn(27, 4, generator=torch.Generator().manual_seed(0))
X = torch.rand(20, 3, 3, 3, generator=torch.Generator().manual_seed(1))


class Net(torch.nn.Module):
    def forward(self, x):
        return Flawed.apply((x - 0.5).flatten(1) @ W)


Y = Net()(X).argmax(1)
THREAT = ThreatModel("linf", 0.05)


@pytest.mark.parametrize(
    ("attack", "options", "gradients"),
    [("fgsm", {}, 1), ("pgd", {"steps": 3}, 3), ("apgd-ce", {"n_iter": 3}, 4)],
)
def test_gradients_that_are_no_numbers_are_counted_to_the_end(attack, options, gradients):
    suite = [AttackSpec(attack, options=options)]
    found = evaluate(Net(), X, Y, THREAT, suite, batch_size=8, compute_shape=8)
    # Runs that happened to break their image are shorter.
    assert found.flawed[found.robust].tolist() == [gradients] * int(found.robust.sum())
    assert bool(found.robust.any())
    upstream = attack == "apgd-ce"
    if upstream:
        again = evaluate(Net(), X, Y, THREAT, suite, batch_size=8, mode="upstream")
        assert bool((again.flawed >= gradients).all())


def test_the_audit_does_not_call_them_finite():
    index = torch.arange(len(X))
    found = audit(Net(), Examples(X, Y, index), THREAT, seed=0, compute_shape=8)
    findings = {finding.check: finding for finding in found}
    assert findings["nan_gradient"].severity == "error"
    assert fgsm(Net(), X, Y, THREAT).flawed_B.tolist() == [1] * len(X)
