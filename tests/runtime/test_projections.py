"""The cache of projections on a real Ray: interrupted, resumed, byte-equal, mapped, checked."""

import os
import signal
import threading

import numpy as np
import pytest
import torch

from robustray.alignment.delta_x import project
from robustray.alignment.job.projections import (
    compute_projections,
    open_projections,
    plan_projections,
)
from robustray.alignment.manifest import Projection
from robustray.cluster import preemption
from robustray.errors import CorruptObjectError
from robustray.manifest import Resources
from robustray.models.architectures.conditional_networks import ConditionalGenerator
from robustray.store import LocalStore

pytestmark = [
    *(pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.long),
    pytest.mark.usefixtures("local_ray"),
]
SETTINGS = Projection(initial_steps=3, steps=2)
RESOURCES = Resources(gpus=0, cpus=1, max_concurrent=2)


def content(store):
    return {info.key: store.get(info.key) for info in store.list("projections/")}


def test_two_actors_interrupted_and_resumed_leave_the_same_bytes(tmp_path):
    torch.manual_seed(0)
    generator = ConditionalGenerator(3, 1, channels=2, latent=4)
    torch.nn.init.ones_(generator.bn.bias)  # rectifiers stay alive: every image has its own z
    x = torch.rand(22, 1, 28, 28) * 2 - 1

    def run(store, on_unit):
        plan = plan_projections(generator, x, (0, 2), SETTINGS, store, unit=5, compute_shape=5)
        return plan, compute_projections(plan, x, store, RESOURCES, on_unit=on_unit)

    whole, killed = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "killed")
    plan, finished = run(whole, lambda done, total: None)
    assert finished
    assert len(plan.units) == 10

    def interrupt(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    _, finished = run(killed, interrupt)
    assert not finished
    told = []
    _, finished = run(killed, lambda done, total: told.append((done, total)))
    assert finished
    assert told[0][0] >= 4
    assert told[-1] == (10, 10)
    assert content(killed) == content(whole)
    _, finished = run(killed, lambda done, total: pytest.fail("nothing was left to do"))
    assert finished

    mapped = open_projections(plan, killed, tmp_path / "cache")
    assert isinstance(mapped, np.memmap)
    assert mapped.shape == (22, 2, 1, 28, 28)
    assert len({image.tobytes() for pair in mapped for image in pair}) == 44
    expected, _ = project(generator, x, torch.full((22,), 2), SETTINGS, compute_shape=5)
    assert np.allclose(mapped[:, 1], expected.numpy(), atol=1e-5)

    other = Projection(initial_steps=3, steps=1)
    changed = plan_projections(generator, x, (0, 2), other, killed, unit=5, compute_shape=5)
    assert not {u.prefix for u in changed.units} & {u.prefix for u in plan.units}
    (payload,) = [
        k for k in content(killed) if k.startswith(plan.units[0].prefix) and "safetensors" in k
    ]
    killed.put(payload, b"damaged")
    with pytest.raises(CorruptObjectError):
        open_projections(plan, killed, tmp_path / "another")


def test_a_worker_that_is_asked_to_stop_keeps_what_its_actors_have_done(tmp_path, monkeypatch):
    asked, store = threading.Event(), LocalStore(tmp_path)
    monkeypatch.setattr(preemption, "_asked", asked)
    generator = ConditionalGenerator(3, 1, channels=2, latent=4)
    x = torch.rand(30, 1, 28, 28) * 2 - 1
    plan = plan_projections(generator, x, (0, 2), SETTINGS, store, unit=5, compute_shape=5)
    assert not compute_projections(
        plan, x, store, RESOURCES, on_unit=lambda done, total: asked.set()
    )
    done = sum(key.endswith("record.json") for key in content(store))
    assert 1 <= done < len(plan.units)
    asked.clear()
    assert compute_projections(plan, x, store, RESOURCES)
