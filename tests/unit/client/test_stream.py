"""The blocking stream handle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coworkd.client.stream_inbox import WINDOW_BYTES
from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, DeadlineExceeded, InvalidState, Unavailable
from tests.unit.client.conftest import FakeGuest, Fault
from tests.unit.client.stream_guest import StreamGuest


@pytest.fixture
def streams(guest: FakeGuest) -> StreamGuest:
    return StreamGuest(guest)


@pytest.fixture
def client(guest: FakeGuest) -> Iterator[Client]:
    guest.begin()
    client = Client(guest.host)
    client.greet("test", timeout_s=5)
    yield client
    client.close()


def test_bytes_go_both_ways_to_their_ends(client: Client, streams: StreamGuest) -> None:
    with client.forward("work", 80) as stream:
        assert streams.guest.called("forward.open") == [{"session": "work", "port": 80, "window": WINDOW_BYTES}]
        stream.send(b"ask")
        stream.close_write()
        streams.send(0, b"answer")
        streams.send(6, b"", eof=True)
        assert [stream.receive(4), stream.receive(), stream.receive(), stream.receive()] == [b"answ", b"er", b"", b""]
        assert streams.got["s1"] == b"ask"
        with pytest.raises(InvalidState):
            stream.send(b"more")
    client.call("stream.ack", {})  # whatever was sent before has arrived
    assert streams.guest.called("stream.close") == [{"stream": "s1"}]


def test_data_in_the_same_bytes_as_the_answer_is_not_lost(client: Client, streams: StreamGuest) -> None:
    streams.guest.after["forward.open"] = lambda _: streams.send(0, b"hello")
    assert client.forward("work", 80).receive() == b"hello"


def test_nobody_listening_is_the_guests_error(client: Client, streams: StreamGuest) -> None:
    with pytest.raises(InvalidState) as caught:
        client.forward("work", 1)
    assert caught.value.details["stage"] == "connect"


def test_what_was_read_is_acknowledged_and_two_streams_do_not_mix(client: Client, streams: StreamGuest) -> None:
    first, second = client.forward("work", 80, window=8), client.forward("work", 80, window=8)
    streams.send(0, b"aaaaaaaa", "s1")
    streams.send(0, b"bb", "s2")
    assert second.receive() == b"bb"
    assert streams.guest.called("stream.ack") == []
    assert first.receive(4) == b"aaaa"
    client.call("stream.ack", {})
    assert streams.guest.called("stream.ack")[0] == {"stream": "s1", "offset": 4}


def test_send_goes_on_while_little_is_taken(client: Client, streams: StreamGuest) -> None:
    streams.room = 100_000
    data = bytes(range(256)) * 2000
    client.forward("work", 80).send(data)
    assert streams.got["s1"] == data


def test_send_gives_up_at_its_timeout(client: Client, streams: StreamGuest) -> None:
    streams.room = 0
    stream = client.forward("work", 80)
    with pytest.raises(DeadlineExceeded):
        stream.send(b"x", timeout_s=0.01)


def test_receive_with_a_timeout_returns_none(client: Client, streams: StreamGuest) -> None:
    assert client.forward("work", 80).receive(timeout_s=0.01) is None


def test_a_lost_stream_raises_and_the_link_lives(client: Client, streams: StreamGuest) -> None:
    stream = client.forward("work", 80)
    streams.send(0, b"", eof=True, error={"code": "UNAVAILABLE", "message": "reset", "details": {}})
    with pytest.raises(Unavailable, match="reset"):
        stream.receive()
    client.forward("work", 80)


def test_a_lost_link_raises_and_close_does_not(client: Client, streams: StreamGuest) -> None:
    stream = client.forward("work", 80)
    streams.guest.hang_up()
    with pytest.raises(Unavailable):
        stream.receive()
    stream.close()
    stream.close()


def test_data_for_a_closed_stream_is_dropped(client: Client, streams: StreamGuest) -> None:
    stream = client.forward("work", 80)
    stream.close()
    streams.send(5, b"late")
    with pytest.raises(InvalidState, match="closed here"):
        stream.receive()
    client.call("stream.ack", {})


def test_a_guest_that_sends_past_the_window_breaks_the_link(client: Client, streams: StreamGuest) -> None:
    stream = client.forward("work", 80, window=2)
    streams.send(0, b"abc")
    with pytest.raises(Unavailable, match="window"):
        stream.receive()


@pytest.mark.parametrize("way", ["reading", "waiting"])
def test_a_close_wakes_a_thread_that_receives(
    client: Client, streams: StreamGuest, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Also where the guest says nothing any more; whether that thread reads the link, or another does."""
    streams.guest.answers["stream.close"] = streams.guest.answers["slow"] = lambda _: None
    link, reading, waiting = client._link, threading.Event(), threading.Event()
    monkeypatch.setattr(link, "_receive", told(reading, link._receive))
    monkeypatch.setattr(link._waiting, "wait", told(waiting, link._waiting.wait))
    stream = client.forward("work", 80)
    reading.clear()
    raised: list[CoworkError] = []
    others = [] if way == "reading" else [threading.Thread(target=note, args=(raised, client.call, "slow"))]
    receiver = threading.Thread(target=note, args=(raised, stream.receive), daemon=True)
    for thread, began in zip([*others, receiver], [reading, waiting], strict=False):
        thread.start()
        assert began.wait(60)
    stream.close()
    receiver.join(5)
    assert [str(error) for error in raised] == ["stream s1 was closed here"]
    client.close()
    for thread in others:
        thread.join(60)


def told(event: threading.Event, wait: Callable[..., Any]) -> Callable[..., Any]:
    """`wait`, which tells that it begins."""

    def begin(*arguments: Any) -> Any:
        event.set()
        return wait(*arguments)

    return begin


def note(raised: list[CoworkError], call: Callable[..., object], *arguments: Any) -> None:
    try:
        call(*arguments)
    except CoworkError as error:
        raised.append(error)


def test_too_many_calls_at_once_take_nothing_and_are_tried_again(client: Client, streams: StreamGuest) -> None:
    write = streams.guest.answers["stream.write"]

    def refuse(_: dict[str, Any]) -> Any:
        streams.guest.answers["stream.write"] = write
        raise Fault("RESOURCE_EXHAUSTED", "256 calls of this link are running", limit=256)

    streams.guest.answers["stream.write"] = refuse
    client.forward("work", 80).send(b"ab")
    assert streams.got["s1"] == b"ab"
