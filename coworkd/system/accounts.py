"""Accounts and uids of the guest: who has a uid, and making one with the system's own tools.

useradd(8) takes about 17 ms; a uid without an account is as good inside a sandbox, whose passwd is generated.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import subprocess

_TOOL_TIMEOUT_S = 30


class AccountToolFailed(OSError):
    """useradd, userdel or a sister of theirs refused; the text is its own, errno is EIO."""


def account_uid(name: str) -> int | None:
    """The uid of the account `name`, None where there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def account_name(uid: int) -> str | None:
    """The name of the account with `uid`, None where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def group_exists(name: str) -> bool:
    """Whether there is a group `name`."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def taken_uids(proc: str = "/proc") -> set[int]:
    """Every uid and gid an account, a group or a living process has."""
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                taken |= _uids_of(f"{proc}/{name}/status")
            except (FileNotFoundError, ProcessLookupError):
                continue
    return taken


def _uids_of(status: str) -> set[int]:
    """Real, effective, saved and file system uid. Its directory is root's where a process has changed its uid (proc(5))."""
    with open(status, "rb") as file:
        for line in file:
            if line.startswith(b"Uid:"):
                return {int(word) for word in line.split()[1:]}
    return set()


def subordinate_ranges(paths: tuple[str, ...] = ("/etc/subuid", "/etc/subgid")) -> list[range]:
    """The ranges subuid(5) and subgid(5) give away."""
    ranges = []
    for path in paths:
        try:
            with open(path) as file:
                lines = file.readlines()
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
                ranges.append(range(int(fields[1]), int(fields[1]) + int(fields[2])))
    return ranges


def add_account(name: str, uid: int, home: str) -> None:
    """Make group and user `name` with `uid`, no password, no login shell of use; raises `AccountToolFailed`."""
    if not group_exists(name):  # left by a try that was cut short
        _run(["groupadd", "--gid", str(uid), name])
    ids = ["--uid", str(uid), "--gid", str(uid), "--no-user-group"]
    _run(["useradd", *ids, "--home-dir", home, "--no-create-home", "--shell", "/usr/sbin/nologin", name])


def remove_account(name: str) -> None:
    """Remove user and group `name` where they are."""
    if account_uid(name) is not None:
        _run(["userdel", name])
    if group_exists(name):
        _run(["groupdel", name])


def _run(argv: list[str]) -> None:
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False, env={"PATH": path}
        )
    except subprocess.TimeoutExpired as error:
        raise AccountToolFailed(errno.ETIMEDOUT, f"{argv[0]} did not end in {_TOOL_TIMEOUT_S} s") from error
    if done.returncode:
        raise AccountToolFailed(errno.EIO, f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()}")
