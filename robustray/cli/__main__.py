"""``python -m robustray.cli``: the command line without the installed script."""

import sys

from robustray.cli.main import main

sys.exit(main())
