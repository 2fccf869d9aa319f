"""Ended commands, carried over a coming up anew in which the launcher cannot stay: the disk they stood on was away, and is back.

What the launcher would have kept of each is composed here, for the adoption that follows: how it ended, its note, and what it put out. What
of that lay on the disk itself cannot be carried, and is gone from the list of its streams.
"""

from __future__ import annotations

import os

from coworkd.model.launch import Adopted, Spawned, Started
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_note import encode_note
from coworkd.services.spools_disk import DiskSpool

Carried = tuple[Adopted, list[int]]
"""An ended command, and copies of its descriptors in the order of `spawned.fds`, whoever's it is."""


def carry(process: LiveProcess) -> Carried:
    """`process` has ended. The copies are the caller's from now on; its own stay. Raises `OSError`."""
    names, fds = [], []
    try:
        for name, spool in process.streams.items():
            if not isinstance(spool, DiskSpool):
                fds.append(os.dup(spool.fileno()))
                names.append(f"{name}_spool")
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    spawned = Spawned(id=0, process=process.id, monitor_pid=0, fds=tuple(names), at=process.started_at)
    started = Started(
        process=process.id,
        init_pid=process.init_pid or 0,
        payload_pid=process.pid or 0,
        at=process.started_at,
        monitor_pid=0,
    )
    adopted = Adopted(
        id=0,
        process=process.id,
        session=process.session,
        argv=process.argv,
        spawned=spawned,
        started=started,
        start_error=None,
        exited=process.exited,
        note=encode_note(process.note),
    )
    return adopted, fds
