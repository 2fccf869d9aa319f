"""Output that comes into a spool without a pipe, as a terminal's does."""

from __future__ import annotations

from coworkd.services.spools import Spool
from coworkd.system import spool_file


def put(spool: Spool, data: bytes) -> None:
    spool_file.append(spool.fileno(), data)
    spool.appended(len(data))
