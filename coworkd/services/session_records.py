"""Session records on disk: one JSON file a session, replaced as a whole. The format is told in docs/sessions-on-disk.md.

Layout: `STATE/sessions/NAME.json`, 0600, written to `.NAME.json.new`, fsynced, renamed, and the directory fsynced: after any crash a
record is the old one or the new one.

Rules
- Format 1 is read for ever. A record of a later format stays where it is, untouched: its name and uid are `reserved`.
- One that makes no sense is set aside as `NAME.json.broken` (`.broken-2` …) and told in `broken`; its home stays. One that the disk does
  not give stays as well, and its name is `reserved`: it may be read again the next time.
- A record can be replaced on a disk that is full of bytes or of files: `.spare` is a file that was written before, and becomes the new
  record. Where that does not do, the reserve is given up. New sessions get neither.

Blocking: for a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable

import msgspec
from msgspec import Struct

from coworkd.model.errors import UNDECODABLE, DiskFailed, InvalidParams, InvalidState
from coworkd.model.names import parse_folder_name, parse_session_name
from coworkd.model.ports import ReservePort
from coworkd.model.session import RECORD_FORMAT, SessionRecord
from coworkd.model.uids import MAX_UID, MIN_UID

_SUFFIX = ".json"
_SPARE = ".spare"
_SPARE_BYTES = 16 * 1024
_BROKEN_LIMIT = 16
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENOENT)
"""Something else has the record's name."""
_log = logging.getLogger("coworkd.session")
_decoder = msgspec.json.Decoder(SessionRecord)


class _Header(Struct):
    """What every format has in common."""

    format: int
    name: str
    uid: int | None = None


_header_decoder = msgspec.json.Decoder(_Header)


class RecordStore:
    """The records of one state directory."""

    def __init__(self, state_dir: str, *, reserve: ReservePort | None = None) -> None:
        self._directory = os.path.join(state_dir, "sessions")
        self._reserve = reserve
        self.reserved: dict[str, int | None] = {}
        """Names whose record is of a later format, or cannot be read now, and their uids where they are known."""
        self._unread: dict[str, str] = {}
        self.broken: tuple[str, ...] = ()
        """Names whose record was set aside by the last `load`."""

    def load(self) -> dict[str, SessionRecord]:
        """Every readable record by name. Raises `DiskFailed` where the directory cannot be made or read."""
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            names = sorted(os.listdir(self._directory))
        except OSError as error:
            raise DiskFailed(f"{self._directory}: {error.strerror}", errno=error.errno) from error
        records: dict[str, SessionRecord] = {}
        broken: list[str] = []
        self.reserved, self._unread = {}, {}
        for file in names:
            if file.startswith(".") and file.endswith(f"{_SUFFIX}.new"):
                with contextlib.suppress(OSError):
                    os.unlink(self._path(file))  # half a record, of a crash
            if file.endswith(_SUFFIX) and not file.startswith("."):
                name = file.removesuffix(_SUFFIX)
                record = self._read(name)
                if record is not None:
                    records[name] = record
                elif name not in self.reserved:
                    broken.append(name)
        self.broken = tuple(broken)
        with contextlib.suppress(OSError):
            self._make_spare()
        return records

    def save(self, record: SessionRecord) -> None:
        """Make `record` durable. Raises `DiskFailed`; the old record then still stands."""
        if record.name in self.reserved:
            raise InvalidState(self.refusal_of_reserved(record.name), session=record.name)
        data = msgspec.json.format(msgspec.json.encode(record)) + b"\n"
        try:
            self._write(record.name, data)
        except OSError as error:
            raise DiskFailed(
                f"the record of session {record.name} cannot be written: {error.strerror}", errno=error.errno
            ) from error
        with contextlib.suppress(OSError):
            self._make_spare()

    def remove(self, name: str) -> None:
        """Forget the record; it may be gone. Raises `DiskFailed`."""
        try:
            os.unlink(self._path(f"{name}{_SUFFIX}"))
            self._sync()
        except FileNotFoundError:
            return
        except OSError as error:
            raise DiskFailed(f"the record of session {name} cannot be removed: {error.strerror}") from error

    def refusal_of_reserved(self, name: str) -> str:
        """Why nothing can be done with a session whose record is left alone."""
        if name in self._unread:
            return (
                f"the record of session {name} cannot be read ({self._unread[name]}) and is left alone; see to the session disk, and "
                "restart coworkd"
            )
        return (
            f"the record of session {name} was written by a later coworkd and is left alone; use that coworkd, or choose "
            "another session name"
        )

    # -- reading ------------------------------------------------------------------------------------------------

    def _read(self, name: str) -> SessionRecord | None:
        path = self._path(f"{name}{_SUFFIX}")
        try:
            try:
                with open(path, "rb", buffering=0) as file:
                    data = file.read()
            except OSError as error:
                if error.errno in _NO_FILE:
                    raise
                self._unread[name] = error.strerror or str(error)
                self.reserved[name] = None
                _log.error("session %s is left alone: %s: %s", name, path, error.strerror)
                return None
            if self._is_later(name, data):
                return None
            record = _decoder.decode(data)
            _judge(record, name)
        except (OSError, ValueError, *UNDECODABLE, InvalidParams) as error:
            aside = self._set_aside(path)
            _log.error("the record %s is set aside as %s: %s", path, aside, error)
            return None
        return record

    def _is_later(self, name: str, data: bytes) -> bool:
        header = _header_decoder.decode(data)
        if header.format <= RECORD_FORMAT or header.name != parse_session_name(name):
            return False
        self.reserved[name] = header.uid
        _log.error("session %s is left alone: its record is of format %d, a later coworkd's", name, header.format)
        return True

    def _set_aside(self, path: str) -> str:
        """The path it has now. What was set aside before is kept, as far as there is a name left."""
        aside = f"{path}.broken"
        for number in range(2, _BROKEN_LIMIT + 1):
            if not os.path.lexists(aside):
                break
            aside = f"{path}.broken-{number}"
        try:
            os.rename(path, aside)
        except OSError as error:
            raise DiskFailed(
                f"{path} is broken and cannot be set aside: {error.strerror}", errno=error.errno
            ) from error
        return aside

    # -- writing ------------------------------------------------------------------------------------------------

    def _write(self, name: str, data: bytes) -> None:
        path, new = self._path(f"{name}{_SUFFIX}"), self._path(f".{name}{_SUFFIX}.new")
        ways: list[Callable[[], None]] = [lambda: _write_new(new, data)]
        if os.path.exists(path):
            ways.append(lambda: self._write_spare(new, data))
            ways.append(lambda: self._write_with_reserve(new, data))
        for number, way in enumerate(ways, 1):
            try:
                way()
                os.rename(new, path)
                self._sync()
            except OSError as error:
                if error.errno not in _FULL or number == len(ways):
                    with contextlib.suppress(OSError):
                        os.unlink(new)
                    raise
            else:
                return

    def _write_spare(self, new: str, data: bytes) -> None:
        """Overwrite blocks the disk has given already, under a name that is free."""
        if len(data) > _SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # what the full disk took of the first try
        try:
            os.rename(self._path(_SPARE), new)
        except FileNotFoundError:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        fd = os.open(new, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
            os.fsync(fd)
        finally:
            os.close(fd)

    def _write_with_reserve(self, new: str, data: bytes) -> None:
        """A step of it after the other: whoever filled the disk may be quicker to take one."""
        while self._reserve is not None and self._reserve.release():
            _log.warning("the session disk is full: some of its reserve was given up for a record")
            try:
                _write_new(new, data)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
            else:
                return
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _make_spare(self) -> None:
        spare = self._path(_SPARE)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(spare).st_size == _SPARE_BYTES:
                return
        making = f"{spare}.new"
        try:
            # Written, not only allocated: what was never written needs room when it is.
            _write_new(making, bytes(_SPARE_BYTES))
            os.rename(making, spare)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(making)
            raise

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _write_new(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:  # a buffered file writes on after a part was taken, or raises
        file.write(data)
        file.flush()
        os.fsync(fd)


def _judge(record: SessionRecord, name: str) -> None:
    """Raise `ValueError` or `InvalidParams` for a record that no `save` of ours has written."""
    if record.format != RECORD_FORMAT or record.name != parse_session_name(name):
        raise ValueError(f"format {record.format} of session {record.name!r}")
    if not MIN_UID <= record.uid <= MAX_UID or record.gid != record.uid:
        raise ValueError(f"uid {record.uid}, gid {record.gid}: a session has one number from {MIN_UID} to {MAX_UID}")
    names = [parse_folder_name(grant.name) for grant in record.folders]
    if len(set(names)) < len(names):
        raise ValueError("two folders of one name")
