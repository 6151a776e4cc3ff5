"""Attack a network, or every selected one of a study.

python jobs/evaluate.py --weights FILE_OR_URI --model NAME
ray job submit --working-dir . -- python jobs/evaluate.py --study ID --suite autoattack-standard
"""

import sys

from robustray.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
