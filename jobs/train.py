"""Train and attack one model under one recipe.

python jobs/train.py --manifest manifests/training/bat_trades.yaml --set model.name=wrn_28_10
ray job submit --working-dir . -- python jobs/train.py --manifest manifests/training/mart.yaml
"""

import sys
from pathlib import Path

from robustray.cli import main

MANIFEST = Path(__file__).resolve().parent.parent / "manifests/training/bat_trades.yaml"

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]], default_manifest=MANIFEST))
