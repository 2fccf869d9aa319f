"""`python -m tests.fuzz`: everything that is tried with made-up input, for COWORKD_FUZZ_SECONDS (600) in all, as root.

First the property tests of every core, again and again with another seed each time; then, each for its share, what plays rounds of its own:
bytes for live programs, and the models. Ends with 1 at the first failure, which has said how it is repeated.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

_REPO = Path(__file__).resolve().parents[2]
_PROPERTIES = 0.45
ROUNDS = (
    *("tests/fuzz/test_wire_bytes.py", "tests/fuzz/test_health.py", "tests/fuzz/test_process_model.py"),
    *("tests/root/test_fuzz_launcher.py", "tests/root/test_model.py"),
)
"""Those that keep to `budget`."""


def main() -> int:
    seconds = float(os.environ.get("COWORKD_FUZZ_SECONDS", "600"))
    os.environ["COWORKD_FUZZ_SECONDS"] = str(seconds)
    until = time.monotonic() + seconds * _PROPERTIES
    ignored = [f"--ignore={path}" for path in ROUNDS if path.startswith("tests/fuzz/")]
    while time.monotonic() < until:
        seed = random.SystemRandom().randrange(1 << 32)
        if not _pytest("tests/fuzz", f"--hypothesis-seed={seed}", *ignored):
            return 1
    return 0 if _pytest(*ROUNDS) else 1


def _pytest(*arguments: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments, *sys.argv[1:]]
    print("+", os.path.relpath(sys.executable, _REPO), *command[1:], flush=True)
    return subprocess.run(command, cwd=_REPO, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
