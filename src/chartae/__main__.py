"""``python -m chartae`` is the command ``chartae``."""

import sys

from chartae.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
