"""The wall clock is set while commands run: nothing waits for it, nothing ends by it, and nothing kept goes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import trio

from coworkd.client import aio
from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import DeadlineExceeded
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of

HOUR_S = 3600.0
STEPS = (-HOUR_S, 8 * HOUR_S, 30 * HOUR_S)

pytestmark = [pytest.mark.needs("bubblewrap"), pytest.mark.needs("own-clock")]


@pytest.fixture
def client(fresh_daemon: Daemon) -> Iterator[Client]:
    with client_of(fresh_daemon) as made:
        yield made


@pytest.fixture
def right_again() -> Iterator[None]:
    """The clock goes on behind the test as if nothing had been."""
    wall, began = time.time(), time.monotonic()
    yield
    time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - began)


def read_all(process: Process, into: list[bytes]) -> None:
    into.append(b"".join(piece.data for piece in process))


@pytest.mark.usefixtures("right_again")
def test_a_clock_that_is_set_under_load_changes_no_command_and_no_link(fresh_daemon: Daemon, client: Client) -> None:
    async def keep_speaking(ended: threading.Event) -> str:
        """A host that promised to: its link is to last."""
        async with await aio.connect(fresh_daemon.uri, keepalive_s=10) as speaking:
            while not ended.is_set():
                await speaking.ping()
                await trio.sleep(0.2)
            return speaking.hello.boot_id

    with session_of(client, "clock") as session, contextlib.ExitStack() as stack:
        old = client.start(session, ["echo", "kept"], attach=False)
        old.wait()
        ended, spoken = threading.Event(), list[str]()
        speaker = threading.Thread(target=lambda: spoken.append(trio.run(keep_speaking, ended)))
        speaker.start()
        stack.callback(speaker.join)
        stack.callback(ended.set)
        script = "for i in $(seq 1 15); do echo line $i; sleep 0.2; done"
        links = [stack.enter_context(client_of(fresh_daemon)) for _ in range(2)]
        said: list[bytes] = []
        streams = [link.start(session, ["sh", "-c", script], on_full="block") for link in links]
        readers = [threading.Thread(target=read_all, args=(stream, said)) for stream in streams]
        for reader in readers:
            reader.start()
        began = time.monotonic()
        short = client.start(session, ["sleep", "1000"], timeout_s=8)
        for step_s in STEPS:
            time.sleep(0.3)
            time.clock_settime(time.CLOCK_REALTIME, time.time() + step_s)
            with pytest.raises(DeadlineExceeded):
                short.wait(0.2)
        assert short.wait().exit.reason == "timeout"
        assert 7.5 <= time.monotonic() - began <= 120
        for reader in readers:
            reader.join()
        assert said == [b"".join(b"line %d\n" % number for number in range(1, 16))] * len(streams)
        for stream in streams:
            assert stream.wait().exit.code == 0
        ended.set()
        speaker.join()
        assert len(spoken) == 1
        assert client.process_get(process=old.id).exit is not None
        with client.start(session, ["echo", "after"]) as process:
            read_all(process, said)
        assert said[-1] == b"after\n"
