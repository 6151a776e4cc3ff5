"""Which networks of RobustBench, timm and torchvision can be built by name, and be judged.

    OMP_NUM_THREADS=1 python benchmarks/reach.py
    OMP_NUM_THREADS=1 python benchmarks/reach.py --only robustbench --write docs/results/reach.md

All records of RobustBench's CIFAR-10 networks are grouped by the class of their architecture, each
built on the meta device; of each class the smallest network is judged. Ten networks of timm and
five of torchvision follow. Weights are random, as files of weights can't be had everywhere, so
labels are the network's own answers: an attack then has something to break, and nothing is learnt
about robustness. Images are the first 8 of CIFAR-10's test set, resized to what the network
declares. Each network has a process of its own, forked from one that has imported the libraries.
"""

# ruff: noqa: E402 - imports follow a change of the path

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import platform
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from robustray.attacks import ThreatModel, evaluate
from robustray.errors import UserError
from robustray.evaluation.images import load_images
from robustray.manifest.evaluation import JudgedData
from robustray.models import create_model, declared_input
from robustray.models.libraries.robustbench import LIBRARY, Record

COUNT, EPS, ATTACK = 8, 8 / 255, "fgsm"
TIMM = (
    "resnet18.a1_in1k",
    "mobilenetv3_small_050.lamb_in1k",
    "efficientnet_b0.ra_in1k",
    "regnety_002.pycls_in1k",
    "convnext_atto.d2_in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "deit_tiny_patch16_224.fb_in1k",
    "xcit_nano_12_p16_224.fb_in1k",
    "mobilevit_xxs.cvnets_in1k",
    "swin_tiny_patch4_window7_224.ms_in1k",
)
TORCHVISION = (
    "resnet18",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "convnext_tiny",
)


@dataclass(frozen=True)
class Case:
    """A network that is judged: its name, options and classes, and what it stands for."""

    name: str
    options: dict[str, Any]
    family: str
    others: int = 0


@dataclass(frozen=True)
class Row:
    """What came of it; ``words`` say why where it did not work."""

    parameters: int = 0
    size: int = 0
    robust: int | None = None
    memory: float = 0.0
    words: str = ""


def families() -> Iterator[Case]:
    """Yield the smallest network of each class of architecture of RobustBench's CIFAR-10 part."""
    found: dict[str, list[tuple[int, Record]]] = {}
    for record in LIBRARY.records():
        if record.data == "cifar10":
            family, size = _class_of(record)
            found.setdefault(family, []).append((size, record))
    for family, members in sorted(found.items()):
        _, smallest = min(members, key=lambda member: member[0])
        options = {"dataset": "cifar10", "threat_model": smallest.threat, "trained": False}
        yield Case(f"robustbench:{smallest.name}", options, family, len(members) - 1)


def _class_of(record: Record) -> tuple[str, int]:
    """Return the class that a record builds, as RobustBench's modules call it, and its size."""
    options = {"dataset": record.data, "threat_model": record.threat, "trained": False}
    try:
        with torch.device("meta"):
            network = create_model(f"robustbench:{record.name}", num_classes=10, **options)
    except (UserError, RuntimeError, NotImplementedError):
        return _unbuilt(record), 0
    size = sum(parameter.numel() for parameter in network.parameters())
    for kind in type(network).__mro__:
        if kind.__module__.startswith("robustbench.model_zoo.architectures"):
            return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}", size
    return f"{type(network).__module__.rpartition('.')[2]}.{type(network).__name__}", size


def _unbuilt(record: Record) -> str:
    """Name a class that can't be built without numbers, by the function that was to build it."""
    code = getattr(record.build, "__code__", None)
    listed = code.co_names if code is not None else ()
    names = [name for name in listed if name not in ("timm", "create_model", "nn", "SiLU")]
    return f"{'.'.join(names) or record.name}()"


def judge(case: Case, images: Tensor) -> Row:
    """Build a network, and let one attack try the images."""
    classes = 10 if case.name.startswith("robustbench:") else 1000
    facts = declared_input(case.name, {**case.options, "num_classes": classes})
    assert facts is not None
    torch.manual_seed(0)
    network: nn.Module = create_model(case.name, num_classes=classes, **case.options).eval()
    size = sum(parameter.numel() for parameter in network.parameters())
    x = functional.interpolate(images, facts.size, mode="bilinear", antialias=True).clamp(0, 1)
    with torch.no_grad():
        y = network(x).argmax(1)
    result = evaluate(
        network, x, y, ThreatModel("linf", EPS), [ATTACK], compute_shape=COUNT, check=False
    )
    return Row(
        parameters=size,
        size=facts.size[0],
        robust=int(result.robust.sum()),
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def _work(case: Case, images: Tensor, answers: Connection) -> None:
    try:
        with redirect_stdout(StringIO()):
            row = judge(case, images)
    except Exception as error:
        row = Row(words=" ".join(f"{type(error).__name__}: {error}".split())[:300])
    answers.send(row)


def judge_apart(case: Case, images: Tensor, limit: float) -> Row:
    """Judge a network in a process of its own, for at most ``limit`` seconds."""
    context = mp.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(case, images, there))
    process.start()
    there.close()
    try:
        if not here.poll(limit):
            return Row(words=f"not done after {limit:g} s")
        return here.recv()
    except EOFError:
        process.join()
        return Row(words=f"the process ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def table(cases: Sequence[Case], rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    heads = ("network", "class", "more of it", "parameters", "pixels", "judged", "GiB")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for case, row in zip(cases, rows, strict=True):
        judged = row.words or f"yes: {COUNT - row.robust} of {COUNT} broken"  # type: ignore[operator]
        numbers = ("", "", judged, "") if row.words else (
            f"{row.parameters / 1e6:.1f} M", f"{row.size}", judged,
            f"{row.memory:.1f}",
        )  # fmt: skip
        more = f"{case.others}" if case.name.startswith("robustbench:") else ""
        lines.append(f"| `{case.name}` | {case.family} | {more} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main() -> None:
    """Judge all of them and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=("robustbench", "timm", "torchvision"))
    parser.add_argument("--limit", type=float, default=300, help="seconds for each network")
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    images = load_images(JudgedData(name="cifar10", first=COUNT), None).x_NCHW.float() / 255
    cases: list[Case] = []
    if options.only in (None, "robustbench"):
        cases += families()
    for library, names in (("timm", TIMM), ("torchvision", TORCHVISION)):
        if options.only in (None, library):
            kinds = [f"{library}:{name}" for name in names]
            cases += [Case(kind, {"trained": False}, "") for kind in kinds]
    rows = []
    for case in cases:
        rows.append(judge_apart(case, images, options.limit))
        print(f"{case.name}: {rows[-1]}", file=sys.stderr, flush=True)
    names = ("robustbench", "timm", "torch", "torchvision")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    done = sum(not row.words for row in rows)
    text = (
        f"{done} of {len(rows)} were built and judged. {versions}; Python "
        f"{platform.python_version()}, {os.environ.get('OMP_NUM_THREADS', 'several')} thread(s) on "
        f"a CPU, {ATTACK}, linf, eps = 8/255.\n\n{table(cases, rows)}\n"
    )
    print(text)
    if options.write:
        page = options.write.read_text() if options.write.exists() else ""
        head = page.partition("<!-- table -->")[0]
        options.write.write_text(f"{head}<!-- table -->\n\n{text}")


if __name__ == "__main__":
    main()
