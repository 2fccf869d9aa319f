"""coworkd goes while many commands stream: every host goes on where it was, with no byte lost and none twice.

Three ways to go: kill -9, TERM and a new start (`systemctl restart`), and an update that it execs into. In each, every stream has a link of
its own that is made again by the client; what counts is the SHA-256 of all that came, and its length, which a byte lost or doubled changes.

`COWORKD_STREAMS` says how many, `COWORKD_STREAM_LINES` how long each is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coworkd.client import connect
from coworkd.model.errors import NotFound
from coworkd.model.process import ExitRecord, SpoolRequest
from tests.root.live import exited
from tests.root.update_lab import UpdateLab, make_release, update_lab

STREAMS = int(os.environ.get("COWORKD_STREAMS", "40"))
LINES = int(os.environ.get("COWORKD_STREAM_LINES", "200000"))
"""More than pipe, spool and sockets hold together: a command that nobody reads on must be there still."""
SPOOL = SpoolRequest(limit_bytes=256 * 1024)
AWAY_S = 60.0 + STREAMS
SESSION = f"load-{os.getpid()}"
"""Its account is this machine's: of two that run at once each has its own."""
PACE_S = 0.4
"""Between two pieces of a stream until somebody has gone: it lasts long enough for that."""
_starting = threading.BoundedSemaphore(8)
"""How many begin at once: this is about their bytes, and a crowd of starts takes as long for the first as for the last."""

_COUNT = 524288
_LINES = b"".join(b"%07d\n" % line for line in range(1, _COUNT + 1))
"""4 MiB, more than a link holds."""

pytestmark = pytest.mark.needs("bubblewrap")


class Stream(threading.Thread):
    """One command and the host that reads it, over a link of its own."""

    def __init__(self, uri: str, number: int, all_here: threading.Barrier, gone: threading.Event) -> None:
        super().__init__()
        self.number = number
        self.received = 0
        self.end: ExitRecord | None = None
        self.error: BaseException | None = None
        self.renewals = 0
        self._uri = uri
        self._all_here = all_here
        self._gone = gone
        self._seen = hashlib.sha256()

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error
            self._all_here.abort()

    def _run(self) -> None:
        with connect(self._uri, reconnect_s=AWAY_S) as client:
            argv = ["seq", "-f", f"{self.number} %.0f", str(LINES)]
            # Half of them wait for whoever reads, the others for this host alone: its place is held.
            with _starting:
                process = client.start(SESSION, argv, on_full="block" if self.number % 2 else None, spool=SPOOL)
            self._all_here.wait(AWAY_S)
            for piece in (piece for piece in process if piece.stream == "stdout"):
                assert piece.offset == self.received, f"stream {self.number}: {piece.offset}, not {self.received}"
                self._seen.update(piece.data)
                self.received += len(piece.data)
                self._gone.wait(PACE_S)
            self.end = process.wait(AWAY_S)
            self.renewals = client.renewals
            with contextlib.suppress(NotFound):  # it was forgotten, and who was to say so was killed
                process.forget()

    @property
    def is_whole(self) -> bool:
        wanted = hashlib.sha256()
        for first in range(1, LINES + 1, 10000):
            last = min(LINES, first + 9999)
            wanted.update(b"".join(b"%d %d\n" % (self.number, line) for line in range(first, last + 1)))
        return self._seen.digest() == wanted.digest()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[UpdateLab]:
    with update_lab(tmp_path / "lab") as made:
        yield made


@contextlib.contextmanager
def session(lab: UpdateLab) -> Iterator[None]:
    """For the block; its account goes with it, whatever happens: a client that was idle over the restart need not know that."""
    with connect(f"unix://{lab.socket}") as client:
        client.session_ensure(name=SESSION)
    try:
        yield
    finally:
        with connect(f"unix://{lab.socket}") as client:
            client.session_delete(session=SESSION, force=True)


def go_through(lab: UpdateLab, leave: Callable[[], None]) -> None:
    """Stream, leave in the middle, and see everything arrive."""
    uri = f"unix://{lab.socket}"
    all_here, gone = threading.Barrier(STREAMS), threading.Event()
    streams = [Stream(uri, number, all_here, gone) for number in range(STREAMS)]
    for stream in streams:
        stream.start()
    deadline = time.monotonic() + AWAY_S
    while not all(stream.received for stream in streams):
        errors = [stream.error for stream in streams if stream.error is not None]
        assert not errors, f"they do not start: {errors}"
        assert time.monotonic() < deadline, "they do not stream"
        time.sleep(0.005)
    under_way = sum(stream.end is None for stream in streams)
    leave()
    gone.set()
    for stream in streams:
        stream.join(AWAY_S)
    failed = [f"{stream.number}: {stream.error!r}" for stream in streams if stream.error is not None]
    assert failed == []
    assert under_way > STREAMS / 2, "most had ended before anybody left"
    assert any(stream.renewals for stream in streams), "no link was lost"
    assert [stream.number for stream in streams if not stream.is_whole] == []
    assert {(stream.end.exit, stream.end.output) for stream in streams if stream.end} == {(exited(0), "complete")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "TERM"])
def test_a_restart_under_load_loses_no_byte(lab: UpdateLab, tmp_path: Path, how: signal.Signals) -> None:
    lab.configure(str(tmp_path / "none"))
    lab.start()
    lab.ready()

    def restart() -> None:
        lab.stop(how)
        lab.start()

    with session(lab):
        go_through(lab, restart)
        with connect(f"unix://{lab.socket}") as client:
            restarted = client.hello.restarted
            assert restarted is not None
            assert (restarted.lost, restarted.sessions) == ((), 1), lab.log
            assert restarted.running > STREAMS / 2, "most had ended before anybody left"
            assert client.audit_verify().ok


def test_ended_commands_that_are_still_read_leave_all_to_the_next_coworkd(lab: UpdateLab, tmp_path: Path) -> None:
    """Nothing is kept for nobody, and their hosts have read next to nothing when coworkd is killed."""
    lab.configure(str(tmp_path / "none"))
    with (lab.directory / "coworkd.toml").open("a") as config:
        config.write("[finished]\nkeep_bytes = 0\n")
    lab.start()
    lab.ready()
    uri = f"unix://{lab.socket}"
    with session(lab), contextlib.ExitStack() as links:
        hosts = [links.enter_context(connect(uri, reconnect_s=AWAY_S)) for _ in range(3)]
        large = SpoolRequest(limit_bytes=len(_LINES))
        processes = [host.start(SESSION, ["seq", "-f", "%07.0f", str(_COUNT)], spool=large) for host in hosts]
        with connect(uri) as client:
            for process in processes:
                assert client.process_wait(process=process.id, timeout_s=AWAY_S).exit == exited(0)
        lab.stop(signal.SIGKILL)
        lab.start()
        for process in processes:
            pieces = [piece.data for piece in process if piece.stream == "stdout"]
            assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(_LINES).digest()
            assert process.wait().exit == exited(0)


def test_an_update_under_load_loses_no_byte(lab: UpdateLab, tmp_path: Path) -> None:
    release = make_release(tmp_path / "9.1", "9.1", lab.key)
    lab.configure(str(tmp_path / "none"))
    lab.start()
    lab.ready()
    with lab.disk(release) as device:
        lab.stop()
        lab.configure(str(tmp_path / "disk"))
        lab.start()
        lab.ready()

        def update() -> None:
            (tmp_path / "disk").symlink_to(device)
            with connect(f"unix://{lab.socket}") as client:
                assert client.update_apply().restarting
            assert lab.ready(lambda status: status.running == "a").version == "9.1"

        with session(lab):
            go_through(lab, update)
        lab.stop()
