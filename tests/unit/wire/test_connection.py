from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.wire.connection import Connection, Notification, Request, Response, compose_notification
from coworkd.wire.limits import UINT32_MAX, LocalLimitError, LocalProtocolError, RemoteProtocolError


def packed(*message: Any) -> bytes:
    return bytes(msgpack.packb(message))


def greeted_guest() -> Connection:
    guest = Connection("guest")
    guest.greeted()
    return guest


def rule_of(connection: Connection, data: bytes) -> str:
    connection.receive_data(data)
    with pytest.raises(RemoteProtocolError) as caught:
        list(iter(connection.next_event, None))
    return caught.value.rule


def test_request_and_response_travel_there_and_back() -> None:
    host, guest = Connection("host"), Connection("guest")
    request_id, data = host.send_request("ping", {"a": [1, b"\xff"]})
    guest.receive_data(data)
    assert guest.next_event() == Request(id=request_id, method="ping", params={"a": [1, b"\xff"]})
    assert guest.next_event() is None
    host.receive_data(guest.send_response(request_id, {"time": 1.0}))
    assert host.next_event() == Response(id=request_id, error=None, result={"time": 1.0})


def test_error_and_notification_travel() -> None:
    host, guest = Connection("host"), Connection("guest")
    request_id, data = host.send_request("x", {})
    guest.receive_data(data)
    guest.next_event()
    host.receive_data(guest.send_error(request_id, {"code": "NOT_FOUND"}) + guest.send_notification("e", {"seq": 1}))
    assert host.next_event() == Response(id=request_id, error={"code": "NOT_FOUND"}, result=None)
    assert host.next_event() == Notification(method="e", params={"seq": 1})


def test_bin_method_and_empty_params_of_plain_clients_are_understood() -> None:
    guest = Connection("guest")
    guest.receive_data(packed(0, 5, b"ping", []))
    assert guest.next_event() == Request(id=5, method="ping", params={})


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        ((3, 1, "m", [{}]), "message-shape"),
        ((False, 1, "m", [{}]), "message-shape"),
        ((0, "m", [{}]), "message-shape"),
        ((2, 1, "m", [{}]), "message-shape"),
        ((2, 5, [{}]), "message-shape"),
        (("0", 1, "m", [{}]), "message-shape"),
        ((0, -1, "m", [{}]), "id"),
        ((0, UINT32_MAX + 1, "m", [{}]), "id"),
        ((0, True, "m", [{}]), "id"),
        ((0, 1.0, "m", [{}]), "id"),
        ((0, 1, "m", {}), "params"),
        ((0, 1, "m", [{}, {}]), "params"),
        ((0, 1, "m", [1]), "params"),
        ((0, 1, "m", None), "params"),
        ((0, 1, b"\xff", [{}]), "utf-8"),
        ((0, 1, "m", [{1: 2}]), "map-key"),
        ((0, 1, "m", [{b"a": 2}]), "map-key"),
        ((1, 1, None, {}), "direction"),
    ],
)
def test_guest_refuses_what_is_no_request(message: tuple[Any, ...], rule: str) -> None:
    assert rule_of(Connection("guest"), packed(*message)) == rule


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        ((0, 0, "m", [{}]), "direction"),
        ((1, 7, None, {}), "id-unknown"),
        ((1, 0, "error", None), "result"),
        ((1, 0, {}, {}), "result"),
        ((1, 0, None, None), "result"),
        ((1, 0, None, 3), "result"),
    ],
)
def test_host_refuses_what_is_no_response(message: tuple[Any, ...], rule: str) -> None:
    host = Connection("host")
    host.send_request("m", {})
    assert rule_of(host, packed(*message)) == rule


def test_second_response_to_one_request_is_refused() -> None:
    host = Connection("host")
    host.send_request("m", {})
    assert rule_of(host, packed(1, 0, None, {}) * 2) == "id-unknown"


def test_key_twice_in_one_map_is_refused() -> None:
    assert rule_of(Connection("guest"), b"\x94\x00\x01\xa1m\x91\x82\xa1a\x01\xa1a\x02") == "map-key"


def test_text_that_is_not_utf8_is_refused() -> None:
    assert rule_of(Connection("guest"), b"\x94\x00\x01\xa1m\x91\x81\xa1a\xa1\xff") == "utf-8"


def test_id_is_free_again_once_answered() -> None:
    guest = Connection("guest")
    for _ in range(2):
        guest.receive_data(packed(0, 9, "m", [{}]))
        assert isinstance(guest.next_event(), Request)
        guest.send_response(9, {})
    guest.receive_data(packed(0, 9, "m", [{}]))
    guest.next_event()
    assert guest.outstanding == 1
    assert rule_of(guest, packed(0, 9, "m", [{}])) == "id-reused"


def test_frame_cap_is_16_kib_until_greeted_and_then_1_mib() -> None:
    frame = packed(0, 1, "m", [{"a": b"x" * 16_384}])
    assert rule_of(Connection("guest"), frame) == "frame-bytes"
    guest = greeted_guest()
    guest.receive_data(frame)
    assert isinstance(guest.next_event(), Request)
    assert rule_of(guest, packed(0, 2, "m", [{"a": b"x" * 1_048_576}])) == "frame-bytes"


def test_events_before_a_breach_are_given_and_none_after() -> None:
    guest = Connection("guest")
    guest.receive_data(packed(0, 1, "m", [{}]) + b"\xc1" + packed(0, 2, "m", [{}]))
    assert isinstance(guest.next_event(), Request)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="0xc1"):
            guest.next_event()
    with pytest.raises(RemoteProtocolError):
        guest.receive_data(packed(0, 3, "m", [{}]))
    assert guest.send_notification("link.error", {"code": "INVALID_ARGUMENT"})


@pytest.mark.parametrize("cut", [1, 2, 255, 256, 257, 1000, 4096, 70_000, 1 << 20])
@pytest.mark.parametrize("patient", [True, False], ids=["drained", "not drained in between"])
def test_events_are_the_same_however_the_bytes_are_cut(cut: int, patient: bool) -> None:
    sizes = [0, 1, 3, 254, 255, 256, 900, 65_536, 0, 12, 140_000]
    data = b"".join(packed(0, index, "m", [{"data": bytes([index]) * size}]) for index, size in enumerate(sizes))
    guest = greeted_guest()
    events = []
    for start in range(0, len(data), cut):
        guest.receive_data(data[start : start + cut])
        if patient or start % 3 == 0:
            events += list(iter(guest.next_event, None))
    events += list(iter(guest.next_event, None))
    expected = [{"data": bytes([index]) * size} for index, size in enumerate(sizes)]
    assert [event.params for event in events if isinstance(event, Request)] == expected
    guest.receive_eof()


def test_a_breach_behind_a_message_that_came_in_two_is_told_behind_it() -> None:
    message = packed(0, 1, "m", [{"data": b"x" * 2000}])
    guest = greeted_guest()
    guest.receive_data(message[:500])
    assert guest.next_event() is None
    guest.receive_data(message[500:] + b"\xc1" + message)
    assert isinstance(guest.next_event(), Request)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="0xc1"):
            guest.next_event()


def test_eof_inside_a_message_is_a_breach_and_between_messages_is_not() -> None:
    guest = Connection("guest")
    guest.receive_data(packed(0, 1, "m", [{}]))
    guest.next_event()
    guest.receive_eof()
    guest.receive_data(b"\x94\x00")
    assert guest.next_event() is None
    with pytest.raises(RemoteProtocolError) as caught:
        guest.receive_eof()
    assert caught.value.rule == "truncated"


def test_a_sender_cannot_compose_what_the_peer_would_refuse() -> None:
    host = Connection("host")
    with pytest.raises(LocalLimitError):
        host.send_request("m", {"a": b"x" * 16_384})
    assert host.outstanding == 0
    host.greeted()
    host.send_request("m", {"a": b"x" * 16_384})
    with pytest.raises(LocalLimitError, match="4096"):
        host.send_request("m", {"a": [1] * 4097})
    with pytest.raises(LocalProtocolError):
        host.send_request("m", {"a": object()})
    assert host.send_request("m", {})[0] == 1


def test_too_large_an_answer_leaves_its_request_to_be_answered() -> None:
    guest = greeted_guest()
    guest.receive_data(packed(0, 1, "m", [{}]))
    guest.next_event()
    with pytest.raises(LocalLimitError):
        guest.send_response(1, {"a": b"x" * 4_194_304})
    assert guest.send_error(1, {"code": "RESOURCE_EXHAUSTED"})
    with pytest.raises(LocalProtocolError):
        guest.send_error(1, {})


def test_each_role_composes_only_its_own_messages() -> None:
    with pytest.raises(LocalProtocolError):
        Connection("guest").send_request("m", {})
    with pytest.raises(LocalProtocolError):
        Connection("host").send_response(0, {})


def test_a_link_that_has_said_little_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        connections = [Connection("guest") for _ in range(10)]
        for connection in connections:
            connection.send_notification("event", {"said": "little"})
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 10 * 16 * 1024


def test_ids_go_round_and_pass_over_those_in_use() -> None:
    host = Connection("host")
    host.send_request("m", {})
    host._last_id = UINT32_MAX
    assert [host.send_request("m", {})[0] for _ in range(2)] == [UINT32_MAX, 1]


def test_compose_notification_is_what_a_connection_sends() -> None:
    assert compose_notification("e", {"a": 1}) == packed(2, "e", [{"a": 1}])
