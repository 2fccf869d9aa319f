"""The programs that see to an ext4: their command lines, and what becomes of what they say."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from coworkd.system import disk_tools
from coworkd.system.disk_tools import ToolResult


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs of our own; `setpriv` is the machine's."""
    monkeypatch.setattr(disk_tools, "PATH", (str(tmp_path), "/usr/bin", "/bin"))
    return tmp_path


def program(place: Path, name: str, script: str) -> None:
    path = place / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_both_streams_and_the_status_are_kept(programs: Path) -> None:
    program(programs, "e2fsck", 'echo "$@"; echo bad >&2; exit 5')
    done = disk_tools.e2fsck("/dev/x", "-p")
    assert (done.code, done.output) == (5, "-p /dev/x\nbad\n")
    assert done.argv == (f"{programs}/e2fsck", "-p", "/dev/x")


def test_a_program_sees_nothing_of_our_environment(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    program(programs, "tune2fs", "env | cut -d= -f1 | sort | tr '\\n' ' '")
    assert set(disk_tools.tune2fs("/dev/x").output.split()) <= {"LC_ALL", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}


def test_a_program_that_is_missing_is_named(programs: Path) -> None:
    with pytest.raises(OSError, match="resize2fs is missing") as caught:
        disk_tools.resize2fs("/dev/x", 1)
    assert caught.value.errno == errno.ENOENT


def test_a_program_that_does_not_end_is_ended(programs: Path) -> None:
    program(programs, "slow", "exec sleep 600")
    with pytest.raises(OSError, match="did not end within") as caught:
        disk_tools.run("slow", (), deadline_s=0.05)
    assert caught.value.errno == errno.ETIMEDOUT


def test_mkfs_names_every_feature_the_label_and_the_size(programs: Path) -> None:
    program(programs, "mke2fs", 'echo "$@"')
    made = disk_tools.mkfs_ext4("/dev/x", blocks=4096, label="mine", reserve_percent=5.0, quota=False)
    words = made.output.split()
    assert words[-2:] == ["/dev/x", "4096"]
    assert words[words.index("-L") + 1] == "mine"
    assert words[words.index("-m") + 1] == "5"
    assert words[words.index("-O") + 1].startswith("none,has_journal,")
    assert "quota" not in words[words.index("-O") + 1]
    counted = disk_tools.mkfs_ext4("/dev/x", blocks=4096, label="mine", reserve_percent=5.0, quota=True)
    assert ",quota,project" in counted.output


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("exit 2", {}),
        ("exit 8", {"AMBIVALENT": "several signatures"}),
        ("echo DEVNAME=/dev/x; echo TYPE=xfs; echo LABEL=a=b", {"TYPE": "xfs", "LABEL": "a=b"}),
    ],
)
def test_blkid_finds_nothing_one_thing_or_several(programs: Path, script: str, found: dict[str, str]) -> None:
    program(programs, "blkid", script)
    assert disk_tools.blkid("/dev/x") == found


def test_a_blkid_that_fails_has_found_nothing_out(programs: Path) -> None:
    program(programs, "blkid", "echo cannot look; exit 4")
    with pytest.raises(OSError, match="ended with 4: cannot look"):
        disk_tools.blkid("/dev/x")


def test_a_failure_tells_the_command_line_and_the_last_words() -> None:
    error = ToolResult(argv=("/sbin/x", "a b"), code=1, output="banner\n\n  denied \n").failure()
    assert error.strerror == "`/sbin/x 'a b'` ended with 1: banner; denied"
    assert "said nothing" in str(ToolResult(argv=("x",), code=1, output="").failure())
