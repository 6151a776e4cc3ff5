"""What a worker answers, without a cluster around it."""

import dataclasses

import pytest

from robustray.evaluation.units.worker import Order, Worker
from robustray.runtime.failures import Place
from robustray.store import LocalStore
from tests.helpers.evaluation_tasks import make_task, save_weights


@pytest.fixture
def worker(tmp_path) -> Worker:
    return Worker(Place(LocalStore(tmp_path / "store").uri, None, (), 1, 0, 64))


def first(task) -> list[Order]:
    return [Order(task.unit(task.ranges[0], 0), None, 1)]


def test_a_unit_is_computed_and_committed(worker, tmp_path):
    task = make_task(tmp_path)
    store = LocalStore(tmp_path / "store")
    key = f"weights/{task.subject.weights_sha256}"
    store.put_file(key, save_weights(tmp_path))
    task = dataclasses.replace(task, subject=dataclasses.replace(task.subject, weights_key=key))
    (reply,) = worker.attack(task, first(task))
    assert (reply.outcome, reply.message) == ("finished", "")
    assert reply.counts is not None
    assert reply.counts["examples"] == 25
    assert store.exists(f"{reply.prefix}/record.json")


WRONG = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
"""


def test_a_network_for_other_images_is_the_user_s_error(worker, tmp_path, monkeypatch):
    (tmp_path / "net_for_mnist.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    from robustray.evaluation.networks import build_network, state_digest
    from robustray.evaluation.task import Subject

    network = {"factory": "net_for_mnist:net", "arguments": {}, "preprocessing": None}
    subject = Subject(network, state_digest(build_network(network)))
    task = dataclasses.replace(make_task(tmp_path), subject=subject)
    for (reply,) in (worker.attack(task, first(task)), worker.audit(task, "audit")):
        assert reply.user
        assert reply.outcome == "user_error"
        assert reply.message.startswith("the network fails on images (1, 8, 8) of digits: Runtime")
