"""Train and attack networks of equal cost: ray job submit -- python jobs/sweep_compound.py."""

import sys
from pathlib import Path

from robustray.cli import main

MANIFEST = Path(__file__).resolve().parent.parent / "manifests/sweeps/ratio_5g_20g.yaml"

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]], default_manifest=MANIFEST))
