"""Homes and uids: the blocking half of sessions, for a worker thread.

Rules
- A home is owned by its session and 0700. A new one is made whole under another name (`.making-NAME`) and then renamed: after any crash
  there is a home with its skeleton, or none.
- A uid is at least `MIN_UID` and nobody else's: no account's, group's, subordinate range's, living process's, record's or home's.
- An account is a convenience of the guest's: where it cannot be written (the root file system is full or read-only, the name is
  somebody's) the session does without, and that is told. Only accounts whose home is the session's are ever changed or removed.
- Removing a home follows no symbolic link, not even one in place of the home.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator

from coworkd.model.errors import DiskFailed, InvalidParams, LimitExceeded, PolicyDenied
from coworkd.model.names import parse_session_name
from coworkd.model.ports import QuotaPort
from coworkd.model.uids import MAX_UID, MIN_UID
from coworkd.services.session_measuring import Place
from coworkd.services.session_skeleton import copy_skeleton
from coworkd.system import accounts
from coworkd.system.remove_tree import remove_tree

_MAKING = ".making-"
_BYTES_PER_FILE = 4096
"""Of a session's limit: one file may be made for each of as many bytes."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_log = logging.getLogger("coworkd.session")


class Homes:
    """The homes below one directory."""

    def __init__(
        self,
        directory: str,
        *,
        with_accounts: bool,
        skeleton: str = "",
        stages_dir: str = "",
        quota: QuotaPort | None = None,
        on_accounts: Callable[[str | None], None] = lambda reason: None,
    ) -> None:
        """`stages_dir` is where staged folders keep their changes, a directory for each session. `on_accounts` is told, in a worker
        thread, why accounts cannot be written; None when they can again.
        """
        self.directory = directory
        self.with_accounts = with_accounts
        self.skeleton = skeleton
        self.stages_dir = stages_dir
        self._quota = quota if quota is not None and quota.kind == "project" else None
        self._on_accounts = on_accounts

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def places(self, name: str) -> tuple[Place, ...]:
        """What a session has on the disk, its home first."""
        home = (self.directory, name)
        return (home, (self.stages_dir, name)) if self.stages_dir else (home,)

    def prepare(self) -> None:
        """Make the directory of homes; only root may look into it. Raises `DiskFailed`."""
        try:
            os.makedirs(self.directory, 0o711, exist_ok=True)
        except OSError as error:
            raise DiskFailed(f"{self.directory}: {error.strerror}", errno=error.errno) from error

    def scan(self) -> dict[str, int]:
        """The homes there are, with their owners. What a crash left of making one is removed. Raises `DiskFailed`."""
        homes: dict[str, int] = {}
        try:
            for name in os.listdir(self.directory):
                if name.startswith(_MAKING):
                    remove_tree(self.path(name))
                elif _is_session_name(name):
                    found = os.lstat(self.path(name))
                    if stat.S_ISDIR(found.st_mode):
                        homes[name] = found.st_uid
        except OSError as error:
            raise DiskFailed(f"{self.directory}: {error.strerror}", errno=error.errno) from error
        return homes

    def owner(self, name: str) -> int | None:
        """Whose the home is; None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return os.lstat(self.path(name)).st_uid
        return None

    def exists(self, name: str) -> bool:
        """Whether there is a home, of an earlier session of this name perhaps."""
        return os.path.lexists(self.path(name))

    def other_owners(self) -> dict[int, str]:
        """Who has which number on this root file system: accounts and groups."""
        return accounts.owners_by_id()

    def other_ranges(self) -> list[range]:
        """The numbers that are given away as ranges."""
        return accounts.subordinate_ranges()

    # -- uids ---------------------------------------------------------------------------------------------------

    def refuse_system_name(self, name: str, own_uid: int | None) -> None:
        """Raise `PolicyDenied` if the system has an account of that name that is not this session's own."""
        uid = accounts.account_uid(name)
        if uid is not None and uid != own_uid and not self._left_behind(name, uid):
            raise PolicyDenied(f"{name!r} is an account of this system; choose another session name", key="name")

    def _left_behind(self, name: str, uid: int) -> bool:
        """Whether the account is of an earlier session of this name."""
        return uid >= MIN_UID and (accounts.account_home(name) == self.path(name) or self.owner(name) == uid)

    def choose_uid(self, name: str, recorded: Iterable[int]) -> int:
        """The owner of a home left behind, else the lowest free uid. Raises `LimitExceeded`."""
        known = set(recorded)
        owner = self.owner(name)
        if owner is not None and MIN_UID <= owner <= MAX_UID and owner not in known:
            foreign = accounts.account_name(owner) not in (None, name)
            if not foreign:
                return owner
        taken = known | accounts.taken_uids() | self._owners()
        ranges = accounts.subordinate_ranges()
        for uid in range(MIN_UID, MAX_UID + 1):
            if uid not in taken and not any(uid in given for given in ranges):
                return uid
        raise LimitExceeded(f"no uid from {MIN_UID} to {MAX_UID} is free; delete sessions that are not needed")

    def _owners(self) -> set[int]:
        """Whom anything in the directory of homes belongs to."""
        owners = set()
        for name in os.listdir(self.directory):
            with contextlib.suppress(FileNotFoundError):  # another session is being deleted
                owners.add(os.lstat(self.path(name)).st_uid)
        return owners

    # -- making and removing ------------------------------------------------------------------------------------

    def make(self, name: str, uid: int, skeleton: bool = True) -> None:  # for a thread: positional
        """The home, owned by `uid`, and where wanted the account. A new one begins with the skeleton. Raises `DiskFailed`."""
        path = self.path(name)
        try:
            if not os.path.lexists(path):
                self._make_new(name, uid, skeleton=skeleton)
            with _opened(path) as fd:
                _own(fd, uid)
                with contextlib.suppress(FileExistsError):
                    os.mkdir("mnt", 0o755, dir_fd=fd)
        except OSError as error:
            raise DiskFailed(f"the home of session {name}: {error.strerror}", errno=error.errno, path=path) from error
        if self.with_accounts:
            self._write_account(name, uid)

    @property
    def limits_disk(self) -> bool:
        """Whether the kernel keeps sessions to their part of the disk."""
        return self._quota is not None

    def limit(self, name: str, uid: int, limit_bytes: int) -> None:
        """Have the kernel keep the session to its part of the disk, where it can. Raises `DiskFailed`."""
        if self._quota is None:
            return
        try:
            self._quota.set_limit(self.path(name), uid, limit_bytes, limit_bytes // _BYTES_PER_FILE)
        except OSError as error:
            raise DiskFailed(
                f"session {name} cannot be kept to its part of the disk: {error.strerror}", errno=error.errno
            ) from error

    def remove(self, name: str) -> int:
        """Remove home and account; the bytes that were in use. Raises `DiskFailed`, and the next try goes on."""
        path = self.path(name)
        try:
            remove_tree(self.path(_MAKING + name))
            freed = _remove(path)
        except OSError as error:
            raise DiskFailed(
                f"session {name} cannot be removed whole: {error}", errno=error.errno, path=path
            ) from error
        if self.with_accounts:
            self._remove_account(name)
        return freed

    def _make_new(self, name: str, uid: int, *, skeleton: bool) -> None:
        making = self.path(_MAKING + name)
        remove_tree(making)
        os.mkdir(making, 0o700)
        if self._quota is not None:  # first: what is in a directory before it is counted is not counted
            self._quota.set_limit(making, uid, 0, 0)
        with _opened(making) as fd:
            if skeleton and self.skeleton:
                self._begin(name, fd, uid)
            _own(fd, uid)
        os.rename(making, self.path(name))

    def _begin(self, name: str, fd: int, uid: int) -> None:
        try:
            copy_skeleton(self.skeleton, fd, uid)
        except OSError as error:
            reason = f"the skeleton {self.skeleton} cannot be copied: {error.strerror}"
            raise OSError(error.errno, reason) from error

    def _write_account(self, name: str, uid: int) -> None:
        try:
            found = accounts.account_uid(name)
            if found == uid:
                return
            if found is not None:
                if not self._left_behind(name, found):
                    self._on_accounts(f"session {name} has no account: the name is another's on this system")
                    return
                accounts.remove_account(name)
            accounts.add_account(name, uid, self.path(name))
        except OSError as error:
            _log.warning("session %s has no account: %s", name, error.strerror)
            self._on_accounts(f"session {name} has no account: {error.strerror}")
        else:
            self._on_accounts(None)

    def _remove_account(self, name: str) -> None:
        try:
            if accounts.account_home(name) == self.path(name):
                accounts.remove_account(name)
        except OSError as error:
            _log.warning("the account of session %s is left: %s", name, error.strerror)
            self._on_accounts(f"the account of session {name}, which is gone, is left: {error.strerror}")


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _own(fd: int, uid: int) -> None:
    os.fchown(fd, uid, uid)
    os.fchmod(fd, 0o700)


def _remove(path: str) -> int:
    try:
        return remove_tree(path)
    except NotADirectoryError:  # a link or a file somebody put there: it goes itself
        os.unlink(path)
        return 0


def _is_session_name(name: str) -> bool:
    try:
        parse_session_name(name)
    except InvalidParams:
        return False
    return True
