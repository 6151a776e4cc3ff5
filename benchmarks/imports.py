"""How long faces and commands take to load, as ratios to ``import torch``.

    python benchmarks/imports.py --repeat 3

Each is loaded in a process of its own, in turn with the others; the smallest processor time counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_CODES = {
    "torch": "import torch",
    "robustray": "import robustray",
    "robustray --version": "from robustray.cli import main; main(['--version'])",
    "robustray run --help": "from robustray.cli import main; main(['run', '--help'])",
    **{
        f"robustray.{path.parent.name}": f"import robustray.{path.parent.name}"
        for path in sorted(ROOT.glob("robustray/*/__init__.py"))
    },
}
_MEASURE = """
import contextlib, io, sys, time
before = time.process_time()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    exec(sys.argv[1])
print(time.process_time() - before, sum(name.startswith("robustray") for name in sys.modules))
"""


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="processes for each; default: 3")
    parser.add_argument("--json", type=Path, help="where to keep the seconds of each round")
    options = parser.parse_args()
    rounds = [{name: measure(code) for name, code in _CODES.items()} for _ in range(options.repeat)]
    if options.json:
        rows = {name: {"cpu": [found[name][0] for found in rounds]} for name in _CODES}
        options.json.write_text(json.dumps({"rows": rows}))
    least = {name: min(found[name][0] for found in rounds) for name in _CODES}
    print(f"{'':<24}{'of torch':>10}{'modules':>10}")
    for name, seconds in least.items():
        print(f"{name:<24}{seconds / least['torch']:>10.3f}{rounds[0][name][1]:>10}")


def measure(code: str) -> tuple[float, int]:
    """Run code in a new process; return its processor seconds and our modules that it loaded."""
    command = [sys.executable, "-c", _MEASURE, code]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    seconds, modules = run.stdout.split()
    return float(seconds), int(modules)


if __name__ == "__main__":
    main()
