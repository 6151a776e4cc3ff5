"""Do one stage of a study of gradient directions: train, evaluate, probe.

python jobs/align.py --manifest manifests/alignment/spheres_l_alpha.yaml --yes
ray job submit --working-dir . -- python jobs/align.py --manifest manifests/alignment/...
"""

import sys
from pathlib import Path

from robustray.cli import main

MANIFEST = Path(__file__).resolve().parent.parent / "manifests/alignment/spheres_l_alpha.yaml"

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]], default_manifest=MANIFEST))
