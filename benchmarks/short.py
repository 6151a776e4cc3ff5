"""What a processor shows in ten minutes: ours beside what others do, as ratios of one run.

    make bench
    python benchmarks/short.py --again "AutoAttack, tiny"

It writes cpu.json and cpu.md (see ``benchmarks/items.py``) into benchmarks/measured; the site's
page is made from them. Ratios are of processor time, one thread each: what else runs on the machine
disturbs them less. Exit code 0 when nothing is left to do, 1 when something is left or failed.
"""

# ruff: noqa: E402 - imports follow a change of the path

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script, which has the name of a package that may be installed.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from benchmarks.items import Item, add_options, check_names, find_machine, run_program


def list_items() -> list[Item]:
    """Return the items: attacks, a training step, robust blocks, and loading."""
    attack = ("benchmarks/autoattack.py", "--json", "FIGURES", "--repeats", "3")
    both = ("--only", "reference", "ours, float32")
    thin = ("--depths", "1", "1", "1", "--widths", "1", "1", "1", "--precision", "float32")
    step = ("benchmarks/training.py", "--json", "FIGURES", *thin, "--batch", "32")
    blocks = ("benchmarks/blocks.py", "--json", "FIGURES", "--depths", "1", "1", "1")
    return [
        Item("AutoAttack, tiny", (*attack, "--model", "digits-conv", "--n", "100", "--eps", "0.08",
                                  *both), 240),
        Item("AutoAttack, natural", (*attack, "--model", "natural", "--n", "100", *both), 180),
        Item("AutoAttack, weak", (*attack, "--model", "cnn-a-adv4", "--n", "20", *both), 240),
        Item("TRADES step, thin", (*step, "--repeats", "5"), 180),
        Item("robust blocks, thin", (*blocks, "--widths", "1", "1", "1", "--batch", "8",
                                     "--precision", "float32", "--repeats", "5"), 120),
        Item("loading", ("benchmarks/imports.py", "--json", "FIGURES", "--repeat", "3"), 120),
    ]  # fmt: skip


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "cpu", 20.0)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/measured", help="folder of cpu.json"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    options = parser.parse_args()
    if options.fresh:
        (options.out / f"{options.stem}.json").unlink(missing_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1"}
    items = list_items()
    check_names(parser, options.again, items)
    return run_program(items, find_machine("cpu"), options)


if __name__ == "__main__":
    sys.exit(main())
