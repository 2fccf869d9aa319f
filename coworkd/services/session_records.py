"""Session records on disk: one JSON file a session, replaced as a whole.

Layout: `STATE/sessions/NAME.json`, 0600, written to `.NAME.json.new`, fsynced, renamed, and the directory fsynced: after any crash a
record is the old one or the new one. A record that cannot be read is set aside as `NAME.json.broken` and told; its home stays.
Blocking: for a worker thread.
"""

from __future__ import annotations

import logging
import os

import msgspec

from coworkd.model.errors import DiskFailed, InvalidParams
from coworkd.model.names import MAX_UID, MIN_UID, parse_session_name
from coworkd.model.session import RECORD_FORMAT, SessionRecord

_log = logging.getLogger("coworkd.session")
_decoder = msgspec.json.Decoder(SessionRecord)


class RecordStore:
    """The records of one state directory."""

    def __init__(self, state_dir: str) -> None:
        self._directory = os.path.join(state_dir, "sessions")

    def load(self) -> dict[str, SessionRecord]:
        """Every readable record by name. Raises `DiskFailed` where the directory cannot be made or read."""
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            names = sorted(os.listdir(self._directory))
        except OSError as error:
            raise DiskFailed(f"{self._directory}: {error.strerror}", errno=error.errno) from error
        records = {}
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                record = self._read(name)
                if record is not None:
                    records[record.name] = record
        return records

    def save(self, record: SessionRecord) -> None:
        """Make `record` durable. Raises `DiskFailed`; the old record then still stands."""
        path = os.path.join(self._directory, f"{record.name}.json")
        new = os.path.join(self._directory, f".{record.name}.json.new")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:  # a buffered file writes on after a part was taken, or raises
                file.write(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
                file.flush()
                os.fsync(fd)
            os.rename(new, path)
            self._sync()
        except OSError as error:
            raise DiskFailed(f"the record of session {record.name} cannot be written: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Forget the record; it may be gone. Raises `DiskFailed`."""
        try:
            os.unlink(os.path.join(self._directory, f"{name}.json"))
            self._sync()
        except FileNotFoundError:
            return
        except OSError as error:
            raise DiskFailed(f"the record of session {name} cannot be removed: {error.strerror}") from error

    def _read(self, name: str) -> SessionRecord | None:
        path = os.path.join(self._directory, name)
        try:
            with open(path, "rb") as file:
                record = _decoder.decode(file.read())
            _judge(record, name.removesuffix(".json"))
        except (OSError, ValueError, msgspec.MsgspecError, InvalidParams) as error:
            _log.error("the record %s is set aside as %s.broken: %s", path, name, error)
            self._set_aside(path)
            return None
        return record

    def _set_aside(self, path: str) -> None:
        try:
            os.rename(path, f"{path}.broken")
        except OSError as error:
            raise DiskFailed(
                f"{path} is broken and cannot be set aside: {error.strerror}", errno=error.errno
            ) from error

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _judge(record: SessionRecord, name: str) -> None:
    """Raise `ValueError` or `InvalidParams` for a record that no `save` of ours has written."""
    if record.format != RECORD_FORMAT or record.name != parse_session_name(name):
        raise ValueError(f"format {record.format} of session {record.name!r}")
    if not MIN_UID <= record.uid <= MAX_UID or record.gid != record.uid:
        raise ValueError(f"uid {record.uid}, gid {record.gid}: a session has one number from {MIN_UID} to {MAX_UID}")
