"""Any bytes give events or a protocol error and nothing else; any cutting of the same bytes gives the same."""

from __future__ import annotations

import io
from typing import Any

import msgpack  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.model import calls
from coworkd.model.errors import InvalidParams
from coworkd.wire.connection import Connection, Notification, Request, Response
from coworkd.wire.convert import parse_params
from coworkd.wire.fault import code_of, compose_fault, parse_fault
from coworkd.wire.limits import RemoteProtocolError
from coworkd.wire.resync import GuestResync, HostResync

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)
MESSAGES = st.one_of(
    st.tuples(
        st.just(0),
        st.integers(0, 9),
        st.text(max_size=9),
        st.tuples(st.dictionaries(st.text(max_size=9), VALUES, max_size=4)),
    ),
    st.tuples(st.just(2), st.text(max_size=9), st.tuples(st.dictionaries(st.text(max_size=9), VALUES, max_size=4))),
    VALUES,
)
STREAMS = st.lists(MESSAGES.map(msgpack.packb) | st.binary(max_size=30), max_size=6).map(b"".join)
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=20)

modestly = settings(max_examples=60, deadline=None)


def feed(pieces: list[bytes]) -> tuple[list[Request | Notification], str | None]:
    guest = Connection("guest")
    events: list[Request | Notification] = []
    try:
        for piece in pieces:
            guest.receive_data(piece)
            while (event := guest.next_event()) is not None:
                assert not isinstance(event, Response)
                events.append(event)
                if isinstance(event, Request):
                    guest.send_response(event.id, {})
        guest.receive_eof()
    except RemoteProtocolError as error:
        return events, error.rule
    return events, None


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@modestly
@given(STREAMS, CUTS)
def test_any_cutting_gives_the_same_events(data: bytes, sizes: list[int]) -> None:
    whole, pieces = feed([data] if data else []), feed(cut(data, sizes))
    assert repr(whole) == repr(pieces)


@modestly
@given(st.lists(MESSAGES, max_size=6))
def test_messages_agree_with_a_plain_decoder_until_the_first_breach(messages: list[Any]) -> None:
    data = b"".join(map(msgpack.packb, messages))
    events, _ = feed([data] if data else [])
    decoded = list(msgpack.Unpacker(io.BytesIO(data), strict_map_key=False))
    assert repr([event.params for event in events]) == repr([message[-1][0] for message in decoded[: len(events)]])


@modestly
@given(st.binary(max_size=200))
def test_any_bytes_behind_a_good_beginning_give_events_or_a_breach(data: bytes) -> None:
    events, _ = feed([b"\x94\x00\x01\xa1m\x91" + data])
    assert all(type(event).__name__ in ("Request", "Notification") for event in events)


@modestly
@given(st.binary(min_size=1, max_size=64), st.integers(1, 400))
def test_what_is_kept_is_bounded_by_the_cap(chunk: bytes, times: int) -> None:
    guest = Connection("guest")
    try:
        for _ in range(times):
            guest.receive_data(chunk)
            while guest.next_event() is not None:
                pass
            assert len(guest._buffer) - guest._start <= 16 * 1024
    except RemoteProtocolError:
        assert len(guest._buffer) == 0


@modestly
@given(
    st.dictionaries(st.text(max_size=12) | st.sampled_from(["session", "argv", "env", "limits", "timeout_s"]), VALUES)
)
def test_any_map_is_parameters_or_invalid(params: dict[str, Any]) -> None:
    try:
        parsed: object = parse_params(params, calls.ProcessRun)
    except InvalidParams as error:
        parsed = compose_fault(error)
    assert isinstance(parsed, calls.ProcessRun) or msgpack.packb(parsed)


@modestly
@given(st.dictionaries(st.sampled_from(["code", "message", "details", "x"]), VALUES))
def test_any_map_is_read_as_a_fault_and_travels_again(fault: dict[str, Any]) -> None:
    error = parse_fault(fault)
    again = parse_fault(msgpack.unpackb(msgpack.packb(compose_fault(error))))
    assert (code_of(again), again.message[:100]) == (code_of(error), error.message[:100])


@modestly
@given(st.binary(max_size=120), CUTS)
def test_resync_gives_the_same_for_any_cutting(noise: bytes, sizes: list[int]) -> None:
    nonce = b"0123456789abcdef"
    stream = noise + b"\xc1" + nonce + b"\x94"
    whole, pieces = GuestResync(), GuestResync()
    expected = whole.feed(stream)
    got = [pieces.feed(piece) for piece in cut(stream, sizes)]
    assert (b"".join(a for a, _ in got), b"".join(r for _, r in got)) == expected
    one, many = HostResync(nonce), HostResync(nonce)
    assert b"".join(map(many.feed, cut(stream, sizes))) == one.feed(stream)
