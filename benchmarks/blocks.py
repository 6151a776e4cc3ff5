"""How fast robust blocks are where only the gradient of the input is wanted, as in an attack.

    OMP_NUM_THREADS=1 python benchmarks/blocks.py
    OMP_NUM_THREADS=1 python benchmarks/blocks.py --precision bfloat16 --widths 2 2 2
    python benchmarks/blocks.py --model rrn_a1 --device cuda --batch 128 --precision bfloat16

One run is a forward pass and its gradient, on copies of a network in evaluation mode: the layers
one by one; normalizations folded (what training attacks by default); fused (``fused_blocks``: on
CPUs the ends of blocks, on GPUs their branches too); grouped convolutions as dense ones with zeros.
Each is measured in both memory layouts. The network of basic blocks of the same widths is the
measure of what the machine gives: the last columns are GMAC/s, and their ratio to its folded copy.
On a GPU passes are replayed as CUDA graphs. Contenders take turns in one process.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from networks import describe_machine
from torch import Tensor, nn

from robustray.cuda_graphs import CudaGraphs
from robustray.models import RobustResBlock, create_model, profile
from robustray.training.frozen import FrozenCopy
from robustray.training.precision import Precision

Run = Callable[[], object]
_WARM = 3  # rounds that don't count


def main() -> None:
    """Measure, and print a table."""
    options = _options()
    torch.set_num_threads(options.threads)
    basic = "basic, folded" + (", channels-last" if options.device == "cuda" else "")
    runs, macs = make_contenders(options)
    if options.only:
        runs = {n: run for n, run in runs.items() if any(part in n for part in options.only)}
    print(f"{options.model} {options.widths}, batch {options.batch}, {options.precision}")
    print(describe_machine(options.device, options.threads))
    seconds = measure(runs, options)
    clock = "wall" if options.device == "cuda" else "cpu"
    rates = {name: 2 * macs[name] * options.batch / 1e9 for name in runs}
    print(f"{'':<36}{'ms ' + clock:>9}{'GMAC/s':>9}  to basic (least, most)")
    for name in runs:
        own = seconds[name][clock]
        cells = f"{statistics.median(own) * 1e3:>9.1f}{rates[name] / statistics.median(own):>9.1f}"
        if basic in runs:
            base = [rates[basic] / one for one in seconds[basic][clock]]
            ratios = [rates[name] / one / b for one, b in zip(own, base, strict=True)]
            cells += f"  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:<36}{cells}")


def measure(runs: dict[str, Run], options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each contender's runs, and keep them as they come."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in runs}
    for number in range(options.repeats + _WARM):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if options.device == "cuda":
                torch.cuda.synchronize()
            if number >= _WARM:
                seconds[name]["wall"].append(time.perf_counter() - wall)
                seconds[name]["cpu"].append(time.process_time() - cpu)
        if options.json and number >= _WARM:
            options.json.write_text(json.dumps({"rows": seconds}))
    return seconds


def make_contenders(options: argparse.Namespace) -> tuple[dict[str, Run], dict[str, float]]:
    """Return what is measured, and the multiply-accumulates of an image that count for each."""
    robust, basic = make_network(options, "robust"), make_network(options, "basic")
    models = {
        "robust, one by one": robust,
        "robust, folded": robust,
        "robust, fused": robust,
        "robust, dense": make_dense(robust),
        "basic, folded": basic,
    }
    runs: dict[str, Run] = {}
    macs: dict[str, float] = {}
    for last in ("", ", channels-last"):
        for name, model in models.items():
            counted = basic if model is basic else robust
            macs[name + last] = profile(counted, (3, 32, 32)).macs
            runs[name + last] = make_run(name, model, options, channels_last=bool(last))
    return runs, macs


def make_network(options: argparse.Namespace, block: str) -> nn.Module:
    """Return a network in evaluation mode, with statistics of random images."""
    torch.manual_seed(0)
    if options.model == "preact_resnet":
        depths, widths = tuple(options.depths), tuple(options.widths)
        model = create_model("preact_resnet", block=block, depths=depths, widths=widths)
    else:
        model = create_model(options.model if block == "robust" else "wrn_28_10")
    with torch.no_grad():
        model.train()(torch.rand(8, 3, 32, 32))
    return model.eval()


def make_run(
    name: str, model: nn.Module, options: argparse.Namespace, *, channels_last: bool
) -> Run:
    """Return a forward pass and its gradient on a batch, on a copy of a model."""
    dtype = getattr(torch, options.precision)
    precision = Precision(torch.device(options.device), dtype, channels_last)
    model = copy.deepcopy(model)
    precision.place(model)
    whole = model.requires_grad_(False)
    if "one by one" not in name:
        whole = FrozenCopy(model, precision, fused="fused" in name).module
    x = precision.images(torch.rand(options.batch, 3, 32, 32))

    def differentiate(x: Tensor) -> tuple[Tensor]:
        leaf = x.detach().requires_grad_()
        with precision.autocast():
            logits_BK = whole(leaf).float()
        return torch.autograd.grad(logits_BK.logsumexp(1).sum(), leaf)  # type: ignore[return-value]

    graphed = CudaGraphs(differentiate, eager=2)
    return lambda: graphed(x)


def make_dense(model: nn.Module) -> nn.Module:
    """Return a copy whose grouped convolutions are dense ones, with zeros between groups."""
    model = copy.deepcopy(model)
    for block in model.modules():
        if isinstance(block, RobustResBlock) and isinstance(block.conv2, nn.ModuleList):
            block.conv2 = nn.ModuleList(map(_as_dense, block.conv2))
    return model


@torch.no_grad()
def _as_dense(conv: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d)
    size = (conv.kernel_size[0], conv.kernel_size[1])
    dense = nn.Conv2d(
        conv.in_channels, conv.out_channels, size, conv.stride[0], size[0] // 2, bias=False
    )
    blocks = [torch.block_diag(*conv.weight[..., i, j].chunk(conv.groups))
              for i in range(size[0]) for j in range(size[1])]  # fmt: skip
    dense.weight.copy_(torch.stack(blocks, 2).view_as(dense.weight))
    return dense


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of robust blocks under attack.")
    parser.add_argument("--model", default="preact_resnet", help="a name of create_model")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 2, 2])
    parser.add_argument("--widths", type=float, nargs="+", default=[1, 1, 1])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--only", nargs="+", help="contenders whose names contain one of these")
    parser.add_argument("--json", type=Path, help="where to keep the seconds of each round")
    parser.add_argument("--repeats", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
