from __future__ import annotations

import pytest

from coworkd.egressd.forward import HttpPump
from coworkd.proxy.events import Asked, Misused, NeedData, Route, Send
from coworkd.proxy.front import Front

REQUEST = b"GET http://index.example/a HTTP/1.1\r\nHost: index.example\r\n\r\n"


def asked(data: bytes) -> Front:
    front = Front()
    front.receive_data(data)
    assert isinstance(front.next_event(), Asked)
    return front


@pytest.fixture
def front() -> Front:
    return asked(REQUEST)


@pytest.fixture
def pump(front: Front) -> HttpPump:
    return HttpPump(front, Route(host="index.example"))


def test_the_request_goes_upstream_at_the_start(pump: HttpPump) -> None:
    sends = pump.start()
    assert sends.client == b""
    assert sends.upstream.startswith(b"GET /a HTTP/1.1\r\nHost: index.example\r\n")


def test_an_answer_is_passed_on_and_ends_the_exchange_alone(pump: HttpPump, front: Front) -> None:
    pump.start()
    sends = pump.receive_upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert sends.client.startswith(b"HTTP/1.1 200 ")
    assert sends.client.endswith(b"ok")
    assert (pump.upstream_done, pump.ended, pump.raw) == (True, False, False)
    assert isinstance(front.next_event(), NeedData)


def test_a_request_sent_ahead_is_the_owners(pump: HttpPump, front: Front) -> None:
    pump.start()
    pump.receive_client(REQUEST)
    pump.receive_upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert isinstance(front.next_event(), Asked)


def test_a_lost_upstream_is_a_bad_gateway(pump: HttpPump) -> None:
    pump.start()
    assert pump.lose_upstream("it broke").client.startswith(b"HTTP/1.1 502 ")


def test_a_switch_is_raw() -> None:
    upgrade = asked(REQUEST[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    pump = HttpPump(upgrade, Route(host="index.example"))
    pump.start()
    pump.receive_upstream(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nx")
    assert pump.raw


def test_a_broken_body_ends_the_exchange_and_is_the_owners_to_answer() -> None:
    chunked = asked(b"POST http://index.example/ HTTP/1.1\r\nHost: index.example\r\nTransfer-Encoding: chunked\r\n\r\n")
    pump = HttpPump(chunked, Route(host="index.example"))
    pump.start()
    assert pump.receive_client(b"zz\r\n") == (b"", b"")
    assert pump.upstream_done
    misused, answer = chunked.next_event(), chunked.next_event()
    assert isinstance(misused, Misused)
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"HTTP/1.1 400 ")


def test_nothing_is_taken_once_it_is_over(pump: HttpPump) -> None:
    pump.start()
    pump.receive_upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert pump.receive_upstream(b"more") == (b"", b"")
    assert pump.receive_client(b"more") == (b"", b"")
    assert pump.lose_upstream("late") == (b"", b"")
