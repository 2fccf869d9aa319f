from __future__ import annotations

import os
import subprocess
from pathlib import Path

from coworkd.model.measure import MeasureTree, TreeMeasured
from coworkd.workers.measure_tree import measure
from tests.unit.workers.trees import deep_tree, write


def measured(tmp_path: Path, path: bytes = b"home", *, deadline_s: float = 60) -> TreeMeasured:
    return measure(MeasureTree(id=7, root=os.fsencode(tmp_path), path=path, deadline_s=deadline_s))


def test_a_tree_takes_what_du_says(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"home/{number % 3}/{number}", b"x" * 5000 * number)
    (tmp_path / "home/link").symlink_to("/usr")
    os.mkfifo(tmp_path / "home/fifo")
    with open(tmp_path / "home/sparse", "wb") as file:
        file.truncate(1 << 40)
    said = subprocess.run(["du", "-s", "-B1", tmp_path / "home"], capture_output=True, check=True, text=True).stdout
    found = measured(tmp_path)
    assert found == TreeMeasured(id=7, size_bytes=int(said.split()[0]), files=26, complete=True)


def test_a_file_of_many_names_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "home/a", b"x" * 100_000)
    alone = measured(tmp_path)
    for number in range(6):
        os.link(tmp_path / "home/a", tmp_path / f"home/{number}")
    assert measured(tmp_path) == alone


def test_a_deep_tree_is_measured(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with deep_tree(tmp_path / "home", 2000):
        assert measured(tmp_path).files == 2001


def test_a_tree_that_is_not_there_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr")
    for path in (b"none", b"link"):
        assert measured(tmp_path, path) == TreeMeasured(id=7, size_bytes=0, files=0, complete=True)


def test_a_tree_that_takes_too_long_is_told_as_far_as_it_was_seen(tmp_path: Path) -> None:
    for number in range(200):
        write(tmp_path / f"home/{number}")
    found = measured(tmp_path, deadline_s=0)
    assert not found.complete
    assert found.files < 200
