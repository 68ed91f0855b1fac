"""``python -m mtsk`` is the command ``mtsk``."""

import sys

from mtsk.cli import main

if __name__ == "__main__":
    sys.exit(main())
