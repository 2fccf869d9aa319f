"""The demo works, on this machine, as the README says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.needs("root")]

DEMO = Path(__file__).resolve().parent / "run_demo.py"


def test_demo_shows_everything_and_ends_well() -> None:
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("everything above worked")
