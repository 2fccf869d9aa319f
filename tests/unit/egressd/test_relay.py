from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from coworkd.egressd.loop import Loop
from coworkd.egressd.pipes import TURN_BYTES, PipePool, Share
from coworkd.egressd.relay import Relay
from coworkd.egressd.tcp import UNSENT_BYTES, reset
from coworkd.system import splice
from tests.unit.egressd.sockets import fill, open_fds, read_all, tcp_pair, turn_until


class Tunnel:
    """One relay between `client` and `server`, the far ends, which are the test's."""

    def __init__(
        self,
        loop: Loop,
        pool: PipePool,
        *,
        unix: bool = False,
        buffer_bytes: int | None = None,
        share: Share | None = None,
    ) -> None:
        self.loop = loop
        self.ends: list[str] = []
        self.share = share or Share()
        self.client, near = socket.socketpair() if unix else tcp_pair(buffer_bytes=buffer_bytes)
        self.client.setblocking(False)
        near.setblocking(False)
        upstream, self.server = tcp_pair(buffer_bytes=buffer_bytes)
        self.relay = Relay(loop, pool, self.share, near, upstream, self.ends.append)

    def start(self, *, to_client: bytes = b"", to_upstream: bytes = b"") -> None:
        self.relay.start(to_client=to_client, to_upstream=to_upstream, client_mask=0, upstream_mask=0)

    def close(self) -> None:
        self.relay.end("test over")
        self.client.close()
        self.server.close()

    def receive(self, connection: socket.socket, count: int) -> bytes:
        got = bytearray()

        def enough() -> bool:
            got.extend(read_all(connection))
            return len(got) >= count

        turn_until(self.loop, enough)
        return bytes(got)


@pytest.fixture
def pool() -> PipePool:
    return PipePool()


@pytest.fixture
def loop(pool: PipePool) -> Iterator[Loop]:
    opened = Loop()
    yield opened
    opened.close()
    pool.close()
    assert pool.open_count == 0


@pytest.fixture(params=[False, True], ids=["tcp", "unix"])
def tunnel(request: pytest.FixtureRequest, loop: Loop, pool: PipePool) -> Iterator[Tunnel]:
    opened = Tunnel(loop, pool, unix=request.param)
    opened.start()
    yield opened
    opened.close()


def test_bytes_go_both_ways(tunnel: Tunnel) -> None:
    tunnel.client.send(b"question")
    assert tunnel.receive(tunnel.server, 8) == b"question"
    tunnel.server.send(b"the answer")
    assert tunnel.receive(tunnel.client, 10) == b"the answer"
    assert (tunnel.relay.sent_bytes, tunnel.relay.received_bytes) == (8, 10)


def test_first_bytes_go_before_what_comes(loop: Loop, pool: PipePool) -> None:
    tunnel = Tunnel(loop, pool)
    tunnel.client.send(b" later")
    tunnel.server.send(b" later")
    tunnel.start(to_client=b"greeting", to_upstream=b"hello")
    assert tunnel.receive(tunnel.server, 11) == b"hello later"
    assert tunnel.receive(tunnel.client, 14) == b"greeting later"
    tunnel.close()


def test_single_bytes_arrive_in_order(tunnel: Tunnel) -> None:
    for value in range(256):
        tunnel.client.send(bytes([value]))
        tunnel.loop.turn(0.01)
    assert tunnel.receive(tunnel.server, 256) == bytes(range(256))


def test_a_half_close_goes_on_and_the_other_way_stays_open(tunnel: Tunnel) -> None:
    tunnel.client.send(b"all I have")
    tunnel.client.shutdown(socket.SHUT_WR)
    assert tunnel.receive(tunnel.server, 10) == b"all I have"
    turn_until(tunnel.loop, lambda: ended(tunnel.server))
    tunnel.server.send(b"late answer")
    assert tunnel.receive(tunnel.client, 11) == b"late answer"
    assert tunnel.ends == []
    tunnel.server.close()
    turn_until(tunnel.loop, lambda: tunnel.ends)
    assert tunnel.ends == [""]
    assert tunnel.client.recv(1) == b""


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_the_servers_half_close_goes_on_too(tunnel: Tunnel) -> None:
    tunnel.server.shutdown(socket.SHUT_WR)
    turn_until(tunnel.loop, lambda: ended(tunnel.client))
    tunnel.client.send(b"still talking")
    assert tunnel.receive(tunnel.server, 13) == b"still talking"
    assert tunnel.ends == []


def test_a_waiting_half_closed_tunnel_does_not_turn_the_loop(tunnel: Tunnel) -> None:
    """An end of file and a hang-up stay readable for ever: they must not be asked for again."""
    tunnel.client.shutdown(socket.SHUT_WR)
    turn_until(tunnel.loop, lambda: ended(tunnel.server))
    assert idle(tunnel.loop)


def idle(loop: Loop) -> bool:
    """Whether nothing is ready."""
    loop.turn(0)
    return loop.turn(0) == 0


def test_a_reset_goes_on_as_a_reset(loop: Loop, pool: PipePool) -> None:
    for who, name in (("client", "client reset"), ("server", "upstream reset")):
        tunnel = Tunnel(loop, pool)
        tunnel.start()
        dying, other = (tunnel.client, tunnel.server) if who == "client" else (tunnel.server, tunnel.client)
        reset(dying)
        dying.close()
        turn_until(loop, lambda tunnel=tunnel: tunnel.ends)  # type: ignore[misc]
        assert tunnel.ends == [name]
        with pytest.raises(ConnectionResetError):
            other.recv(1)
        tunnel.close()


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_under_a_stall_ends_it(loop: Loop, pool: PipePool, who: str) -> None:
    """The source is not read then: its error still comes."""
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    stall(tunnel)
    dying = tunnel.client if who == "client" else tunnel.server
    reset(dying)
    dying.close()
    turn_until(loop, lambda: tunnel.ends)
    assert tunnel.share.big == 0
    tunnel.close()


def stall(tunnel: Tunnel) -> int:
    """The client sends until nothing moves any more; how many bytes that took."""
    sent = 0
    for _ in range(20):
        sent += fill(tunnel.client)
        tunnel.loop.turn(0.001)
    return sent


def test_a_stalled_reader_holds_no_pipe_and_loses_nothing(loop: Loop, pool: PipePool) -> None:
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    sent = stall(tunnel)
    assert sent > UNSENT_BYTES
    assert pool.open_count == 1
    assert pool.held_big == 0
    assert idle(loop)
    assert len(tunnel.receive(tunnel.server, sent)) == sent
    tunnel.client.send(b"and on")
    assert tunnel.receive(tunnel.server, 6) == b"and on"
    tunnel.close()


def test_a_hang_up_under_a_stall_is_told_once(loop: Loop, pool: PipePool) -> None:
    """Both sides of the client's connection are shut while its bytes still wait for the server."""
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    sent = stall(tunnel)
    tunnel.server.shutdown(socket.SHUT_WR)
    tunnel.client.shutdown(socket.SHUT_WR)
    turn_until(loop, lambda: ended(tunnel.client))
    loop.turn(0.01)
    assert idle(loop)
    assert len(tunnel.receive(tunnel.server, sent)) == sent
    turn_until(loop, lambda: tunnel.ends)
    assert tunnel.ends == [""]
    tunnel.close()


def test_small_buffers_and_large_amounts_keep_every_byte(loop: Loop, pool: PipePool) -> None:
    tunnel = Tunnel(loop, pool, buffer_bytes=4096)
    tunnel.start()
    data = os.urandom(300_000)
    offset = 0
    got = bytearray()

    def carried() -> bool:
        nonlocal offset
        with contextlib.suppress(BlockingIOError):
            offset += tunnel.client.send(data[offset : offset + 7777])
        got.extend(read_all(tunnel.server))
        return len(got) == len(data)

    turn_until(loop, carried, turns=20_000)
    assert bytes(got) == data
    tunnel.close()


def test_a_client_that_is_gone_while_the_server_sends_ends_both(loop: Loop, pool: PipePool) -> None:
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    tunnel.client.close()

    def server_hears() -> bool:
        try:
            tunnel.server.send(b"x" * 1000)
        except OSError:
            return True
        return False

    turn_until(loop, server_hears)
    turn_until(loop, lambda: tunnel.ends)
    tunnel.close()


def test_a_refusal_of_the_rest_still_reaches_the_client(loop: Loop, pool: PipePool) -> None:
    """A server that answers at once and closes with unread bytes: a reset comes behind its answer."""
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    tunnel.client.send(b"a long upload")
    turn_until(loop, lambda: tunnel.relay.sent_bytes == 13)
    tunnel.server.send(b"too large")
    tunnel.server.close()
    turn_until(loop, lambda: tunnel.ends)
    assert tunnel.client.recv(64) == b"too large"
    tunnel.close()


def test_a_fast_tunnel_leaves_the_turn_to_others(loop: Loop, pool: PipePool) -> None:
    tunnel = Tunnel(loop, pool)
    stall_free = fill(tunnel.client)
    assert stall_free > TURN_BYTES
    before = tunnel.relay.sent_bytes
    tunnel.start()
    assert tunnel.relay.sent_bytes - before <= TURN_BYTES
    turn_until(loop, lambda: read_all(tunnel.server) is not None and tunnel.relay.sent_bytes == stall_free)
    tunnel.close()


def test_without_splice_bytes_are_copied(loop: Loop, pool: PipePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: int, destination: int, count: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(splice, "splice", refuse)
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    sent = stall(tunnel)
    got = tunnel.receive(tunnel.server, sent)
    assert len(got) == sent
    tunnel.client.shutdown(socket.SHUT_WR)
    turn_until(loop, lambda: ended(tunnel.server))
    tunnel.close()


def test_a_destination_that_takes_no_splice_gets_what_the_pipe_holds(
    loop: Loop, pool: PipePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = splice.splice

    def refuse_out(source: int, destination: int, count: int) -> int:
        if source in (pipe_read,):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(source, destination, count)

    probe = pool.borrow(Share())
    pipe_read = probe.read
    pool.give_back(probe)
    monkeypatch.setattr(splice, "splice", refuse_out)
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    tunnel.client.send(b"taken out again")
    assert tunnel.receive(tunnel.server, 15) == b"taken out again"
    tunnel.client.send(b", and copied")
    assert tunnel.receive(tunnel.server, 12) == b", and copied"
    tunnel.close()


def test_without_a_descriptor_for_a_pipe_bytes_are_copied(loop: Loop) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    tunnel = Tunnel(loop, PipePool())
    tunnel.relay._pool.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        tunnel.start()
        tunnel.client.send(b"all the same")
        turn_until(loop, lambda: tunnel.relay.sent_bytes == 12)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert tunnel.server.recv(64) == b"all the same"
    tunnel.close()


def test_an_end_closes_all_and_is_told_once(loop: Loop, pool: PipePool) -> None:
    before = open_fds()
    tunnel = Tunnel(loop, pool)
    tunnel.start()
    stall(tunnel)
    tunnel.relay.end("idle")
    tunnel.relay.end("again")
    assert tunnel.ends == ["idle"]
    tunnel.close()
    assert open_fds() == before


def test_two_hundred_stalled_readers_leave_a_new_tunnel_its_pipe(loop: Loop, pool: PipePool) -> None:
    before = open_fds()
    tunnels = [Tunnel(loop, pool) for _ in range(200)]
    for tunnel in tunnels:
        tunnel.start()
        fill(tunnel.client)
    for _ in range(50):
        loop.turn(0)
    assert pool.held_big == 0
    assert idle(loop)
    new = Tunnel(loop, pool)
    new.start()
    new.client.send(b"quick")
    assert new.receive(new.server, 5) == b"quick"
    for tunnel in (*tunnels, new):
        tunnel.close()
    assert open_fds() == before


def test_many_busy_tunnels_of_a_session_get_no_more_than_one_of_another(loop: Loop, pool: PipePool) -> None:
    share = Share()
    crowd, alone = [Tunnel(loop, pool, share=share) for _ in range(8)], Tunnel(loop, pool)
    tunnels = [*crowd, alone]
    for tunnel in tunnels:
        tunnel.start()

    def flow(turns: int) -> tuple[list[int], int]:
        before = [tunnel.relay.sent_bytes for tunnel in tunnels]
        for _ in range(turns):
            for tunnel in tunnels:
                fill(tunnel.client)
                read_all(tunnel.server)
            loop.turn(0.01)
        moved = [tunnel.relay.sent_bytes - was for tunnel, was in zip(tunnels, before, strict=True)]
        return moved[:-1], moved[-1]

    flow(20)
    of_crowd, of_alone = flow(60)
    assert sum(of_crowd) < 1.5 * of_alone
    assert max(of_crowd) < 2 * min(of_crowd)
    for tunnel in tunnels:
        tunnel.close()
