"""What fits on a cluster, and what a user is told when nothing does."""

import pytest

from robustray.cluster import Capacity, check_fits
from robustray.errors import UserError
from robustray.manifest import Resources

CPU_HEAD, GPU_NODE = (4.0, 0.0), (16.0, 8.0)


def test_a_live_node_is_enough():
    assert check_fits(Resources(gpus=8, cpus=16), Capacity((CPU_HEAD, GPU_NODE)))
    assert check_fits(Resources(gpus=0.25, cpus=1), Capacity((GPU_NODE,)))


@pytest.mark.parametrize(("gpus", "cpus"), [(9, 1), (1, 17), (0, 32)])
def test_more_than_any_node_has_is_refused(gpus, cpus):
    with pytest.raises(UserError, match=r"16 CPUs \+ 8 GPUs.*no autoscaler") as caught:
        check_fits(Resources(gpus=gpus, cpus=cpus), Capacity((CPU_HEAD, GPU_NODE)))
    assert caught.value.exit_code == 2


def test_two_nodes_together_are_not_one():
    with pytest.raises(UserError):
        check_fits(Resources(gpus=12, cpus=1), Capacity((GPU_NODE, GPU_NODE)))


def test_workers_may_lie_on_several_nodes_each_whole():
    twelve = Resources(workers=12, gpus=1, cpus=2)
    assert check_fits(twelve, Capacity((GPU_NODE, CPU_HEAD, GPU_NODE)))
    with pytest.raises(UserError, match="12 workers of 1 GPU and 2 CPUs each"):
        check_fits(twelve, Capacity((GPU_NODE, CPU_HEAD), ()))


@pytest.mark.parametrize(
    ("resources", "trials"),
    [
        (Resources(workers=3, gpus=1, cpus=1), 5),
        (Resources(workers=3, gpus=1, cpus=4), 2),
        (Resources(workers=2, gpus=0, cpus=0.1), 180),
        (Resources(workers=40, gpus=1), 1),
    ],
)
def test_trials_at_once_are_those_that_all_workers_fit(resources, trials):
    assert Capacity((GPU_NODE, CPU_HEAD, GPU_NODE)).trials_at_once(resources) == trials


@pytest.mark.parametrize(("nodes", "workers"), [(2, 12), (1, 8), (0, 3)])
def test_an_attempt_begins_with_as_many_workers_as_there_is_room_for(nodes, workers):
    elastic = Resources(workers=12, min_workers=3, gpus=1, cpus=2)
    capacity = Capacity((CPU_HEAD, *[GPU_NODE] * nodes))
    assert capacity.workers_now(elastic) == workers
    assert capacity.workers_now(Resources(workers=12, gpus=1)) == 12
    assert capacity.fits_live(elastic) == (nodes > 0)
