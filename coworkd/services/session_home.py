"""Homes and uids: the blocking half of sessions, for a worker thread.

Rules
- A home is owned by its session and 0700. One that is there already keeps its owner's uid, if that uid is free to be a session's:
  then it is this session's from an earlier root file system.
- A uid is at least `MIN_UID` and nobody else's: no account's, group's, subordinate range's, living process's, record's or home's.
- Removing a home follows no symbolic link.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from coworkd.model.errors import DiskFailed, LimitExceeded, PolicyDenied
from coworkd.model.names import MAX_UID, MIN_UID
from coworkd.system import accounts
from coworkd.system.remove_tree import remove_tree


class Homes:
    """The homes below one directory."""

    def __init__(self, directory: str, *, with_accounts: bool) -> None:
        self.directory = directory
        self.with_accounts = with_accounts

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def prepare(self) -> None:
        """Make the directory of homes; only root may look into it. Raises `DiskFailed`."""
        try:
            os.makedirs(self.directory, 0o711, exist_ok=True)
        except OSError as error:
            raise DiskFailed(f"{self.directory}: {error.strerror}", errno=error.errno) from error

    def refuse_system_name(self, name: str, own_uid: int | None) -> None:
        """Raise `PolicyDenied` if the system has an account or group of that name that is not this session's own."""
        uid = accounts.account_uid(name)
        if uid is not None and (own_uid is None or uid != own_uid) and not self._left_behind(name, uid):
            raise PolicyDenied(f"{name!r} is an account of this system; choose another session name", key="name")

    def _left_behind(self, name: str, uid: int) -> bool:
        """Whether the account is of an earlier session of this name: its home is here and its own."""
        with contextlib.suppress(FileNotFoundError):
            return uid >= MIN_UID and os.lstat(self.path(name)).st_uid == uid
        return False

    def choose_uid(self, name: str, recorded: Iterable[int]) -> int:
        """The owner of a home left behind, else the lowest free uid. Raises `LimitExceeded`."""
        known = set(recorded)
        with contextlib.suppress(FileNotFoundError):
            owner = os.lstat(self.path(name)).st_uid
            foreign = accounts.account_name(owner) not in (None, name)
            if MIN_UID <= owner <= MAX_UID and owner not in known and not foreign:
                return owner
        taken = known | accounts.taken_uids() | self._owners()
        ranges = accounts.subordinate_ranges()
        for uid in range(MIN_UID, MAX_UID + 1):
            if uid not in taken and not any(uid in given for given in ranges):
                return uid
        raise LimitExceeded(f"no uid from {MIN_UID} to {MAX_UID} is free; delete sessions that are not needed")

    def exists(self, name: str) -> bool:
        """Whether there is a home, of an earlier session of this name perhaps."""
        return os.path.lexists(self.path(name))

    def make(self, name: str, uid: int) -> None:
        """The home, owned by `uid`, and where wanted the account. Raises `DiskFailed`."""
        path = self.path(name)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchown(fd, uid, uid)
                os.fchmod(fd, 0o700)
                with contextlib.suppress(FileExistsError):
                    os.mkdir("mnt", 0o755, dir_fd=fd)
            finally:
                os.close(fd)
            if self.with_accounts and accounts.account_uid(name) is None:
                accounts.add_account(name, uid, path)
        except OSError as error:
            raise DiskFailed(f"the home of session {name}: {error.strerror}", errno=error.errno, path=path) from error

    def remove(self, name: str) -> int:
        """Remove home and account; the bytes that were in use. Raises `DiskFailed`, and the next try goes on."""
        path = self.path(name)
        try:
            freed = remove_tree(path)
            if self.with_accounts:
                accounts.remove_account(name)
        except OSError as error:
            raise DiskFailed(
                f"session {name} cannot be removed whole: {error}", errno=error.errno, path=path
            ) from error
        return freed

    def _owners(self) -> set[int]:
        owners = set()
        for name in os.listdir(self.directory):
            with contextlib.suppress(FileNotFoundError):  # another session is being deleted
                owners.add(os.lstat(self.path(name)).st_uid)
        return owners
