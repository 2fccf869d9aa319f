from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coworkd.egressd import race
from coworkd.egressd.tcp import reset
from coworkd.model.egress import EgressLimits, EgressSettings, MitmProxy, ParentProxy, SessionEgress, TrustRoots
from tests.unit.egressd.egress_house import Client, House, Server, open_house, session_egress
from tests.unit.egressd.inspected_room import Peer, serving
from tests.unit.egressd.sockets import open_fds
from tests.unit.egressd.test_tls_leg import PROXY, ROOT

HOST_SOCKET = "host.sock"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    before = open_fds()
    with open_house(str(tmp_path), monkeypatch) as opened:
        opened.begin(host_uri=f"unix://{tmp_path}/{HOST_SOCKET}")
        yield opened
    assert open_fds() == before


@pytest.fixture
def host(house: House, tmp_path: Path) -> Server:
    """Who listens where the host would."""
    return house.unix_server(str(tmp_path / HOST_SOCKET))


def ask(house: House, egress: SessionEgress, target: str) -> Client:
    client = house.client(house.serve(egress))
    client.say(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    return client


# -- the host -----------------------------------------------------------------------------------------------------


def test_the_host_is_asked_with_the_sessions_name(house: House, host: Server) -> None:
    client = ask(house, session_egress("index.example", upstream="host"), "index.example:443")
    far = host.accept()
    assert far.hear(until=b"\r\n\r\n") == (
        b"CONNECT index.example:443 HTTP/1.1\r\nHost: index.example:443\r\nCowork-Session: s\r\n\r\n"
    )
    house.turn(3)
    assert client.got == b""
    far.say(b"HTTP/1.1 200 OK\r\n\r\nserver speaks first")
    assert client.hear(until=b"first").endswith(b"\r\n\r\nserver speaks first")
    client.say(b"hello")
    assert far.hear(count=5) == b"hello"
    assert house.events[0].upstream == "host"


def test_a_plain_request_goes_through_a_tunnel_of_the_hosts(house: House, host: Server) -> None:
    client = house.client(house.serve(session_egress("index.example", upstream="host")))
    client.say(b"GET http://index.example/a HTTP/1.1\r\nHost: index.example\r\n\r\n")
    far = host.accept()
    assert far.hear(until=b"\r\n\r\n").startswith(b"CONNECT index.example:80 HTTP/1.1\r\n")
    far.say(b"HTTP/1.1 200 OK\r\n\r\n")
    assert far.hear(until=b"\r\n\r\n").startswith(b"GET /a HTTP/1.1\r\n")
    far.say(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize(
    ("mark", "told"),
    [("blocked-by-allowlist", b"blocked-by-allowlist"), ("blocked-by-sandbox-runtime", b"blocked-by-sandbox-runtime")],
)
def test_a_refusal_of_the_hosts_is_a_refusal(house: House, host: Server, mark: str, told: bytes) -> None:
    client = ask(house, session_egress("index.example", upstream="host"), "index.example:443")
    host.accept().say(f"HTTP/1.1 403 Forbidden\r\nX-Proxy-Error: {mark}\r\n\r\n".encode())
    answer = client.hear()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert told in answer
    house.until(lambda: house.kinds() == ["open", "refused", "close"])


def test_a_host_that_cannot_is_a_bad_gateway(house: House, host: Server) -> None:
    client = ask(house, session_egress("index.example", upstream="host"), "index.example:443")
    host.accept().say(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
    assert client.hear().startswith(b"HTTP/1.1 502 ")


def test_a_host_that_is_away_is_a_bad_gateway(house: House) -> None:
    client = ask(house, session_egress("index.example", upstream="host"), "index.example:443")
    assert client.hear().startswith(b"HTTP/1.1 502 ")


def test_a_host_that_hangs_up_is_a_bad_gateway(house: House, host: Server) -> None:
    client = ask(house, session_egress("index.example", upstream="host"), "index.example:443")
    host.accept().socket.close()
    assert client.hear().startswith(b"HTTP/1.1 502 ")


def test_a_host_that_is_silent_is_a_timeout(house: House, host: Server) -> None:
    client = ask(house, session_egress("index.example", upstream="host"), "index.example:443")
    far = host.accept()
    house.pass_time(15.1)
    assert client.hear().startswith(b"HTTP/1.1 504 ")
    assert far.hear(until=b"\r\n\r\n") != b""
    assert far.hear() == b""


def test_literal_addresses_are_judged_here_too(house: House, host: Server) -> None:
    client = ask(house, session_egress("169.254.169.254", upstream="host"), "169.254.169.254:80")
    answer = client.hear()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"blocked-by-sandbox-runtime" in answer
    assert not host.is_asked


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "a.localhost"])
def test_the_loopback_of_who_resolves_is_not_reached_by_its_name(house: House, host: Server, name: str) -> None:
    client = ask(house, session_egress("localhost", "*.localhost", "a.localhost", upstream="host"), f"{name}:22")
    answer = client.hear()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"blocked-by-sandbox-runtime" in answer
    assert not host.is_asked


def test_a_host_that_is_not_configured_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_house(str(tmp_path), monkeypatch) as house:
        house.begin(host_uri="")
        client = ask(house, session_egress("index.example", upstream="host"), "index.example:443")
        assert client.hear().startswith(b"HTTP/1.1 503 ")


# -- parents ------------------------------------------------------------------------------------------------------


def test_a_parent_proxy_is_asked_with_its_credentials(house: House) -> None:
    parent = house.server()
    egress = session_egress("index.example", upstream=f"http://me:pass%20word@127.0.0.2:{parent.port}")
    client = ask(house, egress, "index.example:443")
    far = parent.accept()
    assert b"Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n" in far.hear(until=b"\r\n\r\n")
    far.say(b"HTTP/1.1 200 OK\r\n\r\n")
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert house.events[0].upstream == f"http://127.0.0.2:{parent.port}"


def test_a_parent_on_loopback_is_the_admins_business(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as parent:
        port = parent.getsockname()[1]
        client = ask(house, session_egress("index.example", upstream=f"http://127.0.0.1:{port}"), "index.example:443")
        house.until(lambda: house.events)
        parent.settimeout(60)
        far, _ = parent.accept()
        with far:
            house.turn(3)
            assert far.recv(1000).startswith(b"CONNECT index.example:443 ")
            far.send(b"HTTP/1.1 200 OK\r\n\r\n")
            assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_plain_request_is_given_to_a_parent_whole(house: House) -> None:
    parent = house.server()
    egress = SessionEgress(
        settings=(
            EgressSettings(
                source="t",
                allowed=("index.example", "server.example"),
                parent=ParentProxy(http=f"http://me:word@127.0.0.2:{parent.port}", no_proxy="server.example"),
            ),
        )
    )
    client = house.client(house.serve(egress))
    client.say(b"GET http://index.example/a HTTP/1.1\r\nHost: index.example\r\n\r\n")
    request = parent.accept().hear(until=b"\r\n\r\n")
    assert request.startswith(b"GET http://index.example/a HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic" in request


def test_what_no_proxy_names_goes_directly(house: House) -> None:
    parent, server = house.server(), house.server()
    egress = SessionEgress(
        settings=(
            EgressSettings(
                source="t",
                allowed=("server.example",),
                parent=ParentProxy(http=f"http://127.0.0.2:{parent.port}", no_proxy="server.example"),
            ),
        )
    )
    client = ask(house, egress, f"server.example:{server.port}")
    server.accept()
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert not parent.is_asked


def test_a_socks_parent_resolves(house: House) -> None:
    parent = house.server()
    client = ask(
        house, session_egress("index.example", upstream=f"socks5h://127.0.0.2:{parent.port}"), "index.example:443"
    )
    far = parent.accept()
    assert far.hear(count=3) == b"\x05\x01\x00"
    far.say(b"\x05\x00")
    assert far.hear(count=20) == b"\x05\x01\x00\x03\x0dindex.example\x01\xbb"
    far.say(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_parent_in_tls_is_asked_in_tls(house: House) -> None:
    parent = house.server()
    house.ask(TrustRoots(id=0, pem=ROOT.pem))
    house.names.known["proxy.example"] = ["127.0.0.2"]
    client = ask(
        house,
        session_egress("index.example", upstream=f"https://me:word@proxy.example:{parent.port}"),
        "index.example:443",
    )
    wire = parent.accept().socket
    proxy = Peer(serving(PROXY), server_side=True)

    def heard(what: bytes) -> Callable[[], bool]:
        def so() -> bool:
            with contextlib.suppress(BlockingIOError):
                proxy.receive(wire.recv(65536))
            wire.send(proxy.outgoing.read())
            return what in proxy.heard

        return so

    house.until(heard(b"\r\n\r\n"))
    assert proxy.heard.startswith(b"CONNECT index.example:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic" in proxy.heard
    proxy.say(b"HTTP/1.1 200 OK\r\n\r\n")
    house.until(heard(b""))
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    client.say(b"hello")
    house.until(heard(b"hello"))
    assert house.events[0].upstream == f"https://proxy.example:{parent.port}"
    client.socket.close()
    wire.close()
    house.until(lambda: house.kinds() == ["open", "close"])
    house.turn(5)


def test_a_parent_in_tls_that_is_not_trusted_is_a_bad_gateway(house: House) -> None:
    parent = house.server()
    house.names.known["proxy.example"] = ["127.0.0.2"]
    client = ask(
        house, session_egress("index.example", upstream=f"https://proxy.example:{parent.port}"), "index.example:443"
    )
    wire = parent.accept().socket
    proxy = Peer(serving(PROXY), server_side=True)

    def refused() -> bool:
        with contextlib.suppress(OSError):
            proxy.receive(wire.recv(65536))
            wire.send(proxy.outgoing.read())
        return bool(proxy.error or proxy.ended)

    house.until(refused)
    answer = client.hear()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"certificate is not trusted" in answer
    house.pass_time(6)


def test_a_parent_whose_name_is_not_known_is_a_bad_gateway(house: House) -> None:
    client = ask(house, session_egress("index.example", upstream="http://proxy.example:3128"), "index.example:443")
    answer = client.hear()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"proxy.example" in answer


def test_domains_of_the_mitm_proxy_go_to_its_socket(house: House, tmp_path: Path) -> None:
    path = str(tmp_path / "mitm.sock")
    mitm, server = house.unix_server(path), house.server()
    settings = EgressSettings(
        source="t",
        allowed=("index.example", "server.example"),
        mitm=MitmProxy(socket_path=path, domains=("index.example",)),
    )
    egress = SessionEgress(settings=(settings,), limits=EgressLimits())
    client = ask(house, egress, "index.example:443")
    far = mitm.accept()
    assert far.hear(until=b"\r\n\r\n").startswith(b"CONNECT index.example:443 ")
    far.say(b"HTTP/1.1 200 OK\r\n\r\n")
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    plain = house.client(house.serve(egress))
    plain.say(b"GET http://index.example/ HTTP/1.1\r\nHost: index.example\r\n\r\n")
    assert mitm.accept().hear(until=b"\r\n\r\n").startswith(b"GET http://index.example/ HTTP/1.1\r\n")
    other = ask(house, egress, f"server.example:{server.port}")
    server.accept()
    assert other.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


# -- directly -----------------------------------------------------------------------------------------------------


def test_what_connects_to_itself_is_ours_whatever_was_said_before(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer is looked at once more: an address that became ours after it was judged."""
    house.names.known["server.example"] = ["127.0.0.1"]
    monkeypatch.setattr("coworkd.netpolicy.guard.Guard.judge", lambda *_, **__: None)
    with socket.create_server(("127.0.0.1", 0)) as own:
        client = ask(house, session_egress("server.example"), f"server.example:{own.getsockname()[1]}")
        answer = client.hear()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"own addresses" in answer


def test_a_server_that_resets_in_the_moment_it_is_reached_is_a_bad_gateway(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the kernel's word that it is connected and the look at its peer; nobody but that client is to notice."""
    server = house.server()
    real = race.connect

    def connect(connection: socket.socket, endpoint: race.Endpoint) -> int:
        number = real(connection, endpoint)
        far = server.accept_now()
        reset(far)
        far.close()
        return number

    monkeypatch.setattr(race, "connect", connect)
    client = ask(house, session_egress("server.example"), f"server.example:{server.port}")
    assert client.hear().startswith(b"HTTP/1.1 502 ")
    house.until(lambda: house.kinds() == ["open", "close"])


def test_the_address_is_asked_for_once(house: House) -> None:
    server = house.server()
    asked: list[str] = []
    real = house.names.known

    class Counting(dict[str, list[str]]):
        def __getitem__(self, host: str) -> list[str]:
            asked.append(host)
            return real[host]

        def __contains__(self, host: object) -> bool:
            return host in real

    house.names.known = Counting()
    client = ask(house, session_egress("server.example"), f"SERVER.example.:{server.port}")
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert asked == ["server.example"]


def test_a_name_of_two_addresses_falls_back_to_the_second(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    server = house.server()
    house.names.known["server.example"] = ["127.0.0.3", "127.0.0.2"]
    monkeypatch.setattr("coworkd.netpolicy.guard.Guard.judge", lambda *_, **__: None)
    client = ask(house, session_egress("server.example"), f"server.example:{server.port}")
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
