from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.egressd.tcp import reset
from coworkd.model.egress import EgressLimits, Serve
from tests.unit.egressd.egress_house import House, open_house, session_egress
from tests.unit.egressd.sockets import open_fds

ALLOWED = session_egress("server.example", "loop.example", "silent.example", "nothing.example")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    before = open_fds()
    with open_house(str(tmp_path), monkeypatch) as opened:
        opened.begin()
        yield opened
    assert open_fds() == before


def test_a_tunnel_is_opened_carried_and_recorded(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    assert client.connect(f"server.example:{server.port}").startswith(b"HTTP/1.1 200 ")
    far = server.accept()
    client.say(b"question")
    assert far.hear(count=8) == b"question"
    far.say(b"the answer")
    far.socket.close()
    assert client.hear() == b"the answer"
    client.socket.close()
    house.until(lambda: house.kinds() == ["open", "close"])
    opened, closed = house.events
    assert (opened.host, opened.port, opened.protocol) == ("server.example", server.port, "connect")
    assert (opened.upstream, opened.session) == ("direct", "s")
    assert opened.rule is not None
    assert "server.example" in opened.rule
    assert (closed.connection, closed.sent_bytes, closed.received_bytes) == (opened.connection, 8, 10)
    assert (closed.address, closed.reason) == ("127.0.0.2", "")


def test_bytes_behind_the_request_go_first(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    client.say(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\nhello".encode())
    assert server.accept().hear(count=5) == b"hello"


def test_a_request_in_single_bytes_is_one_request(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    target = f"server.example:{server.port}"
    for byte in f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode():
        client.say(bytes([byte]))
        house.turn()
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_socks_is_spoken_on_the_same_port(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    client.say(b"\x05\x01\x00")
    assert client.hear(count=2) == b"\x05\x00"
    client.say(b"\x05\x01\x00\x03\x0eserver.example" + server.port.to_bytes(2, "big"))
    assert client.hear(count=10)[:2] == b"\x05\x00"
    server.accept().say(b"hello")
    assert client.hear(count=5) == b"hello"
    assert house.events[0].protocol == "socks5"


def test_nothing_flows_before_it_is_recorded(house: House) -> None:
    server = house.server()
    proxy = house.serve(ALLOWED)
    house.records = False
    client = house.client(proxy)
    client.say(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\nsecret".encode())
    far = server.accept()  # the way is dialled in the meantime
    house.turn(20)
    assert client.got == b""
    with pytest.raises(BlockingIOError):
        far.socket.recv(1)
    with pytest.raises(BlockingIOError):
        client.socket.recv(1)
    house.acknowledge()
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert far.hear(count=6) == b"secret"


def test_what_is_not_allowed_is_refused_and_told(house: House) -> None:
    client = house.client(house.serve(ALLOWED))
    answer = client.connect("elsewhere.example:443") + client.hear()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"X-Proxy-Error: blocked-by-allowlist" in answer
    assert b"Connection blocked by network allowlist" in answer
    house.until(lambda: house.kinds() == ["refused"])
    assert (house.events[0].host, house.events[0].port) == ("elsewhere.example", 443)
    assert "allow list" in house.events[0].reason


def test_an_address_that_may_not_be_is_refused_after_resolution(house: House) -> None:
    client = house.client(house.serve(ALLOWED))
    answer = client.connect("loop.example:443") + client.hear()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"X-Proxy-Error: blocked-by-sandbox-runtime" in answer
    house.until(lambda: house.kinds() == ["open", "refused", "close"])
    assert len({event.connection for event in house.events}) == 1
    assert "loopback" in house.events[1].reason


def test_a_name_with_one_bad_address_is_refused_whole(house: House) -> None:
    """First good, then bad: who answers like this wants the second look-up."""
    house.names.known["server.example"] = ["127.0.0.2", "169.254.169.254"]
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    assert client.connect(f"server.example:{server.port}").startswith(b"HTTP/1.1 403 ")
    assert not server.is_asked


def test_a_name_that_is_not_known_is_a_bad_gateway(house: House) -> None:
    client = house.client(house.serve(ALLOWED))
    assert client.connect("nothing.example:443").startswith(b"HTTP/1.1 502 ")
    house.until(lambda: house.kinds() == ["open", "close"])
    assert house.events[1].reason == "nothing.example is not known to the name service"


def test_a_server_that_refuses_is_a_bad_gateway(house: House) -> None:
    server = house.server()
    server.close()
    client = house.client(house.serve(ALLOWED))
    assert client.connect(f"server.example:{server.port}").startswith(b"HTTP/1.1 502 ")
    house.until(lambda: house.kinds() == ["open", "close"])
    assert "connection refused" in house.events[1].reason


def test_misuse_is_answered_and_told(house: House) -> None:
    client = house.client(house.serve(ALLOWED))
    client.say(b"GET / HTTP/1.1\r\nHost: server.example\r\n\r\n")
    assert client.hear().startswith(b"HTTP/1.1 400 ")
    house.until(lambda: house.kinds() == ["refused"])


def test_a_client_that_says_nothing_is_let_go(house: House) -> None:
    client = house.client(house.serve(ALLOWED))
    house.turn(5)
    house.pass_time(15.1)
    assert client.hear() == b""
    assert house.events == []


def test_a_slow_head_is_answered_once_its_time_is_over(house: House) -> None:
    client = house.client(house.serve(ALLOWED))
    client.say(b"CONNECT server.ex")
    house.turn(5)
    house.pass_time(15.1)
    assert client.hear().startswith(b"HTTP/1.1 408 ")


def test_a_way_that_does_not_open_is_a_timeout(house: House) -> None:
    release = house.names.hanging["silent.example"] = threading.Event()
    client = house.client(house.serve(ALLOWED))
    client.say(b"CONNECT silent.example:443 HTTP/1.1\r\nHost: silent.example:443\r\n\r\n")
    house.until(lambda: house.kinds() == ["open"])
    house.pass_time(15.1)
    assert client.hear().startswith(b"HTTP/1.1 504 ")
    release.set()
    house.until(lambda: house.kinds() == ["open", "close"])


def test_an_idle_tunnel_ends(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    client.connect(f"server.example:{server.port}")
    server.accept()
    house.pass_time(890)
    client.say(b"x")
    house.turn(3)
    house.pass_time(890)
    assert house.kinds() == ["open"]
    house.pass_time(900)
    house.until(lambda: house.kinds() == ["open", "close"])
    assert house.events[1].reason == "nothing moved for 900 s"


def test_connections_past_the_limit_are_refused_and_recover(house: House) -> None:
    server = house.server()
    proxy = house.serve(session_egress("server.example", limits=EgressLimits(connections=2)))
    target = f"server.example:{server.port}"
    first, second, third = (house.client(proxy) for _ in range(3))
    assert first.connect(target).startswith(b"HTTP/1.1 200 ")
    assert second.connect(target).startswith(b"HTTP/1.1 200 ")
    answer = third.connect(target)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After" in answer
    first.socket.close()
    server.accept().socket.close()
    third.socket.close()
    house.until(lambda: house.kinds().count("close") == 1)
    assert house.client(proxy).connect(target).startswith(b"HTTP/1.1 200 ")


def test_connections_past_twice_the_limit_wait(house: House) -> None:
    proxy = house.serve(session_egress("server.example", limits=EgressLimits(connections=2)))
    clients = [house.client(proxy) for _ in range(6)]
    house.turn(10)
    assert house.count().connections == 4
    for client in clients[:4]:
        client.socket.close()
    house.until(lambda: house.count().connections == 2)


def test_the_rate_is_bounded_and_comes_back(house: House) -> None:
    proxy = house.serve(session_egress("server.example", limits=EgressLimits(rate_per_s=1, burst=2)))

    def ask() -> bytes:
        client = house.client(proxy)
        answer = client.connect("elsewhere.example:443")
        client.socket.close()
        return answer[9:12]

    assert [ask(), ask(), ask()] == [b"403", b"403", b"429"]
    house.pass_time(1.1)
    assert ask() == b"403"


def test_requests_of_one_connection_count_for_the_rate(house: House) -> None:
    """Each is a connection to the outside, and a record."""
    server = house.server()
    client = house.client(house.serve(session_egress("server.example", limits=EgressLimits(rate_per_s=1, burst=3))))
    target = f"server.example:{server.port}"
    request = f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    client.say(request * 4)
    for _ in range(3):
        far = server.accept()
        far.hear(until=b"\r\n\r\n")
        far.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    answers = client.hear()
    assert answers.count(b"HTTP/1.1 200 ") == 3
    assert answers.count(b"HTTP/1.1 429 ") == 1
    assert not server.is_asked


def test_a_killed_client_ends_what_was_opened_for_it(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    client.connect(f"server.example:{server.port}")
    far = server.accept()
    reset(client.socket)
    client.socket.close()
    house.until(lambda: house.kinds() == ["open", "close"])
    with pytest.raises(ConnectionResetError):
        far.socket.recv(1)


def test_a_client_that_is_gone_before_the_way_is_open_costs_nothing(house: House) -> None:
    server = house.server()
    proxy = house.serve(ALLOWED)
    house.records = False
    client = house.client(proxy)
    client.say(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\n".encode())
    house.until(lambda: house.events)
    reset(client.socket)
    client.socket.close()
    house.records = True
    house.acknowledge()
    house.until(lambda: house.kinds() == ["open", "close"])
    house.until(lambda: house.count().connections == 0)


def test_a_plain_request_is_forwarded(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    client.say(
        f"GET http://server.example:{server.port}/a?b HTTP/1.1\r\nHost: server.example:{server.port}\r\n\r\n".encode()
    )
    far = server.accept()
    request = far.hear(until=b"\r\n\r\n")
    assert request.startswith(b"GET /a?b HTTP/1.1\r\n")
    far.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    answer = client.hear(until=b"hello")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    house.until(lambda: house.kinds() == ["open", "close"])
    assert house.events[0].protocol == "http"
    assert house.events[1].received_bytes > 40


def test_the_next_plain_request_is_decided_anew(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    good = f"GET http://server.example:{server.port}/ HTTP/1.1\r\nHost: server.example:{server.port}\r\n\r\n".encode()
    client.say(good + b"GET http://elsewhere.example/ HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
    far = server.accept()
    far.hear(until=b"\r\n\r\n")
    far.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    answer = client.hear()
    assert answer.index(b"hello") < answer.index(b"HTTP/1.1 403 ")
    house.until(lambda: house.kinds() == ["open", "close", "refused"])


def test_a_plain_body_of_any_size_arrives_whole(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    target = f"server.example:{server.port}"
    client.say(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    far = server.accept()
    far.hear(until=b"\r\n\r\n")
    body = bytes(range(256)) * 8192
    waiting = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    got = b""
    while waiting or not got.endswith(body[-100:]):
        if waiting:
            with contextlib.suppress(BlockingIOError):
                waiting = waiting[far.socket.send(waiting[:100_000]) :]
        house.turn()
        with contextlib.suppress(BlockingIOError):
            got += client.socket.recv(200_000)
        if len(got) >= len(body) + 10 and got.partition(b"\r\n\r\n")[2] == body:
            break
    assert got.partition(b"\r\n\r\n")[2] == body


def test_a_websocket_becomes_a_tunnel(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    target = f"server.example:{server.port}"
    client.say(
        f"GET http://{target}/ws HTTP/1.1\r\nHost: {target}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
    )
    far = server.accept()
    far.hear(until=b"\r\n\r\n")
    far.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfrom server")
    assert client.hear(until=b"from server").startswith(b"HTTP/1.1 101 ")
    client.say(b"\x00 raw")
    assert far.hear(count=5) == b"\x00 raw"
    far.socket.close()
    assert client.hear() == b""
    client.socket.close()
    house.until(lambda: house.kinds() == ["open", "close"])


def test_a_tunnel_that_was_a_request_is_recorded_with_all_its_bytes(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    target = f"server.example:{server.port}"
    fields = f"Host: {target}\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 10000\r\n\r\n"
    client.say(f"POST http://{target}/ HTTP/1.1\r\n{fields}".encode() + bytes(10_000))
    far = server.accept()
    asked = far.hear(until=bytes(10_000))
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    far.say(answer)
    client.hear(until=b"\r\n\r\n")
    client.say(b"\x00 raw")
    far.hear(count=5)
    far.say(b"answer")
    far.socket.close()
    client.hear()
    client.socket.close()
    house.until(lambda: house.kinds() == ["open", "close"])
    assert (house.events[1].sent_bytes, house.events[1].received_bytes) == (len(asked) + 5, len(answer) + 6)


def test_a_lost_server_is_a_bad_gateway_for_a_plain_request(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(ALLOWED))
    target = f"server.example:{server.port}"
    client.say(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    far = server.accept()
    far.hear(until=b"\r\n\r\n")
    reset(far.socket)
    far.socket.close()
    assert client.hear().startswith(b"HTTP/1.1 502 ")
    house.until(lambda: house.kinds() == ["open", "close"])


def test_unix_listeners_are_served_as_well(house: House, tmp_path: Path) -> None:
    server = house.server()
    path = str(tmp_path / "http.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(5)
        house.ask(Serve(id=0, session="s", egress=ALLOWED), listener.fileno())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.send(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\nhi".encode())
        far = server.accept()
        assert far.hear(count=2) == b"hi"
        far.say(b"there")
        client.setblocking(False)
        got: list[bytes] = []

        def heard() -> bool:
            try:
                got.append(client.recv(1000))
            except BlockingIOError:
                return False
            return b"there" in b"".join(got)

        house.until(heard)
