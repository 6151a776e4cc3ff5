"""The trial queue: order, retries, back-off, budgets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.manifest import Retries
from robustray.runtime.failures import Failure
from robustray.runtime.queue import TrialQueue

RETRIES = Retries(
    preemption=3, out_of_memory=1, user_error=0, backoff_seconds=10, backoff_limit_seconds=25
)


def test_longest_first_and_ties_by_name():
    queue = TrialQueue([("b", 1.0), ("a", 1.0), ("c", 9.0)], RETRIES)
    assert [queue.pop(0) for _ in range(4)] == ["c", "a", "b", None]


def test_back_off_doubles_up_to_its_limit_and_the_budget_ends_it():
    queue = TrialQueue([("a", 1.0)], RETRIES)
    now, waits = 0.0, []
    while (name := queue.pop(now)) is not None:
        wait = queue.fail(name, Failure.PREEMPTION, now)
        if wait is None:
            break
        waits.append(wait)
        assert queue.pop(now + wait - 0.001) is None
        now += wait
    assert waits == [10, 20, 25]
    assert queue.given_up == {"a": Failure.PREEMPTION}
    assert queue.finished


def test_budgets_are_separate():
    queue = TrialQueue([("a", 1.0)], RETRIES)
    assert queue.fail(queue.pop(0), Failure.PREEMPTION, 0) == 10
    assert queue.fail(queue.pop(100), Failure.OUT_OF_MEMORY, 100) == 10
    assert queue.fail(queue.pop(200), Failure.PREEMPTION, 200) == 20
    assert queue.fail(queue.pop(300), Failure.OUT_OF_MEMORY, 300) is None


def test_a_user_error_is_final_at_once():
    queue = TrialQueue([("a", 1.0)], RETRIES)
    assert queue.fail(queue.pop(0), Failure.USER_ERROR, 0) is None
    assert queue.given_up == {"a": Failure.USER_ERROR}


def test_a_retried_long_trial_overtakes_short_ones():
    queue = TrialQueue([("long", 9.0), ("short", 1.0), ("shorter", 0.5)], RETRIES)
    assert queue.pop(0) == "long"
    queue.fail("long", Failure.PREEMPTION, 0)
    assert queue.pop(5) == "short"
    assert queue.pop(11) == "long"


@settings(max_examples=50, deadline=None)
@given(
    costs=st.lists(st.floats(0.1, 10), min_size=1, max_size=12),
    kinds=st.lists(st.sampled_from([None, *Failure]), max_size=200),
)
def test_every_trial_ends_exactly_once(costs, kinds):
    queue = TrialQueue([(str(i), cost) for i, cost in enumerate(costs)], RETRIES)
    outcomes, now = iter(kinds), 0.0
    while not queue.finished:
        name = queue.pop(now)
        if name is None:
            now += 25
            continue
        kind = next(outcomes, None)
        if kind is None:
            queue.succeed(name)
        else:
            queue.fail(name, kind, now)
    ended = [*queue.succeeded, *queue.given_up]
    assert sorted(ended) == sorted(str(i) for i in range(len(costs)))


def test_a_stopped_trial_is_neither_done_nor_given_up_and_never_comes_again():
    queue = TrialQueue([("a", 2.0), ("b", 1.0)], RETRIES)
    queue.stop(queue.pop(0))
    assert (queue.stopped, queue.succeeded, queue.given_up) == (["a"], [], {})
    assert queue.pop(1e9) == "b"
    assert not queue.finished
    queue.succeed("b")
    assert queue.finished


def test_an_empty_queue_is_finished():
    queue = TrialQueue([], RETRIES)
    assert queue.finished
    assert queue.pop(0) is None


@pytest.mark.parametrize("kind", list(Failure))
def test_every_kind_has_a_budget_in_the_manifest(kind):
    assert isinstance(getattr(RETRIES, kind.value), int)
