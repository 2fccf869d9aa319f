"""`./setup` finds all done where it is: a second `make` of any target comes through, and is not sent to fill the venv anew. Filling it
leaves the images alone that were built before. The kernel that tests run inside is brought where there is one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[1] / "setup"

# Its functions without its last lines, which call them: a venv that carries the stamps asked for, and what make_venv does with it.
SCRIPT = """
source <(sed '/^case $GOAL in$/,$d' "$0")
VENV=$2
fill_venv() { echo filled; }
say() { :; }
for goal in "${@:3}"; do stamp_of "$(choose_python)" "$goal" >"$VENV/.made-for-$goal"; done
make_venv
echo ended
"""


@pytest.mark.parametrize(
    ("goal", "made", "fills"),
    [
        ("run", ["run"], False),
        ("run", ["vm"], False),
        ("run", ["test"], False),
        ("vm", ["vm"], False),
        ("vm", ["run", "vm"], False),
        ("vm", ["test"], False),
        ("test", ["test"], False),
        ("run", [], True),
        ("vm", ["run"], True),
        ("test", ["run", "vm"], True),
    ],
)
def test_venv_made_for_the_goal_or_more_is_left_as_it_is(
    goal: str, made: list[str], fills: bool, tmp_path: Path
) -> None:
    command = ["bash", "-c", SCRIPT, str(SETUP), goal, str(tmp_path), *made]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["filled", "ended"] if fills else ["ended"]), done.stderr


FILL = """
source <(sed '/^case $GOAL in$/,$d' "$0")
cd "$2"
VENV=$2/.venv
say() { :; }
quiet() { :; }
fits() { :; }
mkdir -p "$VENV" build/lib/coworkd build/bdist.linux-x86_64 build/image/x86_64 build/demo-image/x86_64
fill_venv python3 build.lock test.lock
ls build
"""


def test_filling_the_venv_keeps_the_images_that_lie_beside_what_it_clears(tmp_path: Path) -> None:
    command = ["bash", "-c", FILL, str(SETUP), "test", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["demo-image", "image"]


WANTED = """
source <(sed '/^case $GOAL in$/,$d' "$0")
MACHINE=$2
uname() { echo "$MACHINE"; }
missing_packages() { printf '%s\\n' "$@"; }
install_now() { printf '%s\\n' "$@"; }
install_packages
"""


@pytest.mark.parametrize(
    ("goal", "machine", "brings"), [("test", "x86_64", True), ("test", "aarch64", False), ("vm", "x86_64", False)]
)
def test_tests_get_the_kernel_they_run_inside(goal: str, machine: str, brings: bool) -> None:
    command = ["bash", "-c", WANTED, str(SETUP), goal, machine]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "mmdebstrap" in done.stdout.split()
    assert ("user-mode-linux" in done.stdout.split()) is brings
