"""The queue of units: no barrier, bundles, retries with budgets, stragglers started twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.manifest import Retries
from robustray.runtime.failures import Failure
from robustray.runtime.queue import Node
from robustray.runtime.unit_queue import Call, UnitQueue

RETRIES = Retries(preemption=2, out_of_memory=0, backoff_seconds=4.0, backoff_limit_seconds=10.0)


def chain(name, group="g", steps=3, examples=10.0, audit=None):
    """Units name/0 .. name/steps-1, each after the one before."""
    nodes = []
    for step in range(steps):
        after = (f"{name}/{step - 1}",) if step else ()
        after += (audit,) if audit and step == 1 else ()
        nodes.append(Node(f"{name}/{step}", group, f"{group}-{step}", after, examples))
    return nodes


def queue_of(*chains, **options):
    nodes = [node for nodes in chains for node in nodes]
    return UnitQueue(nodes, RETRIES, **{"bundle": 1, **options})


def done(queue, call, examples=10.0, seconds=None):
    queue.end(call)
    for name in call.names:
        queue.finish(name, examples, seconds)


def test_a_unit_follows_the_one_before_it_and_waits_for_no_other_range():
    queue = queue_of(chain("a"), chain("b"))
    first, second = queue.pop(0), queue.pop(0)
    assert {first.names, second.names} == {("a/0",), ("b/0",)}
    assert queue.pop(0) is None
    done(queue, first)
    assert queue.pop(0).names == ("a/1",), "b/0 still runs"


def test_a_unit_waits_for_everything_before_it():
    audit = Node("audit", "g", "audit")
    queue = queue_of(chain("a", audit="audit"), [audit])
    calls = [queue.pop(0), queue.pop(0)]
    by_name = {call.names[0]: call for call in calls}
    done(queue, by_name["a/0"])
    assert queue.pop(0) is None
    done(queue, by_name["audit"])
    assert queue.pop(0).names == ("a/1",)


def test_units_that_are_committed_are_not_handed_out():
    queue = queue_of(chain("a"), chain("b"), done={"a/0", "a/1", "b/1"})
    assert {queue.pop(0).names[0] for _ in range(3)} == {"a/2", "b/0", "b/2"}
    assert queue.pop(0) is None
    assert queue.unfinished == 3


def test_bundles_are_of_one_attack_and_fill_the_slots():
    chains = [chain(name, examples=10) for name in "abcdefgh"]
    queue = queue_of(*chains, bundle=5, slots=30)
    call = queue.pop(0)
    assert call.names == ("a/0", "b/0", "c/0"), "30 images fill the slots"
    done(queue, call, examples=2)
    assert queue.pop(0).names == ("d/0", "e/0", "f/0")
    assert queue.pop(0).names == ("g/0", "h/0"), "the longest chains first"
    assert queue.pop(0).names == ("a/1", "b/1", "c/1"), "few survivors: all there are"


def test_bundles_leave_work_for_other_workers_and_for_later():
    queue = queue_of(*[chain(name) for name in "abcdefgh"], bundle=16, slots=1000)
    sizes = [len(queue.pop(0, workers=2).names) for _ in range(6)]
    assert sizes == [2, 2, 1, 1, 1, 1]


def test_what_does_not_fill_a_pass_is_not_shared_out():
    queue = queue_of(*[chain(name, examples=3) for name in "abcdef"], bundle=16, fill=14)
    assert len(queue.pop(0, workers=2).names) == 5, "5 x 3 images fill 14 places"
    assert len(queue.pop(0, workers=2).names) == 1


def test_a_worker_stays_with_what_it_has_loaded_and_else_takes_something_new():
    queue = queue_of(chain("a", "g"), chain("b", "h", examples=99), chain("c", "i"))
    assert queue.pop(0, group="g").names == ("a/0",)
    assert queue.pop(0, group="g").names == ("b/0",), "a/1 is not ready; b is the longest"
    assert queue.pop(0).names == ("c/0",)


def test_lost_units_come_again_after_growing_waits_until_the_budget_is_spent():
    queue = queue_of(chain("a", steps=2))
    now, waits = 0.0, []
    for _ in range(3):
        call = queue.pop(now)
        queue.end(call)
        waits.append(queue.fail("a/0", Failure.PREEMPTION, now))
        assert queue.pop(now) is None
        now += waits[-1] or 0.0
    assert waits == [4.0, 8.0, None]
    assert queue.given_up == {"a/0": Failure.PREEMPTION, "a/1": Failure.PREEMPTION}
    assert queue.finished


def test_each_kind_of_failure_has_its_own_budget():
    queue = queue_of(chain("a", steps=1))
    queue.end(queue.pop(0))
    assert queue.fail("a/0", Failure.PREEMPTION, 0) == 4.0
    assert queue.pop(3.9) is None
    queue.end(queue.pop(5))
    assert queue.fail("a/0", Failure.OUT_OF_MEMORY, 5) is None


def test_a_slow_unit_is_started_a_second_time_and_only_once():
    queue = queue_of(chain("a", steps=1), chain("b", steps=1))
    slow, quick = queue.pop(0), queue.pop(0)
    assert queue.straggler(1.0) is None, "too early"
    done(queue, quick, seconds=4.0)
    assert queue.straggler(5.0) is None, "not overdue yet"
    again = queue.straggler(6.1)
    assert (again.names, again.again) == (slow.names, True)
    assert queue.straggler(100.0) is None
    done(queue, again)
    assert queue.finished
    queue.end(slow)
    assert queue.finish(slow.names[0], 10) is False, "the first commit wins"


def test_nothing_is_started_twice_while_something_is_ready():
    queue = queue_of(chain("a", steps=1), chain("b", steps=1))
    queue.pop(0)
    assert queue.straggler(1e6) is None
    queue.pop(0)
    assert queue.straggler(1e6) is not None


def test_the_second_copy_saves_a_unit_whose_first_worker_is_lost():
    queue = queue_of(chain("a", steps=1))
    first = queue.pop(0)
    second = queue.straggler(1e6)
    queue.end(first)
    assert queue.fail("a/0", Failure.PREEMPTION, 1e6) == 0.0, "it runs elsewhere"
    assert queue.pop(2e6) is None
    done(queue, second)
    assert queue.finished
    assert queue.attempt("a/0") == 2


def test_a_damaged_unit_is_done_again_before_those_that_follow_it():
    queue = queue_of(chain("a"))
    for _ in range(2):
        done(queue, queue.pop(0))
    call = queue.pop(0)
    assert call.names == ("a/2",)
    queue.end(call)
    assert queue.redo("a/1")
    queue.again("a/2")
    repeated = queue.pop(0)
    assert repeated.names == ("a/1",)
    assert queue.pop(0) is None
    done(queue, repeated)
    done(queue, queue.pop(0))
    assert queue.finished


def test_damage_without_end_is_noticed():
    queue = queue_of(chain("a", steps=1))
    for _ in range(3):
        done(queue, queue.pop(0))
        assert queue.redo("a/0")
    done(queue, queue.pop(0))
    assert not queue.redo("a/0")


def test_a_dropped_group_is_forgotten():
    queue = queue_of(chain("a", "g"), chain("b", "h"))
    queue.pop(0, group="g")
    queue.drop("g")
    assert queue.pop(0).names == ("b/0",)
    assert queue.unfinished == 3


def test_time_left_is_told_from_what_units_took():
    queue = queue_of(chain("a", steps=2), chain("b", steps=2))
    assert queue.seconds_left(1) is None
    done(queue, queue.pop(0), seconds=11.0)
    assert queue.seconds_left(1) == pytest.approx(33.0)
    assert queue.seconds_left(3) == pytest.approx(11.0)


def test_small_units_that_took_long_for_their_size_do_not_make_the_rest_long():
    costs = {"small": 1, "tiny": 1, "large": 1000, "last": 1000}
    queue = queue_of([Node(name, "g", name, (), 100, cost) for name, cost in costs.items()])
    for name, seconds in (("small", 2.0), ("tiny", 2.0), ("large", 100.0)):
        queue.finish(name, 0, seconds=seconds)
    assert queue.seconds_left(1) == pytest.approx(104, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_everything_is_handed_out_in_order_whatever_happens(data):
    """Random numbers of ranges, bundles and workers; random ends, losses and damage."""
    ranges = data.draw(st.integers(1, 6))
    chains = [chain(f"r{i}", data.draw(st.sampled_from("gh")), steps=3) for i in range(ranges)]
    retries = Retries(preemption=1000, backoff_seconds=1.0, backoff_limit_seconds=2.0)
    nodes = [node for nodes in chains for node in nodes]
    queue = UnitQueue(nodes, retries, bundle=data.draw(st.integers(1, 4)), slots=25)
    now, running, committed, losses = 0.0, [], set(), data.draw(st.integers(0, 8))
    for _ in range(400):
        if queue.finished:
            break
        now += 1.0
        call = queue.pop(now, workers=data.draw(st.integers(1, 3))) or queue.straggler(now)
        if call is not None:
            for name in call.names:
                assert all(before in committed for before in queue.node(name).after)
            running.append(call)
        if running and (call is None or now > 50 or data.draw(st.booleans())):
            ended: Call = running.pop(data.draw(st.integers(0, len(running) - 1)))
            queue.end(ended)
            lost = losses > 0 and data.draw(st.booleans())
            losses -= lost
            for name in ended.names:
                if lost:
                    queue.fail(name, Failure.PREEMPTION, now)
                else:
                    queue.finish(name, 5, 1.0)
                    committed.add(name)
    assert queue.finished
    assert committed == {node.name for node in nodes}
