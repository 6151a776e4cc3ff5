"""SIGTERM, a draining node, a lost head: the study goes on, and nothing is charged for leaving."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.study_runs import Place, started, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.without_ray, pytest.mark.timeout(600)]

LONG_EPOCHS = """
kind: Sweep
name: small
seed: 3
model: {name: preact_resnet, depths: [1, 1, 1], widths: [0.5, 0.5, 0.5]}
recipe:
  threat: {eps: 0.1}
  inner: {steps: 3, step_size: 0.04}
  epochs: 2
  batch_size: 10
  augmentation: {crop_padding: 0, flip: false}
  selection: {start: 0.0, attack: pgd-10}
  ema: {decay: 0.9}
data: {name: digits, validation: 60, train_limit: 1200, test_limit: 60}
evaluation: {attacks: [fgsm]}
resources: {gpus: 0, cpus: 1, retries: {preemption: 0, backoff_seconds: 0.2}}
"""


def running_attempt(place: Place) -> int | None:
    attempts = place.attempts()
    if attempts and attempts[-1]["outcome"] == "running":
        return attempts[-1]["environment"]["process"]
    return None


@pytest.fixture(scope="module")
def undisturbed_long(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("long"), LONG_EPOCHS)
    assert place.run() == 0, place.log
    return place


def test_sigterm_gives_a_checkpoint_in_mid_epoch_and_costs_no_retry(undisturbed_long, tmp_path):
    place = Place(tmp_path, LONG_EPOCHS)
    with started(place) as process:
        worker = wait_for(lambda: running_attempt(place))
        os.kill(worker, signal.SIGTERM)
        assert process.wait(300) == 0, place.log
    outcomes = [attempt["outcome"] for attempt in place.attempts()]
    assert outcomes == ["preempted", "finished"], place.log
    assert "asked to stop" in place.log
    assert place.table() == undisturbed_long.table()
    first = place.attempts()[0]
    assert "after step" in first["message"]
    assert not list(place.folder.glob("store/studies/*/trials/*/partial/checkpoints/*/*"))
    resumed = [
        event
        for record in place.folder.glob("store/studies/*/trials/*/checkpoints/*/record.json")
        for event in json.loads(record.read_text())["info"]["journal"]
        if event["event"] == "resumed in mid-epoch"
    ]
    assert len(resumed) == 1
    assert resumed[0]["steps"] > 0


def test_ctrl_c_saves_the_step_in_mid_epoch_and_the_same_command_continues(
    undisturbed_long, tmp_path
):
    place = Place(tmp_path, LONG_EPOCHS)
    with started(place) as process:
        wait_for(lambda: running_attempt(place))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130, place.log
    (stopped,) = place.attempts()
    assert stopped["outcome"] == "preempted", place.log
    assert "after step" in stopped["message"]
    assert "stopping after this step; press again to end now" in place.log
    assert place.run() == 0, place.log
    assert place.table() == undisturbed_long.table()
    assert [attempt["outcome"] for attempt in place.attempts()] == ["preempted", "finished"]


@pytest.fixture
def cluster():
    """A cluster of a head without CPUs and one node with one, in processes of its own."""
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    found.add_node(num_cpus=1, wait=True)
    yield found
    found.shutdown()


def test_a_draining_node_hands_its_trial_on(undisturbed_long, cluster, tmp_path):
    place = Place(tmp_path, LONG_EPOCHS, RAY_ADDRESS=cluster.address)
    with started(place) as process:
        wait_for(lambda: running_attempt(place))
        (first,) = cluster.worker_nodes
        drain = [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
            *("--address", cluster.address, "--node-id", first.node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
            *("--deadline-remaining-seconds", "120"),
        ]
        subprocess.run(drain, check=True, capture_output=True)
        cluster.add_node(num_cpus=1, wait=True)
        assert process.wait(400) == 0, place.log
    assert [attempt["outcome"] for attempt in place.attempts()] == ["preempted", "finished"]
    assert place.table() == undisturbed_long.table()


@pytest.mark.long
def test_the_head_is_lost_and_a_new_cluster_continues(undisturbed_long, tmp_path):
    from ray.cluster_utils import Cluster

    def head():
        return Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )

    lost = head()
    place = Place(tmp_path, LONG_EPOCHS, RAY_ADDRESS=lost.address)
    try:
        with started(place) as process:
            wait_for(lambda: list(place.folder.glob("store/**/checkpoints/000001/record.json")))
            lost.shutdown()  # kills GCS, raylet and workers
            assert process.wait(300) != 0, place.log
    finally:
        lost.shutdown()
    new = head()
    place.environment["RAY_ADDRESS"] = new.address
    try:
        assert place.run() == 0, place.log
    finally:
        new.shutdown()
    assert place.table() == undisturbed_long.table()
    assert place.attempts()[-1]["outcome"] == "finished"
    assert len(place.attempts()) == 2
