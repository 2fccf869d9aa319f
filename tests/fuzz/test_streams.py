"""A stream end to end against a model: whatever is written in whatever pieces, taken, acknowledged and repeated, both sides read the
same bytes, the window holds, and nothing but the errors of the protocol comes.
"""

from __future__ import annotations

import socket
from typing import Any

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from coworkd.client.stream_inbox import StreamInbox
from coworkd.model.errors import InvalidState, OutOfRange
from coworkd.services.streams_flow import Flow
from coworkd.services.streams_socket import SocketEnd
from tests.unit.services.stream_house import StreamLink, encode_data

SIZES = st.integers(0, 200_000)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("host writes"), SIZES),
        st.tuples(st.just("host repeats"), SIZES),
        st.tuples(st.just("host skips"), st.integers(1, 1 << 40)),
        st.tuples(st.just("host takes"), SIZES),
        st.tuples(st.just("host ends"), st.just(0)),
        st.tuples(st.just("guest writes"), SIZES),
        st.tuples(st.just("guest reads"), SIZES),
        st.tuples(st.just("guest ends"), st.just(0)),
        st.tuples(st.just("link takes"), st.integers(1, 65_536)),
        st.tuples(st.just("stray ack"), st.integers(-5, 1 << 40)),
    ),
    max_size=60,
)


def pattern(start: int, size: int) -> bytes:
    """Bytes that say where they stand."""
    return bytes((number * 7 + number // 251) & 0xFF for number in range(start, start + size))


class Both:
    """Both sides of one stream, and what each has said and read."""

    def __init__(self, window: int) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.link = StreamLink()
        self.window = window
        self.flow = Flow("s1", SocketEnd(ours), self.link, encode=encode_data, window=window)
        self.flow.on_end(lambda ending: None)
        self.link.attach(self.flow)
        self.inbox = StreamInbox("s1", window)
        self.sent = self.received = 0
        self.host_read, self.guest_read = b"", b""
        self.host_ended = self.guest_ended = False

    def step(self, what: str, number: int) -> None:
        getattr(self, what.replace(" ", "_"))(number)

    def host_writes(self, size: int) -> None:
        if not self.host_ended:
            self.flow.write_now(self.flow.wanted, pattern(self.flow.wanted, size))

    def host_repeats(self, size: int) -> None:
        start = max(0, self.flow.wanted - size)
        if not self.host_ended:
            self.flow.write_now(start, pattern(start, size))

    def host_skips(self, gap: int) -> None:
        try:
            self.flow.write_now(self.flow.wanted + gap, b"never")
        except (OutOfRange, InvalidState):
            return
        raise AssertionError("bytes behind a gap were taken")

    def host_takes(self, limit: int) -> None:
        self.host_read += self.inbox.take(limit or None) or b""
        offset = self.inbox.due()
        if offset is not None:
            self.flow.ack(offset)

    def host_ends(self, _: int) -> None:
        self.flow.close_write(self.flow.wanted)
        self.host_ended = True

    def guest_writes(self, size: int) -> None:
        if not self.guest_ended:
            try:
                self.received += self.peer.send(pattern(self.received, size))
            except BlockingIOError:
                return

    def guest_reads(self, size: int) -> None:
        try:
            self.guest_read += self.peer.recv(size + 1)
        except BlockingIOError:
            return

    def guest_ends(self, _: int) -> None:
        if not self.guest_ended:
            self.peer.shutdown(socket.SHUT_WR)
            self.guest_ended = True

    def link_takes(self, limit: int) -> None:
        for data in self.link.take(1, limit):
            params: dict[str, Any] = {"offset": data.offset, "data": data.data}
            self.inbox.feed({**params, "eof": True} if data.eof else params)
            assert len(data.data) <= limit
            assert data.error is None

    def stray_ack(self, offset: int) -> None:
        # Within what was taken an ack changes nothing; outside it is refused.
        if not 0 <= offset <= self.inbox.taken:
            try:
                self.flow.ack(offset if offset < 0 else self.flow.offset + 1 + offset)
            except OutOfRange:
                return
            raise AssertionError("bytes never sent were acknowledged")

    async def finish(self) -> None:
        """Let everything arrive that was said."""
        while len(self.guest_read) < self.flow.wanted or len(self.host_read) < self.received:
            self.guest_reads(1 << 20)
            await trio.testing.wait_all_tasks_blocked()
            self.link_takes(65_536)
            self.host_takes(0)


@given(STEPS, st.integers(1, 300_000))
def test_both_sides_read_what_the_other_said(steps: list[tuple[str, int]], window: int) -> None:
    async def main() -> None:
        both = Both(window)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.flow.watch)
            for what, number in steps:
                await trio.testing.wait_all_tasks_blocked()
                both.step(what, number)
            with trio.fail_after(60):
                await both.finish()
            nursery.cancel_scope.cancel()
        assert both.guest_read == pattern(0, both.flow.wanted)
        assert both.host_read == pattern(0, both.received)
        both.flow.close()
        both.peer.close()

    trio.run(main)
