"""Verdicts do not depend on the order in which runs are made."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.attacks.engine.runs import Run, RunBook, Spent


def sequential(outcomes):
    """The verdicts of making each example's runs one after the other: broken, run, passes."""
    verdicts = {}
    for row, ends in enumerate(outcomes):
        last = next((n for n, broken in enumerate(ends) if broken), len(ends) - 1)
        verdicts[row] = (ends[last], last, sum(10 * row + n + 1 for n in range(last + 1)))
    return verdicts


@settings(max_examples=60, deadline=None)
@given(
    outcomes=st.integers(1, 4).flatmap(
        lambda runs: st.lists(
            st.lists(st.sampled_from([False, False, True]), min_size=runs, max_size=runs),
            min_size=1,
            max_size=6,
        )
    ),
    seats=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_any_schedule_gives_the_sequential_verdicts(outcomes, seats, seed):
    chance = random.Random(seed)
    book = RunBook(range(len(outcomes)), len(outcomes[0]))
    sitting, verdicts = [], {}
    while len(verdicts) < len(outcomes):
        sitting += book.next(seats - len(sitting))
        if chance.random() < 0.5:
            sitting += book.ahead({run.row for run in sitting}, seats - len(sitting))
        assert len(set(sitting)) == len(sitting) <= seats
        run = sitting.pop(chance.randrange(len(sitting)))
        spent = Spent(10 * run.row + run.number + 1, 0, 0)
        verdict = book.enter(run, outcomes[run.row][run.number], spent, run.number)
        sitting = [other for other in sitting if not book.pointless(other)]
        if verdict is not None:
            assert verdict.row not in verdicts
            verdicts[verdict.row] = (verdict.broken, verdict.proof, verdict.spent.forwards)
    assert verdicts == sequential(outcomes)
    assert book.waiting == 0


def test_runs_ahead_are_those_of_the_lowest_number():
    book = RunBook([4, 7], 3)
    assert book.next(5) == [Run(4, 0), Run(7, 0)]
    assert book.ahead([4, 7], 3) == [Run(4, 1), Run(7, 1), Run(4, 2)]
    assert book.ahead([4, 7], 9) == [Run(7, 2)]
    assert book.ahead([4, 7], 9) == []


@pytest.mark.parametrize("late", [True, False])
def test_a_later_success_waits_for_the_runs_before_it(late):
    book = RunBook([0], 3)
    book.next(1)
    book.ahead([0], 2)
    assert book.enter(Run(0, 1), True, Spent(5, 5, 0), "second") is None
    assert book.pointless(Run(0, 2))
    assert not book.pointless(Run(0, 0))
    verdict = book.enter(Run(0, 0), not late, Spent(3, 2, 1), "first")
    assert verdict is not None
    assert verdict.broken
    assert (verdict.proof, verdict.spent) == (
        ("second", Spent(8, 7, 1)) if late else ("first", Spent(3, 2, 1))
    )
