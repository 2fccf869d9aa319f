from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from coworkd.model.errors import LimitExceeded, Unavailable
from coworkd.rpc import server as server_module
from coworkd.rpc.listen import RefusedPeer
from coworkd.rpc.methods import MethodTable
from coworkd.rpc.serial import PortLinks
from coworkd.rpc.server import BACK_OFF_MAX_S, FRESH, GREETED, RETRY_S, Server
from coworkd.rpc.transport import Transport
from coworkd.wire.endpoint import UnixEndpoint, VirtioEndpoint, VsockEndpoint, VsockPort
from tests.unit.rpc.fakes import HELLO, FakeAudit, FakeHost, FakeTransport, bench, run

HOST = VsockEndpoint(cid=2, port=5007)


class FakeAcceptor:
    """Gives what it is told to give: transports, or errors to raise; then waits."""

    kind = "fake"
    endpoint = "fake:///"

    def __init__(self, *given: FakeTransport | Exception) -> None:
        self._given = list(given)
        self.closed = False

    async def accept(self) -> tuple[Transport, str]:
        await trio.lowlevel.checkpoint()
        if not self._given:
            await trio.sleep_forever()
        given = self._given.pop(0)
        if isinstance(given, Exception):
            raise given
        return given, "peer"

    def fileno(self) -> int:
        return 99

    def close(self) -> None:
        self.closed = True


def test_an_accept_that_fails_is_tried_again() -> None:
    async def main() -> None:
        async with bench() as bed:
            transport = FakeTransport()
            acceptor = FakeAcceptor(OSError(24, "Too many open files"), OSError(24, "again"), transport)
            bed.nursery.start_soon(bed.server.serve_accepted, acceptor)
            await FakeHost(transport).greet()
            assert trio.current_time() == pytest.approx(2 * RETRY_S)

    run(main)


def test_refused_peers_are_audited_and_the_next_is_served() -> None:
    async def main() -> None:
        async with bench() as bed:
            transport = FakeTransport()
            acceptor = FakeAcceptor(RefusedPeer("cid 3 port 9", "only the host"), transport)
            bed.nursery.start_soon(bed.server.serve_accepted, acceptor)
            await FakeHost(transport).greet()
            assert bed.audit.records[0] == (
                "link.refused",
                {"peer": "cid 3 port 9", "endpoint": "fake:///", "reason": "only the host"},
            )

    run(main)


def test_links_are_audited_from_hello_to_end() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            assert (bed.server.links, bed.audit.records) == (
                1,
                [("link.open", {"link": "fake:1", "client": "test", "protocol": 1})],
            )
            host.transport.feed_eof()
            await trio.testing.wait_all_tasks_blocked()
            assert bed.server.links == 0
            assert bed.audit.records[1:] == [("link.close", {"link": "fake:1", "reason": "closed by the host"})]

    run(main)


def test_a_link_that_said_no_hello_is_not_audited() -> None:
    async def main() -> None:
        async with bench() as bed:
            bed.connect().transport.feed_eof()
            await trio.testing.wait_all_tasks_blocked()
            assert bed.audit.records == []

    run(main)


def test_an_audit_log_that_fails_keeps_nobody_out() -> None:
    async def main() -> None:
        async with bench() as bed:
            bed.audit.broken = True
            await (await bed.greeted()).call("ping")

    run(main)


def test_too_many_greeted_links_are_refused_at_hello() -> None:
    async def main() -> None:
        async with bench() as bed:
            hosts = [await bed.greeted() for _ in range(GREETED)]
            late = bed.connect()
            with pytest.raises(LimitExceeded, match="256 hosts"):
                await late.call("hello", **HELLO)
            assert await late.next_event() is None
            hosts[0].transport.feed_eof()
            await trio.testing.wait_all_tasks_blocked()
            await bed.greeted()

    run(main)


def test_one_silent_link_too_many_closes_the_oldest() -> None:
    async def main() -> None:
        async with bench() as bed:
            greeted = await bed.greeted()
            silent = [bed.connect() for _ in range(FRESH + 1)]
            await trio.testing.wait_all_tasks_blocked()
            assert [host.transport.closed for host in silent] == [True] + [False] * FRESH
            await greeted.call("ping")

    run(main)


def dialler(*outcomes: FakeTransport | None) -> tuple[Callable[[VsockEndpoint], Awaitable[Transport]], list[float]]:
    """A dial whose outcomes are given, refusals as None; then it refuses for ever. And when it was called."""
    left, when = list(outcomes), []

    async def dial(endpoint: VsockEndpoint) -> Transport:
        assert endpoint == HOST
        when.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        given = left.pop(0) if left else None
        if given is None:
            raise ConnectionResetError("nobody listens")
        return given

    return dial, when


def test_a_host_is_dialled_for_ever_with_a_capped_back_off() -> None:
    async def main() -> None:
        async with bench() as bed:
            dial, when = dialler()
            bed.nursery.start_soon(bed.server.serve_dialled, HOST, dial)
            await trio.sleep(100)
            gaps = [round(when[turn + 1] - when[turn], 3) for turn in range(len(when) - 1)]
            assert gaps[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
            assert set(gaps[6:]) == {BACK_OFF_MAX_S}

    run(main)


def test_a_dial_that_hangs_is_given_up() -> None:
    async def main() -> None:
        async def dial(endpoint: VsockEndpoint) -> Transport:
            when.append(trio.current_time())
            await trio.sleep_forever()
            raise AssertionError("reached")

        when: list[float] = []
        async with bench() as bed:
            bed.nursery.start_soon(bed.server.serve_dialled, HOST, dial)
            await trio.sleep(12)
            assert when == pytest.approx([0, 5.1, 10.3])

    run(main)


def test_a_dialled_host_that_said_hello_is_dialled_again_soon() -> None:
    async def main() -> None:
        async with bench() as bed:
            first, second = FakeTransport(), FakeTransport()
            dial, when = dialler(None, None, None, None, first, second)
            bed.nursery.start_soon(bed.server.serve_dialled, HOST, dial)
            await FakeHost(first).greet()
            first.feed_eof()
            await FakeHost(second).greet()
            assert when[-1] - when[-2] == pytest.approx(0.1)

    run(main)


def test_shutdown_tells_links_stops_accepting_and_ends() -> None:
    async def main() -> None:
        async with bench() as bed:
            acceptor = FakeAcceptor()
            bed.nursery.start_soon(bed.server.serve_accepted, acceptor)
            host = await bed.greeted()
            await bed.server.shut_down(5)
            last = await host.closing()
            assert (last.params["code"], bed.server.links, acceptor.closed) == ("UNAVAILABLE", 0, True)
            assert trio.current_time() < 5
            late = FakeAcceptor(FakeTransport())
            await bed.server.serve_accepted(late)
            assert late.closed

    run(main)


def test_shutdown_does_not_wait_for_a_peer_that_does_not_read() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            host.transport.stall()
            await bed.server.shut_down(0.5)
            await trio.testing.wait_all_tasks_blocked()
            assert host.transport.closed
            assert trio.current_time() == pytest.approx(0.5)

    run(main)


def test_a_port_that_cannot_be_opened_is_tried_again() -> None:
    async def main() -> None:
        tried: list[float] = []

        def refuse(path: str) -> int:
            tried.append(trio.current_time())
            raise FileNotFoundError(2, "No such file")

        async with bench() as bed:
            bed.nursery.start_soon(bed.server.serve_port, PortLinks(VirtioEndpoint(path="/dev/none"), refuse))
            await trio.sleep(11)
            assert tried == [0, 5, 10]

    run(main)


def test_serve_chooses_by_the_kind_of_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        served: list[object] = []

        async def note(*given: object) -> None:
            served.append(given[0])

        server = Server(MethodTable([]), FakeAudit())
        monkeypatch.setattr(server, "serve_dialled", note)
        monkeypatch.setattr(server, "serve_accepted", note)
        monkeypatch.setattr(server_module, "_listen", lambda endpoint, descriptor: FakeAcceptor())
        async with trio.open_nursery() as nursery:
            for endpoint in (HOST, VsockPort(port=1), UnixEndpoint(path="/x")):
                await nursery.start(server.serve, endpoint)
        assert served[0] == HOST
        assert all(isinstance(each, FakeAcceptor) for each in served[1:])
        assert len(served) == 3

    run(main)


def test_what_cannot_be_listened_on_is_told_before_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        def refuse(endpoint: object, descriptor: object) -> FakeAcceptor:
            raise Unavailable("cannot listen")

        monkeypatch.setattr(server_module, "_listen", refuse)
        with pytest.raises(Unavailable):
            await Server(MethodTable([]), FakeAudit()).serve(UnixEndpoint(path="/x"))

    run(main)


def test_a_server_that_does_not_run_has_nowhere_to_put_calls() -> None:
    with pytest.raises(RuntimeError, match="does not run"):
        _ = Server(MethodTable([]), FakeAudit()).calls
