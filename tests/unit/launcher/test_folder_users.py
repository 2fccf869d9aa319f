"""Who uses a folder, from a /proc made of files."""

from __future__ import annotations

from pathlib import Path

from coworkd.launcher.folder_users import find_users

PLACE = "/sessions/bob/mnt/work"


def make(proc: Path, pid: int, *, uid: int = 1001, cwd: str = "/", fds: tuple[str, ...] = (), name: str = "sh") -> None:
    here = proc / str(pid)
    (here / "fd").mkdir(parents=True)
    (here / "status").write_text(f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (here / "comm").write_text(f"{name}\n")
    (here / "cwd").symlink_to(cwd)
    for number, target in enumerate(fds):
        (here / "fd" / str(number)).symlink_to(target)


def test_one_that_stands_in_it_and_one_that_has_a_file_open_are_named(tmp_path: Path) -> None:
    make(tmp_path, 7, cwd=f"{PLACE}/deep", name="bash")
    make(tmp_path, 8, fds=("/dev/null", f"{PLACE}/a file (deleted)"), name="vim")
    make(tmp_path, 9, cwd="/sessions/bob")
    (words,) = find_users("bob", 1001, "work", proc=str(tmp_path))
    assert words.startswith("2 processes use it until they end: ")
    assert "7 (bash)" in words
    assert "8 (vim)" in words


def test_neighbours_and_others_are_not(tmp_path: Path) -> None:
    make(tmp_path, 7, cwd="/sessions/bob/mnt/work2")
    make(tmp_path, 8, cwd=PLACE, uid=1002)
    (tmp_path / "self").mkdir()
    (tmp_path / "9").mkdir()
    assert find_users("bob", 1001, "work", proc=str(tmp_path)) == ("it is in use; it goes with its last user",)


def test_a_path_as_another_namespace_names_it_counts(tmp_path: Path) -> None:
    make(tmp_path, 7, cwd=f"/newroot{PLACE}")
    assert find_users("bob", 1001, "work", proc=str(tmp_path)) == ("1 process uses it until it ends: 7 (sh)",)


def test_many_are_counted_and_few_named(tmp_path: Path) -> None:
    for pid in range(10, 20):
        make(tmp_path, pid, cwd=PLACE)
    (words,) = find_users("bob", 1001, "work", proc=str(tmp_path))
    assert words.startswith("10 processes use it")
    assert words.endswith("and 5 more")
