"""A way to coworkd that breaks: a unix socket before its own, whose connections are cut behind so many bytes of one way.

The link can also go silent, as one whose other half is gone: what is sent into it then is taken and leads nowhere.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

Way = Literal["to_guest", "to_host"]
Cut = tuple[Way, int]


class CuttingWay:
    """`uri` leads to `target`; each connection takes the next of `cuts`, those after the last are whole."""

    def __init__(self, path: Path, target: Path, cuts: Iterable[Cut]) -> None:
        self.uri = f"unix://{path}"
        self.connections = 0
        self.silent = threading.Event()
        """While it is set, nothing is passed on, in either direction, and nothing is closed."""
        self._target = target
        self._cuts = iter(cuts)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._accept)]
        self._ended = False
        self._left: list[dict[Way, float]] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def cut_after(self, way: Way, count: int) -> None:
        """Cut the connection there is behind the next `count` bytes of one way."""
        self._left[-1][way] = count

    def cut(self) -> None:
        """Cut every connection there is now."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def start(self) -> None:
        self._threads[0].start()

    def stop(self) -> None:
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                host, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._pass, args=(host, next(self._cuts, None)))
            self._threads.append(thread)
            thread.start()

    def _pass(self, host: socket.socket, cut: Cut | None) -> None:
        """One connection: each way has a thread, so that neither waits for the other."""
        guest = socket.socket(socket.AF_UNIX)
        with host, guest:
            guest.connect(str(self._target))
            left: dict[Way, float] = {"to_guest": float("inf"), "to_host": float("inf")}
            if cut is not None:
                left[cut[0]] = cut[1]
            self._left.append(left)
            self._pairs.append((host, guest))
            back = threading.Thread(target=self._pass_one, args=("to_host", guest, host, left))
            back.start()
            self._pass_one("to_guest", host, guest, left)
            back.join()

    def _pass_one(self, way: Way, source: socket.socket, target: socket.socket, left: dict[Way, float]) -> None:
        try:
            while not self._ended and min(left.values()) > 0:
                ready = select.select([source], [], [], 0.05)[0]
                if not ready or self.silent.is_set():
                    time.sleep(0.05 if ready else 0)
                    continue
                data = source.recv(int(min(65536, max(1, left[way]))))
                target.sendall(data)
                left[way] -= len(data)
                if not data:
                    break
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting_way(directory: Path, target: Path, cuts: Iterable[Cut] = ()) -> Iterator[CuttingWay]:
    way = CuttingWay(directory / "way.sock", target, cuts)
    way.start()
    try:
        yield way
    finally:
        way.stop()
