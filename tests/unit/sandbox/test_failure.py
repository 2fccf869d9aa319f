from __future__ import annotations

import errno

import pytest

from coworkd.sandbox.failure import parse_failure


@pytest.mark.parametrize(
    ("stderr", "stage", "number"),
    [
        (b"bwrap: execvp nope: No such file or directory\n", "not_found", errno.ENOENT),
        (b"bwrap: execvp /etc/passwd/x: Not a directory\n", "not_found", errno.ENOTDIR),
        (b"bwrap: execvp /etc/passwd: Permission denied\n", "not_executable", errno.EACCES),
        (b"bwrap: execvp ./x: Exec format error\n", "not_executable", errno.ENOEXEC),
        (b"bwrap: execvp x: Argument list too long\n", "too_big", errno.E2BIG),
        (b"bwrap: execvp x: Resource temporarily unavailable\n", "resources", errno.EAGAIN),
        (b"bwrap: execvp x: Something new\n", "not_executable", None),
        (b"bwrap: Can't chdir to /nope: No such file or directory\n", "bad_cwd", errno.ENOENT),
        (b"bwrap: Can't chdir to /root: Permission denied\n", "bad_cwd", errno.EACCES),
        (b"bwrap: Exceeded maximum number of arguments 9000\n", "too_big", errno.E2BIG),
        (b"bwrap: Can't fork for pid 1: Resource temporarily unavailable\n", "resources", errno.EAGAIN),
        (b"bwrap: Creating new namespace failed: Operation not permitted\n", "sandbox_setup", errno.EPERM),
        (b"bwrap: Creating new namespace failed: No space left on device\n", "resources", errno.ENOSPC),
        (b"bwrap: Can't find source path /x: No such file or directory\n", "sandbox_setup", errno.ENOENT),
        (b"bwrap: Can't mount proc on /newroot/proc: Operation not permitted\n", "sandbox_setup", errno.EPERM),
        (b"bwrap: prctl(PR_SET_SECCOMP): Invalid argument\n", "sandbox_setup", errno.EINVAL),
        (b"bwrap: Unknown option --disable-userns\n", "sandbox_setup", None),
        (b"", "sandbox_setup", None),
        (b"\xff\xfe", "sandbox_setup", None),
    ],
)
def test_parse_failure_tells_stage_and_errno(stderr: bytes, stage: str, number: int | None) -> None:
    assert parse_failure(stderr, b"x")[:2] == (stage, number)


def test_parse_failure_names_the_command_and_not_bubblewrap() -> None:
    _, _, said = parse_failure(b"bwrap: execvp nope: No such file or directory\n", b"nope")
    assert said.startswith("nope: not found")
    assert "bwrap" not in said


def test_parse_failure_reads_a_command_with_line_ends() -> None:
    assert parse_failure(b"bwrap: execvp a\nb: No such file or directory\n", b"a\nb")[0] == "not_found"


def test_parse_failure_takes_the_last_of_several_messages() -> None:
    warned = b"bwrap: Can't chdir to /x: No such file or directory\nbwrap: execvp y: Permission denied\n"
    assert parse_failure(warned, b"y")[0] == "not_executable"


def test_parse_failure_reads_what_is_not_utf_8() -> None:
    assert parse_failure(b"bwrap: execvp \xff: No such file or directory\n", b"\xff")[0] == "not_found"


@pytest.mark.parametrize(
    "stderr",
    [
        b"bwrap: setting up uid map: Permission denied\n",
        b"bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted\n",
    ],
)
def test_parse_failure_says_what_to_do_about_apparmor(stderr: bytes) -> None:
    stage, _, said = parse_failure(stderr, b"id")
    assert stage == "sandbox_setup"
    assert "AppArmor profile" in said


def test_parse_failure_says_when_bubblewrap_said_nothing() -> None:
    assert "without a word" in parse_failure(b"", b"id")[2]
