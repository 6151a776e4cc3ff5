"""How fast AutoAttack is: our engine against the reference package, on the same images.

    OMP_NUM_THREADS=1 python benchmarks/autoattack.py --model resnet4b-2 --n 500
    OMP_NUM_THREADS=1 python benchmarks/autoattack.py --model resnet4b-8 --n 500 --eps 8/255
    python benchmarks/autoattack.py --model resnet4b-2 --n 1000 --device cuda
    python benchmarks/autoattack.py --model random-wrn --n 64 --device cuda --only "ours, bf16"

The reference runs its own driver, ``run_standard_evaluation``, with its own batch size; ours is
``robustray.attacks.evaluate``. Both judge in true float32, with deterministic convolutions; on a
GPU the reference is measured with PyTorch's defaults (TF32) as well. Each contender is a process of
its own, and only one runs at a time; with several repeats they take turns and medians are given.
CPU time says more than wall time on a busy machine.

"floor" is the share of the wall time that the arithmetic would take at the machine's peak: passes
times multiply-accumulates, over the rate of a large matrix product in the type of the search. "net"
is the share that the same passes take when the network is fed full batches and nothing else is
done.
"""

# ruff: noqa: E402 - imports follow a change of the path

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing as mp
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script, which has the name of a package that may be installed.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from benchmarks.networks import CASES, describe_machine, images, network
from robustray.attacks import ThreatModel, evaluate
from robustray.attacks.engine import Examples, Network, Schedule, clean_logits
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import is_correct
from robustray.evaluation.units.reference_attacks import find_package
from robustray.manifest.fields import read_number
from robustray.models import profile

SUITE = "autoattack-standard"
_MOST = 0.6
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
REFERENCE = {
    "reference": {},
    "reference, frozen weights": {"frozen": True},
    "reference, TF32": {"defaults": True},
}
OURS = {
    "ours, float32": {},
    "ours, without graphs": {"graphs": False},
    "ours, channels-last": {"channels_last": True},
    "ours, bf16 search": {"channels_last": True, "search_dtype": "bfloat16"},
}


@dataclass(frozen=True)
class Measured:
    """One evaluation: seconds, robust images, passes, and seconds of those passes alone."""

    wall: float
    cpu: float
    robust: int
    forwards: int
    backwards: int
    floor: float
    net: float


def main() -> None:
    """Measure all contenders, and print a table."""
    options = _options()
    options.eps = options.eps or CASES[options.model].eps or find_eps(options)
    names = _contenders(options)
    print(_describe(options), flush=True)
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for turn in range(options.repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            found[name].append(_in_process(name, options))
            print(f"  {name}: {found[name][-1].wall:.2f} s", flush=True)
            keep(found, options)
    rows = {name: _median(runs) for name, runs in found.items()}
    print_table(rows, options.n)


def keep(found: dict[str, list[Measured]], options: argparse.Namespace) -> None:
    """Write what was measured so far: contender -> seconds, and the share of robust images."""
    if options.json is not None:
        rows = {
            name: {
                "wall": [run.wall for run in runs], "cpu": [run.cpu for run in runs],
                "robust": [run.robust / options.n for run in runs],
            }
            for name, runs in found.items() if runs
        }  # fmt: skip
        options.json.write_text(json.dumps({"rows": rows}))


def print_table(rows: dict[str, Measured], count: int) -> None:
    """Print times, ratios to the first row, verdicts, passes and shares."""
    heads = (
        "wall s",
        "CPU s",
        "x wall",
        "x CPU",
        "robust",
        "forwards",
        "backwards",
        "floor",
        "net",
    )
    print(f"{'':<27}" + "".join(f"{head:>10}" for head in heads))
    base = next(iter(rows.values()))
    for name, row in rows.items():
        cells = (
            f"{row.wall:.2f}", f"{row.cpu:.2f}",
            f"{base.wall / row.wall:.2f}", f"{base.cpu / row.cpu:.2f}",
            f"{row.robust / count:.2%}", f"{row.forwards}", f"{row.backwards}",
            f"{row.floor / row.wall:.1%}", f"{row.net / row.wall:.1%}",
        )  # fmt: skip
        print(f"{name:<27}" + "".join(f"{cell:>10}" for cell in cells))


def find_eps(options: argparse.Namespace) -> float:
    """Return a radius at which a network is robust on most images, as trained ones are."""
    torch.set_num_threads(options.threads)
    name, device = CASES[options.model].network, torch.device(options.device)
    model = network(name).to(device)
    x, y = (tensor.to(device) for tensor in images(name, options.n))
    eps = 32 / 255
    for _ in range(12):
        eps /= 2
        if evaluate(model, x, y, ThreatModel(options.norm, eps), "pgd-10").robust_accuracy >= _MOST:
            break
    return eps


def measure(name: str, options: argparse.Namespace) -> Measured:
    """Run one contender in this process."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = network(CASES[options.model].network).to(device)
    x, y = (tensor.to(device) for tensor in images(CASES[options.model].network, options.n))
    threat = ThreatModel(options.norm, options.eps)
    costs = _costs(model, x, name, options)
    run = _reference if name in REFERENCE else _ours
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    robust, forwards, backwards = run(model, x, y, threat, name, options)
    _wait(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    floor = (forwards + backwards) * costs.macs / costs.peak
    net = (forwards - backwards) * costs.forward + backwards * costs.gradient
    return Measured(wall, cpu, robust, forwards, backwards, floor, net)


class Counted(nn.Module):
    """A network that counts the images that pass forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        self.forwards += len(x)
        if x.requires_grad and torch.is_grad_enabled():
            x = x.view_as(x)
            x.register_hook(self._went_back)
        return self.model(x)

    def _went_back(self, grad: Tensor) -> None:
        self.backwards += len(grad)


def _reference(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    name: str,
    options: argparse.Namespace,
) -> tuple[int, int, int]:
    chosen = REFERENCE[name]
    model.requires_grad_(not chosen.get("frozen", False))
    counted = Counted(model)
    with nullcontext() if chosen.get("defaults") else judging(model):
        x_adv = run_package(counted, x, y, threat, options.seed, options.reference_batch)
        passes = counted.forwards, counted.backwards
        schedule = Schedule(64, options.batch)
        points = Examples(x_adv, y, torch.arange(len(y), device=y.device))
        logits = clean_logits(Network(model, x.device), points, schedule)
    return int(is_correct(logits, y).sum()), *passes


def run_package(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, batch_size: int
) -> Tensor:
    """Let the package's own driver run its standard version; return its points."""
    package = find_package()
    arguments: dict[str, Any] = {
        "norm": NORMS[threat.norm], "eps": threat.eps, "seed": seed,
        "version": "standard", "device": x.device,
    }  # fmt: skip
    batches = {"batch_size": batch_size}
    if package.name == "autoattack":
        arguments["verbose"], batches = False, {"bs": batch_size}
    driver = importlib.import_module(package.name).AutoAttack(model, **arguments)
    found = driver.run_standard_evaluation(x, y, **batches)
    return found[0] if isinstance(found, tuple) else found


def _ours(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    name: str,
    options: argparse.Namespace,
) -> tuple[int, int, int]:
    found = evaluate(
        model, x, y, threat, SUITE, options.seed, options.batch,
        compute_shape=options.compute_shape, **OURS[name],
    )  # fmt: skip
    return int(found.robust.sum()), int(found.forwards.sum()), int(found.backwards.sum())


@dataclass(frozen=True)
class _Costs:
    macs: int  # of one image forwards
    peak: float  # multiply-accumulates in a second
    forward: float  # seconds for one image in a full batch
    gradient: float  # forwards and backwards


def _costs(model: nn.Module, x: Tensor, name: str, options: argparse.Namespace) -> _Costs:
    dtype = torch.bfloat16 if "bf16" in name else torch.float32
    channels_last = bool(OURS.get(name, {}).get("channels_last"))
    net = Network(model, x.device, str(dtype).removeprefix("torch."), channels_last)
    full = x[torch.arange(options.compute_shape or 64) % len(x)].clone()
    size = 1024 if x.device.type == "cpu" else 8192
    a, b = (torch.rand(size, size, device=x.device).to(dtype) for _ in range(2))

    def gradient() -> None:
        point = full.detach().requires_grad_()
        torch.autograd.grad(net.search_path(point).float().sum(), point)

    def forward() -> None:
        with torch.no_grad():
            net.search_logits(full)

    model.requires_grad_(False)
    with judging(model):
        peak = size**3 / _best(lambda: a @ b, x.device)
        seconds = [_best(job, x.device) / len(full) for job in (forward, gradient)]
    macs = profile(model, tuple(x.shape[1:])).macs  # type: ignore[arg-type]
    return _Costs(macs, peak, *seconds)


def _best(job: Callable[[], object], device: torch.device, runs: int = 12) -> float:
    times = []
    for _ in range(runs):
        _wait(device)
        start = time.perf_counter()
        job()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _in_process(name: str, options: argparse.Namespace) -> Measured:
    context = mp.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, name, options).result()


def _median(runs: list[Measured]) -> Measured:
    columns = zip(*(vars(run).values() for run in runs), strict=True)
    return Measured(*(statistics.median_low(column) for column in columns))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _contenders(options: argparse.Namespace) -> list[str]:
    known = [*REFERENCE, *OURS]
    if "cuda" not in options.device:
        known.remove("reference, TF32")
        known.remove("ours, without graphs")
    if options.only:
        return [name for name in known if any(part in name for part in options.only)]
    return known


def _describe(options: argparse.Namespace) -> str:
    case, package = CASES[options.model], find_package()
    model = network(case.network)
    shape = tuple(images(case.network, 1)[0].shape[1:])
    macs = profile(model, shape).macs / 1e6  # type: ignore[arg-type]
    return (
        f"{case.network} ({macs:.2f} M MACs), {options.norm} eps {options.eps:.5f}, first "
        f"{options.n} test images, {SUITE}, seed {options.seed}, {options.repeats} run(s) each\n"
        f"{package.name} {package.version}, batches of {options.reference_batch}; ours: batch_size "
        f"{options.batch}, compute shape {options.compute_shape or 'default'}\n"
        f"{describe_machine(options.device, options.threads)}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of AutoAttack.")
    parser.add_argument("--model", choices=CASES, default="resnet4b-2")
    parser.add_argument("--n", type=int, default=500, help="images")
    parser.add_argument(
        "--eps", type=read_number,
        help="default: that of the model; with random weights, one that PGD-10 mostly fails at",
    )  # fmt: skip
    parser.add_argument("--norm", choices=NORMS, default="linf")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256, help="our batch_size")
    parser.add_argument("--compute-shape", type=int, help="default: 64, on GPUs 128")
    parser.add_argument("--reference-batch", type=int, default=250, help="its own default: 250")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to keep what was measured so far")
    parser.add_argument("--only", nargs="+", help="contenders whose names contain one of these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
