"""`python -m coworkd` is `coworkd`."""

from __future__ import annotations

import sys

from coworkd.cli.daemon import main

if __name__ == "__main__":
    sys.exit(main())
