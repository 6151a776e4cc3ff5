"""Train a network that mixes an accurate and a robust one, and judge all three.

python jobs/train_mixing.py --manifest manifests/smoothing/mnist.yaml
ray job submit --working-dir . -- python jobs/train_mixing.py
"""

import sys
from pathlib import Path

from robustray.cli import main

MANIFEST = Path(__file__).resolve().parent.parent / "manifests/smoothing/digits.yaml"

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]], default_manifest=MANIFEST))
