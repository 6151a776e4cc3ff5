"""Functions replayed as CUDA graphs end where those that are called one by one do."""

import pytest
import torch

from robustray.alignment import direct_generator
from robustray.alignment.direct_generator import fit_direct_generator
from robustray.alignment.manifest import GeneratorTraining
from robustray.cuda_graphs import CudaGraphs, overwrite
from robustray.models.architectures.residual_generators import SphereGenerator
from robustray.models.architectures.resnet18 import PointMLP
from tests.alignment.test_direct_generator import spheres

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_on_a_cpu_a_function_is_called_as_it_is():
    seen = []
    step = CudaGraphs(lambda *inputs: seen.append(inputs) or (inputs[0] * 2,), eager=3)
    for number in range(6):
        assert step(torch.tensor(number), torch.tensor(0))[0].item() == 2 * number
    assert [int(first) for first, _ in seen] == list(range(6))


def test_what_is_held_may_change_places():
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    overwrite((one, two), (two, one))
    assert (one.item(), two.item()) == (2.0, 1.0)


@needs_gpu
@pytest.mark.parametrize("chained", [False, True])
def test_replays_are_calls_for_each_shape(chained):
    def step(x, y):
        return (x * 2 + y).sin(), y

    graphs = CudaGraphs(step, eager=1, chained=chained)
    for size in (3, 5, 3, 5, 3, 5):
        x, y = torch.rand(2, size, device="cuda")
        for _ in range(4):
            expected = step(x, y)
            x, y = graphs(x, y)
            assert all(map(torch.equal, (x, y), expected))
            x, y = x.clone(), y.clone()


@needs_gpu
def test_what_asks_the_host_or_draws_numbers_is_called_as_it_is():
    asks = CudaGraphs(lambda x: (x if bool((x >= 0).all()) else -x,), eager=0)
    assert asks(torch.ones(2, device="cuda"))[0].tolist() == [1, 1]
    draws = CudaGraphs(lambda x: (torch.rand_like(x),), eager=0, chained=True)
    x = torch.ones(2, device="cuda")
    assert not torch.equal(draws(x)[0].clone(), draws(x)[0])


@needs_gpu
def test_a_graphed_training_is_the_plain_one(monkeypatch):
    settings = GeneratorTraining(
        lr=1e-3, batch_size=10, epochs=2, steps_per_epoch=20, average=0.5, selection="last"
    )
    found = []
    for eager in (3, 10**9):
        monkeypatch.setattr(direct_generator, "EAGER", eager)
        torch.manual_seed(0)
        fitted = fit_direct_generator(
            SphereGenerator(16, 64), PointMLP(16, 64, 1), spheres("train", 10),
            spheres("validation", 50), settings, device="cuda",
        )  # fmt: skip
        found.append(fitted.weights)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-3, atol=1e-4, msg=name)
