"""Steps replayed as CUDA graphs end where steps that are launched one by one do."""

import pytest
import torch

from robustray.alignment import graphed_step
from robustray.alignment.direct_generator import fit_direct_generator
from robustray.alignment.graphed_step import GraphedStep
from robustray.alignment.manifest import GeneratorTraining
from robustray.alignment.networks import SphereGenerator
from robustray.models.resnet18 import PointMLP
from tests.alignment.test_direct_generator import spheres

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_on_a_cpu_a_step_is_called_as_it_is():
    seen = []
    step = GraphedStep(lambda *inputs: seen.append(inputs) or inputs[0] * 2, "cpu")
    for number in range(6):
        assert step(torch.tensor(number), torch.tensor(0)).item() == 2 * number
    assert [int(first) for first, _ in seen] == list(range(6))


@needs_gpu
def test_a_graphed_training_is_the_plain_one(monkeypatch):
    settings = GeneratorTraining(
        lr=1e-3, batch_size=10, epochs=2, steps_per_epoch=20, average=0.5, selection="last"
    )
    found = []
    for eager in (3, 10**9):
        monkeypatch.setattr(graphed_step, "_EAGER", eager)
        torch.manual_seed(0)
        fitted = fit_direct_generator(
            SphereGenerator(16, 64), PointMLP(16, 64, 1), spheres("train", 10),
            spheres("validation", 50), settings, device="cuda",
        )  # fmt: skip
        found.append(fitted.weights)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-3, atol=1e-4, msg=name)
