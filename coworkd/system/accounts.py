"""Accounts and uids of the guest: who has a uid, and making one with the system's own tools.

useradd(8) takes about 17 ms; a uid without an account is as good inside a sandbox, whose passwd is generated.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import subprocess
import threading

_TOOL_TIMEOUT_S = 30
_turn = threading.Lock()
"""The tools lock /etc/passwd, and give up where another has it."""


class AccountToolFailed(OSError):
    """useradd, userdel or a sister of theirs refused; the text is its own, errno is EIO."""


def account_uid(name: str) -> int | None:
    """The uid of the account `name`, None where there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def account_home(name: str) -> str | None:
    """The home directory of the account `name`, None where there is no such account."""
    try:
        return pwd.getpwnam(name).pw_dir
    except KeyError:
        return None


def owners_by_id() -> dict[int, str]:
    """Every uid and gid that an account or a group has, with its name; the account's where both have it."""
    found = {entry.gr_gid: entry.gr_name for entry in grp.getgrall()}
    found.update((entry.pw_uid, entry.pw_name) for entry in pwd.getpwall())
    return found


def account_name(uid: int) -> str | None:
    """The name of the account with `uid`, None where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def group_gid(name: str) -> int | None:
    """The gid of the group `name`, None where there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


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
    """Make group and user `name` with `uid`, no password, no login shell of use; raises `AccountToolFailed`.

    A group of that name is left by a try that was cut short, and is made anew where its number is another.
    """
    with _turn:
        gid = group_gid(name)
        if gid not in (None, uid):
            _run(["groupdel", name])
        if gid != uid:
            _run(["groupadd", "--gid", str(uid), name])
        ids = ["--uid", str(uid), "--gid", str(uid), "--no-user-group"]
        _run(["useradd", *ids, "--home-dir", home, "--no-create-home", "--shell", "/usr/sbin/nologin", name])


def remove_account(name: str) -> None:
    """Remove user and group `name` where they are."""
    with _turn:
        if account_uid(name) is not None:
            _run(["userdel", name])
        if group_gid(name) is not None:
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
