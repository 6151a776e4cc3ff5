"""Write the report of a study again from the store: python jobs/report.py --study ID."""

import sys

from robustray.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
