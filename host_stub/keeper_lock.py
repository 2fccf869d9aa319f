"""One keeper a bundle, and what is left of the last one.

    BUNDLE/run/lock          flock(2), held by the keeper as long as it lives, or for a moment by whoever changes the bundle
    BUNDLE/state/last.json   `Record`: written at each change of state, durably

Rules
- The kernel gives the lock back when the process ends, however it ends. So a lock that can be had means: no keeper lives.
- The lock's file is never removed: of two who made it one after the other, both would hold one.
- A machine whose keeper was killed ends with it. Where it does not within `GRACE_S`, it is killed, known by its number and the time it
  was made; a later process of the same number is left alone. Either way it is told.

Sources: flock(2). Blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

import msgspec
import psutil

from coworkd.model.errors import UNDECODABLE
from host_stub.bundle import Bundle
from host_stub.bundle_files import telling, write_whole
from host_stub.keeper_words import LIVING, RECORD_NAME, Record
from host_stub.words import Trouble

GRACE_S = 5.0
LOOKS, LOOK_PAUSE_S = 5, 0.03
"""How often somebody else's lock is looked at before it is told."""
_SAME_S = 1.0
"""psutil reckons a process's time from the clock, which may have been set a little."""


@contextlib.contextmanager
def hold_lock(bundle: Bundle, *, looks: int = LOOKS, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Hold the bundle alone. Raises `Trouble` (`already_running`) where somebody else does.

    Not at the first look: whoever asks `is_held` has it for a moment, and is nobody.
    """
    path = bundle.run / "lock"
    with telling("locking", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while not _take(fd):
            looks -= 1
            if looks <= 0:
                raise Trouble(
                    "already_running",
                    f"the machine {bundle.path} is running, or is being changed by another call",
                    remedy="see cowork-vm status; end it with cowork-vm down",
                )
            sleep(LOOK_PAUSE_S)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(bundle: Bundle) -> bool:
    """Whether somebody holds the lock now."""
    try:
        with hold_lock(bundle, looks=1):
            return False
    except Trouble as trouble:
        if trouble.code == "already_running":
            return True
        raise


def write_record(bundle: Bundle, record: Record) -> None:
    """Replace the record, durably. Raises `OSError`."""
    write_whole(bundle.state / RECORD_NAME, [msgspec.json.encode(record)])


def read_record(bundle: Bundle) -> Record | None:
    """The last keeper's record; None where there is none that can be read."""
    try:
        return msgspec.json.decode((bundle.state / RECORD_NAME).read_bytes(), type=Record)
    except (OSError, *UNDECODABLE):
        return None


def identify(pid: int) -> float | None:
    """When the process was made; None where it is gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def settle_predecessor(bundle: Bundle, *, grace_s: float = GRACE_S) -> str | None:
    """See that nothing of a keeper that was killed runs on; a sentence about it, None where the last one ended well.

    Only under the lock. Waits at most `grace_s`.
    """
    record = read_record(bundle)
    if record is None or record.state not in LIVING:
        return None
    said = f"the last keeper (process {record.keeper_pid}) was killed while the machine was {record.state.value}"
    machine = _same_process(record)
    if machine is None:
        return f"{said}; the machine ended with it"
    try:
        machine.wait(grace_s)
    except psutil.TimeoutExpired:
        with contextlib.suppress(psutil.NoSuchProcess):
            machine.kill()
            machine.wait(GRACE_S)
        return f"{said}; the machine (process {record.machine_pid}) ran on, and was ended now"
    return f"{said}; the machine ended with it"


def _same_process(record: Record) -> psutil.Process | None:
    if record.machine_pid is None or record.machine_created is None:
        return None
    try:
        found = psutil.Process(record.machine_pid)
        same = abs(found.create_time() - record.machine_created) < _SAME_S
    except psutil.Error:
        return None
    return found if same and found.status() != psutil.STATUS_ZOMBIE else None
