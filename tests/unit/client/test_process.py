"""The blocking process handle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from coworkd.client.inbox import Output
from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import InvalidState, LimitExceeded, OutOfRange, Unavailable
from tests.unit.client.conftest import FakeGuest, Fault


@pytest.fixture
def client(guest: FakeGuest) -> Iterator[Client]:
    guest.begin()
    client = Client(guest.host)
    client.greet("test", timeout_s=5)
    yield client
    client.close()


def start(client: Client, guest: FakeGuest, *events: Any) -> Process:
    """Start p1; the guest then plays `events`, each a function without arguments."""

    def play(_: dict[str, Any]) -> None:
        for event in events:
            event()

    guest.after["process.start"] = play
    return client.start("work", ["x"], stdin=True)


def test_iteration_gives_all_output_and_ends_behind_the_exit(client: Client, guest: FakeGuest) -> None:
    process = start(
        client,
        guest,
        lambda: guest.output("stdout", 0, b"ab"),
        lambda: guest.output("stderr", 0, b"!", True),
        lambda: guest.output("stdout", 2, b"c", True),
        lambda: guest.exited(stdout=3, stderr=1),
    )
    assert list(process) == [
        Output("stdout", 0, b"ab", False),
        Output("stderr", 0, b"!", True),
        Output("stdout", 2, b"c", True),
    ]
    assert process.finished
    assert process.wait().exit.code == 0
    assert guest.called("process.wait") == []


def test_an_exit_that_overtook_output_loses_none(client: Client, guest: FakeGuest) -> None:
    process = start(client, guest, lambda: guest.exited(stdout=2), lambda: guest.output("stdout", 0, b"ab"))
    assert [piece.data for piece in process] == [b"ab"]


def test_a_gap_is_told_and_reading_goes_on_behind_it(client: Client, guest: FakeGuest) -> None:
    process = start(client, guest, lambda: guest.output("stdout", 5, b"f"), lambda: guest.exited("truncated", stdout=6))
    with pytest.raises(OutOfRange):
        process.read()
    assert process.read() == Output("stdout", 5, b"f", False)


def test_read_with_a_timeout_returns_none_while_it_runs(client: Client, guest: FakeGuest) -> None:
    process = start(client, guest)
    assert process.read(timeout_s=0.01) is None
    assert not process.finished


def test_a_lost_link_ends_reading_with_an_error_not_with_an_end(client: Client, guest: FakeGuest) -> None:
    process = start(client, guest, lambda: guest.output("stdout", 0, b"a"), guest.hang_up)
    assert process.read() == Output("stdout", 0, b"a", False)
    with pytest.raises(Unavailable, match="attach"):
        process.read()
    assert process.offsets() == {"stdout": 1, "stderr": 0}


def test_attach_goes_on_from_the_offset_given(client: Client, guest: FakeGuest) -> None:
    guest.answers["process.get"] = lambda _: {
        "process": "p1",
        "session": "work",
        "argv": ["x"],
        "state": "running",
        "pid": 7,
        "started_at": 1.0,
        "streams": {"stdout": [0, 9]},
    }
    guest.answers["process.attach"] = lambda _: {"streams": {"stdout": {"first": 0, "end": 9}}}
    guest.after["process.attach"] = lambda _: guest.output("stdout", 4, b"4")
    process = client.attach("p1", stdout=4)
    assert guest.called("process.attach") == [{"process": "p1", "stdout": 4}]
    assert process.read() == Output("stdout", 4, b"4", False)


def test_a_parked_handle_attaches_again_where_it_stopped(client: Client, guest: FakeGuest) -> None:
    process = start(client, guest)
    assert process._inbox is not None
    process._inbox._bound_bytes = 3
    streams = {"stdout": {"first": 0, "end": 6}, "stderr": {"first": 0, "end": 0}}
    guest.answers["process.attach"] = lambda _: {"streams": streams}
    guest.after["process.attach"] = lambda _: guest.output("stdout", 4, b"ef")

    def speak_first(_: dict[str, Any]) -> dict[str, float]:
        guest.output("stdout", 0, b"ab")
        guest.output("stdout", 2, b"cd")
        return {"time": 1.0, "monotonic": 1.0}

    guest.answers["ping"] = speak_first
    client.ping()
    assert [process.read() for _ in range(3)] == [
        Output("stdout", 0, b"ab", False),
        Output("stdout", 2, b"cd", False),
        Output("stdout", 4, b"ef", False),
    ]
    assert guest.called("process.detach") == [{"process": "p1"}]
    assert guest.called("process.attach") == [{"process": "p1", "stdout": 4, "stderr": 0}]


def test_write_stdin_comes_back_until_all_was_taken(client: Client, guest: FakeGuest) -> None:
    process = start(client, guest)
    taken = bytearray()

    def take_some(params: dict[str, Any]) -> dict[str, int]:
        assert params["offset"] == len(taken)
        if len(guest.called("process.write_stdin")) % 2:
            taken.extend(params["data"][:3])
        return {"offset": len(taken)}

    guest.answers["process.write_stdin"] = take_some
    guest.answers["process.close_stdin"] = lambda _: {}
    process.write_stdin(b"0123456789")
    process.close_stdin()
    assert bytes(taken) == b"0123456789"
    assert guest.called("process.close_stdin") == [{"process": "p1", "offset": 10}]


def test_write_stdin_says_so_where_the_command_waits_for_its_reader(client: Client, guest: FakeGuest) -> None:
    pieces = [lambda at=at: guest.output("stdout", at, bytes(2**20)) for at in range(0, 5 * 2**20, 2**20)]
    process = start(client, guest, *pieces)
    guest.answers["process.write_stdin"] = lambda params: {"offset": params["offset"]}
    with pytest.raises(LimitExceeded, match="communicate"):
        process.write_stdin(b"x")


def test_communicate_writes_and_reads_by_turns(client: Client, guest: FakeGuest) -> None:
    process = start(client, guest)
    seen = bytearray()

    def echo(params: dict[str, Any]) -> dict[str, int]:
        piece = params["data"][:100_000]
        guest.output("stdout", len(seen), piece)
        seen.extend(piece)
        return {"offset": len(seen)}

    guest.answers["process.write_stdin"] = echo
    guest.answers["process.close_stdin"] = lambda _: {}
    guest.after["process.close_stdin"] = lambda _: guest.exited(stdout=len(seen))
    data = bytes(range(256)) * 2000
    collected = process.communicate(data)
    assert collected.streams == {"stdout": data}
    assert collected.exit.output == "complete"


def test_communicate_survives_a_command_that_ends_without_reading(client: Client, guest: FakeGuest) -> None:
    def refuse(_: dict[str, Any]) -> Any:
        guest.exited(stdout=0)
        raise Fault("FAILED_PRECONDITION", "its stdin is closed")

    guest.answers["process.write_stdin"] = guest.answers["process.close_stdin"] = refuse
    assert start(client, guest).communicate(b"never read").exit.exit.code == 0


def test_leaving_the_block_ends_a_running_command_and_forgets_it(client: Client, guest: FakeGuest) -> None:
    with start(client, guest):
        pass
    assert [name for name, _ in guest.calls[2:]] == ["process.kill", "process.wait", "process.forget"]
    assert guest.called("process.kill") == [{"process": "p1", "grace_s": 0}]


def test_leaving_the_block_forgets_an_ended_command(client: Client, guest: FakeGuest) -> None:
    with start(client, guest, lambda: guest.exited(stdout=0)) as process:
        list(process)
    assert [name for name, _ in guest.calls[2:]] == ["process.forget"]


def test_a_detached_command_runs_on(client: Client, guest: FakeGuest) -> None:
    with start(client, guest) as process:
        process.detach()
    assert [name for name, _ in guest.calls[2:]] == ["process.detach"]
    with pytest.raises(InvalidState, match=r"client\.attach"):
        process.read()


def test_the_error_in_the_block_is_not_hidden_by_a_lost_link(client: Client, guest: FakeGuest) -> None:
    with pytest.raises(ZeroDivisionError), start(client, guest, guest.hang_up):
        raise ZeroDivisionError


def test_control_calls_carry_their_arguments(client: Client, guest: FakeGuest) -> None:
    guest.answers["process.signal"] = guest.answers["process.resize"] = lambda _: {}
    process = start(client, guest)
    process.signal("INT")
    process.resize(24, 80)
    process.kill(2.5)
    assert [params for _, params in guest.calls[2:]] == [
        {"process": "p1", "signal": "INT"},
        {"process": "p1", "rows": 24, "cols": 80},
        {"process": "p1", "grace_s": 2.5},
    ]


@pytest.mark.parametrize("way", ["detach", "forget", "unsubscribe"])
def test_a_thread_that_reads_what_another_lets_go_of_is_told(client: Client, guest: FakeGuest, way: str) -> None:
    guest.answers["events.subscribe"] = lambda _: {"next": 8, "missed": 0}
    guest.answers["events.unsubscribe"] = lambda _: {}
    process, events = start(client, guest), client.events()
    read, let_go = {
        "detach": (process.read, process.detach),
        "forget": (process.read, process.forget),
        "unsubscribe": (events.read, events.close),
    }[way]
    raised: list[str] = []

    def wait() -> None:
        try:
            read()
        except InvalidState as error:
            raised.append(str(error))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not client._link._reading:
        time.sleep(0.001)
    let_go()
    thread.join(5)
    assert len(raised) == 1
    assert "from here" in raised[0]
