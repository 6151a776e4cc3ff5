"""A small trained network, tasks over it, and units made without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robustray.attacks import AttackSpec, Suite, ThreatModel, attack_suite
from robustray.attacks.engine.inputs import check_examples
from robustray.evaluation.images import load_images, ranges_of
from robustray.evaluation.task import Conditions, Subject, Task
from robustray.evaluation.units.compute import RangePart, compute
from robustray.evaluation.units.store import LoadedUnit, UnitOutcome, UnitStore
from robustray.manifest import JudgedData
from robustray.store import sha256_file

COUNT = 60
EPS = 0.12
SHAPE = 16


def small_net() -> nn.Module:
    """A network for 8x8 digits, untrained."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def digits(count: int = COUNT) -> JudgedData:
    return JudgedData(name="digits", first=count)


@cache
def _trained() -> dict[str, Tensor]:
    images = load_images(JudgedData(name="digits", split="train"), None)
    x, y = images.x_NCHW.float() / 255, images.y_N
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = small_net()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(60):
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: value.detach() for name, value in net.state_dict().items()}


def save_weights(folder: Path) -> Path:
    """Write the trained network's weights: some of its verdicts are robust, some are not."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "net.safetensors"
    save_file(_trained(), str(path))
    return path


def trained_net(path: str = "") -> nn.Module:
    """The network with its weights; a factory that needs no file when it is given none."""
    net = small_net()
    net.load_state_dict(load_file(path) if path else _trained())
    return net.eval()


SUITE = Suite(
    "small",
    (
        AttackSpec("weak", "pgd", {"steps": 1, "step_size": 0.05, "start": "none"}),
        AttackSpec("pgd", "pgd", {"steps": 3, "step_size": 0.05}),
        AttackSpec("dlr", "pgd", {"steps": 8, "step_size": 0.04, "loss": "dlr", "restarts": 2}),
    ),
)


def make_task(
    folder: Path,
    shard_size: int = 25,
    *,
    suite: Suite | str = SUITE,
    eps: float = EPS,
    seed: int = 0,
    name: str = "",
    adversarial: str = "all",
) -> Task:
    """A task over the first digits of the test set."""
    suite = attack_suite(suite)
    network = {
        "factory": "tests.helpers.evaluation_tasks:small_net",
        "arguments": {},
        "preprocessing": None,
        "surrogate": False,
    }
    weights = save_weights(folder)
    return Task(
        name=name,
        subject=Subject(network, sha256_file(weights)),
        data=digits(),
        ranges=ranges_of(load_images(digits(), None), shard_size),
        norm="linf",
        eps=eps,
        attacks=tuple(spec.describe() for spec in suite.attacks),
        attack_all=suite.attack_all,
        conditions=Conditions(seed, SHAPE, {"name": "robustray"}, adversarial=adversarial),
        columns=suite.columns,
    )


def compute_all(
    task: Task, units: UnitStore, *, starts: Sequence[int] | None = None, steps: int | None = None
) -> list[LoadedUnit]:
    """Compute and commit a task's units here, range by range."""
    images, model = load_images(task.data, None), trained_net()
    loaded: list[LoadedUnit] = []
    for range_ in task.ranges:
        if starts is not None and range_.start not in starts:
            continue
        chosen = images.select(slice(range_.start, range_.stop))
        examples = check_examples(chosen.x_NCHW, chosen.y_N, chosen.index_N)
        made: list[LoadedUnit] = []
        for unit in task.chain(range_)[:steps]:
            before = made[task.before(unit.position)] if unit.position else None
            part = RangePart(examples, before.verdicts if before else None)
            (found,) = compute(task, unit.position, model, [part], 64)
            identity = task.identity(range_, unit.position)
            previous = before.record.digest if before else None
            outcome = UnitOutcome(
                identity, previous, found.verdicts, found.adversarial, found.notes
            )
            units.commit(unit, outcome, {"attempt": 1})
            made.append(units.read(unit))
        loaded += made
    return loaded


THREAT = ThreatModel("linf", EPS)
