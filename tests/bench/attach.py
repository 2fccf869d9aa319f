"""How fast kept output is had again: `process.attach` over a spool of 64 MiB, beside the plain loop over the same, by turns.

    memfd ─ pread 64 KiB ─ packb ─▶ unix socket ─ recv ─ Unpacker ─▶ count

The plain loop is a process of its own, with as plain a client; it bounds nothing. By itself: `python -m tests.bench.attach [--quick]`.
"""

from __future__ import annotations

import os
import socket
import sys
import time

import msgpack  # type: ignore[import-untyped]
from msgspec import Struct

from coworkd.client.sync import Client, connect
from coworkd.model.process import SpoolRequest
from tests.bench.figures import paired_ratio, spread
from tests.bench.guest import SESSION, open_guest, temporary_directory
from tests.bench.spawning import Pairs
from tests.bench.stream_peer import CHUNK_BYTES, time_sender
from tests.bench.tables import MIB, ratio, table

SIZE_BYTES = 64 * MIB


class Replays(Struct, frozen=True, kw_only=True):
    """Seconds to have the whole spool: plain and ours by turns, once as usual, once with what came acknowledged."""

    usual: Pairs
    acknowledged: Pairs


def measure_attach(uri: str, *, pairs: int) -> Replays:
    """On a guest with the session `SESSION`."""
    with connect(uri, client_name="bench") as usual, connect(uri, client_name="bench", reconnect_s=10) as lasting:
        argv = ["/usr/bin/head", "-c", str(SIZE_BYTES), "/dev/zero"]
        spool = SpoolRequest(limit_bytes=SIZE_BYTES)
        process = usual.start(SESSION, argv, attach=False, on_full="block", spool=spool)
        process.wait()
        measured = Replays(usual=Pairs(base_s=[], other_s=[]), acknowledged=Pairs(base_s=[], other_s=[]))
        for turn in range(pairs + 1):
            for client, seconds in ((usual, measured.usual), (lasting, measured.acknowledged)):
                plain, ours = _replay_plainly(), _replay(client, process.id)
                if turn:
                    seconds.base_s.append(plain)
                    seconds.other_s.append(ours)
        process.forget()
        return measured


def compose_attach_rows(measured: Replays) -> list[tuple[str, ...]]:
    """Label, rate, and what it is to the plain loop's."""
    size_mib = SIZE_BYTES / MIB
    plain = spread([size_mib / seconds for seconds in measured.usual.base_s])
    rows: list[tuple[str, ...]] = [("plain loop", f"{plain.median:.0f} MiB/s", "")]
    for name, pairs in (("attach", measured.usual), ("attach, acknowledged", measured.acknowledged)):
        ours = spread([size_mib / seconds for seconds in pairs.other_s])
        rows.append((name, f"{ours.median:.0f} MiB/s", ratio(paired_ratio(pairs.base_s, pairs.other_s))))
    return rows


def _replay(client: Client, process: str) -> float:
    received, began = 0, time.perf_counter()
    attached = client.attach(process, stdout=0)
    for piece in attached:
        received += len(piece.data)
    took = time.perf_counter() - began
    attached.detach()
    if received != SIZE_BYTES:
        raise RuntimeError(f"{received} bytes came, not {SIZE_BYTES}")
    return took


def _replay_plainly() -> float:
    return time_sender(["-m", "tests.bench.attach", "--peer"], [], SIZE_BYTES)


def _send(link: socket.socket) -> None:
    spool = os.memfd_create("bench", os.MFD_CLOEXEC)
    for _ in range(SIZE_BYTES // MIB):
        os.write(spool, bytes(MIB))
    link.sendall(b"r")
    link.recv(1)
    for offset in range(0, SIZE_BYTES, CHUNK_BYTES):
        params = {"process": "peer", "stream": "stdout", "offset": offset}
        link.sendall(msgpack.packb([2, "process.output", [{**params, "data": os.pread(spool, CHUNK_BYTES, offset)}]]))
    link.shutdown(socket.SHUT_WR)


def main() -> None:
    pairs = 3 if "--quick" in sys.argv else 15
    with temporary_directory() as directory, open_guest(directory) as guest:
        with guest.connect() as client:
            client.session_ensure(name=SESSION)
        measured = measure_attach(guest.uri, pairs=pairs)
    print(table(("64 MiB that were kept", "rate", "to the plain loop (95 %)"), compose_attach_rows(measured)))


if __name__ == "__main__":
    if "--peer" in sys.argv:
        with socket.socket(fileno=int(sys.argv[2])) as connection:
            _send(connection)
    else:
        main()
