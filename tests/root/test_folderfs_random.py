"""A guarded folder behaves as a plain directory does: results, errors and contents of the same calls, at random."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.root.folder_mount import OWNER_UID, SESSION_UID, guarded

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("fuse"), pytest.mark.needs("mountns")]
STEPS = 10_000
_PROGRAM = (Path(__file__).parent / "folder_random.py").read_text()


@pytest.mark.parametrize("seed", range(3))
def test_the_same_calls_have_the_same_results(tmp_path: Path, seed: int) -> None:
    for each in (tmp_path, *tmp_path.parents[:-1]):
        each.chmod(each.stat().st_mode | 0o055)
    source, plain = tmp_path / "source", tmp_path / "plain"
    for place, owner in ((source, OWNER_UID), (plain, SESSION_UID)):
        place.mkdir()
        os.chown(place, owner, owner)
    with guarded(source, deletes="allow", journal=tmp_path / "journal") as folder:
        done = folder.run("/usr/bin/python3", "-c", _PROGRAM, str(plain), "/mnt", str(seed), str(STEPS), timeout_s=300)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
