"""coworkd-egress in the guest and the host's egress, one against the other: what the first asks for, the second must understand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from coworkd.services.network_reach import reach
from host_stub.egress import HostEgress
from host_stub.egress_rules import EgressOptions
from tests.unit.egressd.egress_house import Client, House, open_house, session_egress
from tests.unit.egressd.sockets import open_fds

HOST_SOCKET = "host.sock"
NAMES = {"index.example": ["127.0.0.1"], "inside.example": ["10.1.2.3"]}


@contextlib.contextmanager
def running(path: Path, **options: Any) -> Iterator[int]:
    """The host's egress in a thread of its own, beside a server whose port is given."""
    ready, port = threading.Event(), 0
    scope: trio.CancelScope | None = None
    token: trio.lowlevel.TrioToken | None = None

    async def echo(stream: trio.SocketStream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data)
        await stream.send_eof()

    async def main() -> None:
        nonlocal port, scope, token
        async with trio.open_nursery() as nursery:
            scope, token = nursery.cancel_scope, trio.lowlevel.current_trio_token()
            egress = HostEgress(path, EgressOptions(**options), lookup=look_up)
            await nursery.start(egress.run)
            listeners = await nursery.start(_listen, echo)
            port = listeners[0].socket.getsockname()[1]
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(60)
    try:
        yield port
    finally:
        assert token is not None
        assert scope is not None
        token.run_sync_soon(scope.cancel)
        thread.join(60)
        assert not thread.is_alive()


async def _listen(serve: Any, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
    await trio.serve_tcp(serve, 0, host="127.0.0.1", task_status=task_status)


def look_up(host: str) -> list[str]:
    if host not in NAMES:
        raise OSError(-2, "Name or service not known")
    return NAMES[host]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    tmp_path.chmod(0o700)
    before = open_fds()
    with open_house(str(tmp_path), monkeypatch) as opened:
        opened.begin(host_uri=f"unix://{tmp_path}/{HOST_SOCKET}")
        yield opened
    assert open_fds() == before


def ask(house: House, host: str, port: int) -> Client:
    client = house.client(house.serve(session_egress("*.example", upstream="host")))
    client.say(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    return client


def test_a_tunnel_goes_all_the_way_and_ends_half_by_half(house: House, tmp_path: Path) -> None:
    with running(tmp_path / HOST_SOCKET, allow_addresses=("127.0.0.1",)) as port:
        client = ask(house, "index.example", port)
        assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        client.say(b"hello")
        assert client.hear(count=5) == b"hello"
        client.socket.shutdown(1)
        assert client.hear() == b""
        house.until(lambda: house.kinds() == ["open", "close"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("index.example", b"403"),  # it leads to the host itself
        ("inside.example", b"403"),
        ("nowhere.example", b"502"),
    ],
)
def test_what_the_host_says_is_what_the_session_is_told(house: House, tmp_path: Path, host: str, status: bytes) -> None:
    with running(tmp_path / HOST_SOCKET) as port:
        assert ask(house, host, port).hear().startswith(b"HTTP/1.1 %b " % status)


def test_a_server_that_does_not_listen_is_a_bad_gateway(house: House, tmp_path: Path) -> None:
    with running(tmp_path / HOST_SOCKET, allow_addresses=("127.0.0.1",)):
        assert ask(house, "index.example", 1).hear().startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(("host", "reached"), [("index.example", True), ("inside.example", False)])
def test_coworkd_finds_out_whether_the_host_has_a_way(tmp_path: Path, host: str, reached: bool) -> None:
    tmp_path.chmod(0o700)
    uri = f"unix://{tmp_path / HOST_SOCKET}"

    async def main(port: int) -> str | None:
        return await reach(f"{host}:{port}", upstream="host", host_uri=uri)

    with running(tmp_path / HOST_SOCKET, allow_addresses=("127.0.0.1",)) as port:
        assert (trio.run(main, port) is None) is reached
