"""The blocking client against a guest that is not ours."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.client.sync import Client, connect
from coworkd.model.errors import InvalidParams, NotFound, Unauthenticated, Unavailable
from tests.unit.client.conftest import FakeGuest, Fault


@pytest.fixture
def client(guest: FakeGuest) -> Iterator[Client]:
    guest.begin()
    client = Client(guest.host)
    client.greet("test", timeout_s=5)
    yield client
    client.close()


def test_greet_keeps_what_the_guest_said_of_itself(client: Client) -> None:
    assert (client.hello.version, client.hello.protocol) == ("9.9", 1)


def test_a_call_returns_the_answer_as_it_came(client: Client, guest: FakeGuest) -> None:
    guest.answers["new.method"] = lambda params: {"echo": params, "raw": b"\xff"}
    assert client.call("new.method", {"a": [1, b"\0"]}) == {"echo": {"a": [1, b"\0"]}, "raw": b"\xff"}


def test_a_verb_gives_the_typed_answer(client: Client, guest: FakeGuest) -> None:
    guest.answers["ping"] = lambda _: {"time": 1.0, "monotonic": 2, "unknown": "ignored"}
    pong = client.ping()
    assert (pong.time, pong.monotonic) == (1.0, 2.0)


def test_run_sends_what_was_given_and_returns_bytes(client: Client, guest: FakeGuest) -> None:
    guest.answers["process.run"] = lambda _: {
        "exit": {"code": 3, "signal": None, "reason": "exited"},
        "stdout": b"\x00\xff",
        "stderr": b"",
        "truncated": {"stdout": False, "stderr": False},
        "bytes": {"stdout": 2, "stderr": 0},
        "rusage": None,
        "output": "complete",
        "started_at": 1.0,
        "ended_at": 2.0,
    }
    ran = client.run("work", ["x", b"\xfe"], input=b"in", timeout_s=2.0)
    assert (ran.exit.code, ran.stdout) == (3, b"\x00\xff")
    assert guest.called("process.run") == [
        {"session": "work", "argv": ["x", b"\xfe"], "input": b"in", "timeout_s": 2.0}
    ]


def test_an_answer_of_another_shape_is_unavailable_and_names_the_method(client: Client, guest: FakeGuest) -> None:
    guest.answers["ping"] = lambda _: {"time": "noon"}
    with pytest.raises(Unavailable, match="ping"):
        client.ping()


def test_errors_of_the_guest_are_raised_as_their_class(client: Client, guest: FakeGuest) -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Fault("NOT_FOUND", "there is no session 'x'", key="session")

    guest.answers["session.get"] = refuse
    with pytest.raises(NotFound) as caught:
        client.session_get(session="x")
    assert caught.value.details == {"key": "session"}


def test_a_refused_token_is_unauthenticated(guest: FakeGuest) -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Fault("UNAUTHENTICATED", "the token is wrong")

    guest.answers["hello"] = refuse
    guest.begin()
    with Client(guest.host) as client, pytest.raises(Unauthenticated):
        client.greet("test", "bad")
    assert guest.called("hello")[0]["token"] == "bad"


def test_events_are_iterated_in_order(client: Client, guest: FakeGuest) -> None:
    guest.answers["events.subscribe"] = lambda _: {"next": 8, "missed": 2}
    guest.answers["events.unsubscribe"] = lambda _: {}
    guest.after["events.subscribe"] = lambda _: guest.end.sendall(
        b"".join(msgpack.packb([2, "a.b", [{"seq": n, "at": 1.0, "n": n}]]) for n in (8, 9))
    )
    subscription = client.events(after=5)
    events = iter(subscription)
    assert [next(events).params, next(events).params] == [{"n": 8}, {"n": 9}]
    assert (subscription.missed, subscription.last_seq) == (2, 9)
    assert subscription.read(timeout_s=0.01) is None
    subscription.close()
    assert guest.called("events.unsubscribe") == [{}]


def test_a_parked_feed_subscribes_again_after_its_last_event(client: Client, guest: FakeGuest) -> None:
    guest.answers["events.subscribe"] = lambda _: {"next": 1, "missed": 0}
    subscription = client.events(after=0)
    subscription._feed.parked = True
    guest.after["events.subscribe"] = lambda _: guest.notify("a.b", seq=1, at=1.0)
    event = subscription.read()
    assert event is not None
    assert event.seq == 1
    assert guest.called("events.subscribe") == [{"after": 0}, {"after": 0}]


def test_connect_refuses_what_is_no_endpoint() -> None:
    with pytest.raises(InvalidParams, match="unix:///PATH"):
        connect("tcp://1.2.3.4:5")


def test_connect_that_finds_no_descriptor_says_so_and_holds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> tuple[socket.socket, socket.socket]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        monkeypatch.setattr(socket, "socketpair", none_left)
        with pytest.raises(Unavailable, match="no descriptor left"):
            connect(f"unix://{tmp_path}/socket")
        taken, _ = listener.accept()
        with taken:
            taken.settimeout(20)
            assert taken.recv(1) == b""


def test_connect_tells_what_to_look_at_where_nothing_listens(tmp_path: Any) -> None:
    with pytest.raises(Unavailable, match="is coworkd running"):
        connect(f"unix://{tmp_path}/none.sock")


def test_the_client_can_be_imported_without_trio_and_without_the_rest() -> None:
    code = (
        "import sys, coworkd.client\n"
        "rest = [m for m in sys.modules if m.split('.')[0] in ('trio', 'asyncio', 'prctl')]\n"
        "rest += [m for m in sys.modules if m.startswith('coworkd.') and m.split('.')[1] not in ('client','wire','model')]\n"
        "print(rest)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
