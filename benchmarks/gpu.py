"""What only a GPU can show, in the order of its value, for a machine rented by the minute.

    python benchmarks/gpu.py --minutes 9 --out DIR
    python benchmarks/gpu.py --minutes 9 --out DIR              # goes on where that one stopped
    python benchmarks/gpu.py --minutes 5 --out DIR --device cpu --tiny      # a rehearsal

It writes gpu.json and gpu.md (see ``benchmarks/items.py``). Exit code 0 when nothing
is left to do, 1 when something is left or failed, 3 without a GPU.
"""

# ruff: noqa: E402 - imports follow a change of the path

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script, which has the name of a package that may be installed.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from benchmarks.items import Item, add_options, check_names, find_machine, run_program

_MARKS = ("needs a GPU", "needs a CUDA device")  # of tests that CPU machines skip


def list_items(device: str, tiny: bool) -> list[Item]:
    """Return the items, the most valuable first."""
    step = ["benchmarks/training.py", "--device", device, "--json", "FIGURES"]
    attack = ["benchmarks/autoattack.py", "--device", device, "--json", "FIGURES"]
    blocks = ["benchmarks/blocks.py", "--device", device, "--json", "FIGURES"]
    measure = ["-m", "robustray.cli", "plan", "--measure", "--manifest"]
    tests = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *find_gpu_tests()]
    if tiny:
        small = ["--depths", "1", "1", "1", "--widths", "0.25", "0.25", "0.25", "--batch", "8"]
        step += [*small, "--repeats", "2"]
        thin = ("--depths", "1", "--widths", "1", "--batch", "2", "--repeats", "2")
        attack += ["--model", "random-small", "--n", "8", "--eps", "0.5", "--only", "ours, float32"]
        return [
            Item("GPU tests", tuple(tests), 300),
            Item("TRADES step", tuple(step), 300),
            Item("blocks", (*blocks, *thin, "--only", "robust"), 300),
            Item("AutoAttack", tuple(attack), 300),
            Item("plan --measure", (*measure, "manifests/quickstart.yaml"), 300),
        ]
    items = [Item("GPU tests", tuple(tests), 120)]
    for model in ("wrn_28_10", "rrn_a1"):
        whole = (*step, "--model", model, "--batch", "128", "--repeats", "5")
        items.append(Item(f"TRADES step, {model}", whole, 180))
        compiled = (*whole, "--compile", "--only", "published", "compiled")
        items.append(Item(f"TRADES step, {model}, compiled", compiled, 240))
    a1 = ("--model", "rrn_a1", "--batch", "128", "--precision", "bfloat16", "--only", "robust, f")
    fused = (*step, "--model", "rrn_a1", "--batch", "128", "--repeats", "5", "--fused")
    flagship = [
        Item("blocks, rrn_a1", (*blocks, *a1, "--repeats", "20"), 120),
        Item("TRADES step, rrn_a1, fused", (*fused, "--only", "published", "bf16"), 180),
    ]
    random = (*attack, "--model", "random-wrn", "--n", "48", "--threads", "8")
    known = (*attack, "--model", "resnet4b-2", "--n", "500", "--repeats", "2", "--threads", "8")
    few = ("--only", "ours, float32", "ours, bf16")
    judged = [
        Item("AutoAttack, ResNet-4B", (*known, *few, "reference, TF32"), 200),
        Item("AutoAttack, WRN-28-10", (*random, *few), 200),
    ]
    plan = Item("plan --measure", (*measure, "manifests/sweeps/width_512.yaml"), 120)
    return [*items[:2], *flagship, judged[0], items[3], judged[1], items[2], plan, items[4]]


def find_gpu_tests() -> list[str]:
    """Return the files with tests that are skipped where there is no GPU."""
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if any(f'reason="{mark}' in path.read_text() for mark in _MARKS)
    ]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "gpu", 9.0)
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks: only a rehearsal")
    options = parser.parse_args()
    items = list_items(options.device, options.tiny)
    check_names(parser, options.again, items)
    return run_program(items, find_machine(options.device), options)


if __name__ == "__main__":
    sys.exit(main())
