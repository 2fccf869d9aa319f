"""`python -m tests.soak`: a mixed load with faults for COWORKD_SOAK_MINUTES (30), as root; prints its statement, ends with 1 where it
did not pass. COWORKD_SOAK_SEED repeats the choice of faults.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import soak


def main() -> int:
    minutes = float(os.environ.get("COWORKD_SOAK_MINUTES", "30"))
    seed = os.environ.get("COWORKD_SOAK_SEED")
    with tempfile.TemporaryDirectory(prefix="coworkd-soak-") as directory:
        statement = soak(Path(directory), minutes=minutes, seed=None if seed is None else int(seed))
    print("\n".join(statement.lines()))
    return 1 if statement.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
