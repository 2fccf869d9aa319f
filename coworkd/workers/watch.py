"""The `watch` worker: tells what is changed in folders that have no file system of their own. Words: `model.watch`.

Rules
- By fanotify where the file system can, else by inotify (`watch_fanotify`, `watch_inotify`).
- One thread. While it is slow, or coworkd is, the kernel's own bounded queues fill; what they drop is told as `Missed`.
- It looks, and changes nothing: of root's rights it has those to read directories and to watch. It ends with its socket.
"""

from __future__ import annotations

import errno
import os
import select
import socket

import msgspec

from coworkd.model.watch import (
    FromWatcher,
    Missed,
    NotWatched,
    Seen,
    SeenChange,
    ToWatcher,
    Unwatched,
    UnwatchTree,
    Watching,
    WatchTree,
)
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.watch_fanotify import FanotifyTrees
from coworkd.workers.watch_inotify import InotifyTrees
from coworkd.workers.watch_trees import Tree

BATCH = 256
_decoder: msgspec.msgpack.Decoder[ToWatcher] = msgspec.msgpack.Decoder(ToWatcher)
_CANNOT = frozenset(
    {errno.ENODEV, errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOSPC}
)
"""What fanotify says of a file system, or a kernel, that it cannot watch."""


def serve(connection: socket.socket) -> None:
    """Watch until coworkd closes its end."""
    watcher = Watcher()
    talk = WorkerSocket(connection, _decoder)
    try:
        _serve(watcher, talk)
    except OSError:  # nobody listens any more
        return
    finally:
        watcher.close()


def _serve(watcher: Watcher, talk: WorkerSocket[ToWatcher]) -> None:
    poller = select.poll()
    poller.register(talk.fileno(), select.POLLIN)
    known: set[int] = set()
    while True:
        for fd in watcher.fds - known:
            poller.register(fd, select.POLLIN)
        known = watcher.fds
        for fd, _ in poller.poll():
            if fd != talk.fileno():
                for message in watcher.read(fd):
                    talk.send(message)
                continue
            received = talk.receive()
            if received is None:
                return
            for each in received[1]:
                os.close(each)
            # What happened before is told before it is said that this was heard.
            for own in watcher.fds:
                for message in watcher.read(own):
                    talk.send(message)
            talk.send(watcher.answer(received[0]))


class Watcher:
    """Both ways to watch; each is there from its first use. Whoever made it calls `close`."""

    def __init__(self) -> None:
        self._fanotify: FanotifyTrees | None = None
        self._inotify: InotifyTrees | None = None

    @property
    def fds(self) -> set[int]:
        """What to listen to."""
        return {each.fd for each in (self._fanotify, self._inotify) if each is not None}

    def answer(self, request: ToWatcher) -> FromWatcher:
        """Do what is asked, and say what came of it."""
        if isinstance(request, UnwatchTree):
            for each in (self._fanotify, self._inotify):
                if each is not None and each.remove(request.watch):
                    break
            return Unwatched(id=request.id)
        try:
            return self._watch(request)
        except OSError as error:
            return NotWatched(id=request.id, errno=error.errno, message=error.strerror or str(error))

    def read(self, fd: int) -> list[FromWatcher]:
        """What there is to tell, of one of `fds`."""
        source = self._fanotify if self._fanotify is not None and fd == self._fanotify.fd else self._inotify
        if source is None:
            return []
        seen, missed = source.read()
        told: list[FromWatcher] = [Seen(changes=tuple(batch)) for batch in _batches(seen)]
        if missed:
            told.append(Missed(watches=source.watches))
        return told

    def close(self) -> None:
        for each in (self._fanotify, self._inotify):
            if each is not None:
                each.close()

    def _watch(self, request: WatchTree) -> Watching:
        tree = Tree(request.watch, request.path, staged=request.staged)
        try:
            try:
                if self._fanotify is None:
                    self._fanotify = FanotifyTrees()
                self._fanotify.add(tree)
                return Watching(id=request.id, by="fanotify")
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
            if self._inotify is None:
                self._inotify = InotifyTrees()
            return Watching(id=request.id, by="inotify", unseen=self._inotify.add(tree))
        except BaseException:
            tree.close()
            raise


def _batches(seen: list[SeenChange]) -> list[list[SeenChange]]:
    return [seen[at : at + BATCH] for at in range(0, len(seen), BATCH)]
