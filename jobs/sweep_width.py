"""Train and attack every member of a width sweep: ray job submit -- python jobs/sweep_width.py."""

import sys
from pathlib import Path

from robustray.cli import main

MANIFEST = Path(__file__).resolve().parent.parent / "manifests/sweeps/width_512.yaml"

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]], default_manifest=MANIFEST))
