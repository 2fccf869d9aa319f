from __future__ import annotations

import os
import struct

import pytest

from host_stub.vsock import messages
from host_stub.vsock.messages import Ask, FrontEndError, Message, MessageReader, Region, VringAddresses


def feed(reader: MessageReader, data: bytes, fds: list[int] | None = None) -> list[Message]:
    """As a socket does: never more than is wanted."""
    got = []
    while data:
        step = data[: reader.wanted]
        data = data[len(step) :]
        message = reader.feed(step, fds or [])
        fds = None
        if message is None and reader.wanted == 0:
            message = reader.feed(b"")
        if message is not None:
            got.append(message)
    return got


def test_reader_finds_messages_in_any_pieces() -> None:
    raw = messages.HEADER.pack(Ask.SET_OWNER, 1, 0) + messages.HEADER.pack(Ask.SET_FEATURES, 9, 8) + bytes(8)
    for step in (1, 5, len(raw)):
        reader = MessageReader()
        got = [message for at in range(0, len(raw), step) for message in feed(reader, raw[at : at + step])]
        assert [(message.ask, message.payload, message.needs_reply) for message in got] == [
            (Ask.SET_OWNER, b"", False),
            (Ask.SET_FEATURES, bytes(8), True),
        ]
        assert not reader.in_message


def test_reader_gives_descriptors_to_the_message_they_came_with() -> None:
    reader = MessageReader()
    (one,) = feed(reader, messages.HEADER.pack(Ask.SET_VRING_KICK, 1, 8) + bytes(8), [os.dup(0)])
    (other,) = feed(reader, messages.HEADER.pack(Ask.SET_OWNER, 1, 0))
    assert (len(one.fds), other.fds) == (1, [])
    fd = one.adopt()
    one.close()
    os.fstat(fd)
    os.close(fd)


def test_reader_closes_what_came_for_a_message_cut_short() -> None:
    reader = MessageReader()
    fd = os.dup(0)
    reader.feed(messages.HEADER.pack(Ask.SET_VRING_KICK, 1, 8), [fd])
    assert reader.in_message
    reader.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ((1, 0, 0), "version 0"),
        ((1, 2, 0), "version 2"),
        ((1, 5, 0), "a reply"),
        ((1, 1, messages.PAYLOAD_BYTES + 1), "at most 512"),
        ((1, 1, 0xFFFFFFFF), "at most 512"),
    ],
)
def test_reader_refuses_headers_that_make_no_sense(header: tuple[int, int, int], words: str) -> None:
    with pytest.raises(FrontEndError, match=words):
        MessageReader().feed(messages.HEADER.pack(*header))


def test_reader_refuses_a_pile_of_descriptors() -> None:
    reader = MessageReader()
    with pytest.raises(FrontEndError, match="descriptors"):
        reader.feed(b"\0", [os.dup(0) for _ in range(messages.FD_LIMIT + 1)])
    reader.close()


def test_payloads_are_parsed() -> None:
    assert messages.parse_u64(struct.pack("=Q", 7)) == 7
    assert messages.parse_vring_state(struct.pack("=II", 1, 128)) == (1, 128)
    assert messages.parse_vring_addresses(struct.pack("=IIQQQQ", 1, 0, 2, 3, 4, 5)) == VringAddresses(1, 0, 2, 3, 4, 5)
    assert messages.parse_config(struct.pack("=III", 0, 8, 0) + bytes(8)) == (0, 8)
    table = struct.pack("=II", 1, 0) + struct.pack("=QQQQ", 1, 2, 3, 4) + bytes(32)
    assert messages.parse_memory_table(table) == (Region(1, 2, 3, 4),)


@pytest.mark.parametrize(
    "payload",
    [b"", struct.pack("=II", 0, 0), struct.pack("=II", 9, 0) + bytes(9 * 32), struct.pack("=II", 2, 0) + bytes(40)],
)
def test_memory_tables_of_a_wrong_count_are_refused(payload: bytes) -> None:
    with pytest.raises(FrontEndError, match="memory table"):
        messages.parse_memory_table(payload)


@pytest.mark.parametrize("payload", [b"", struct.pack("=III", 0, 8, 0), struct.pack("=III", 0, 257, 0) + bytes(257)])
def test_configuration_requests_that_lie_are_refused(payload: bytes) -> None:
    with pytest.raises(FrontEndError, match="configuration request"):
        messages.parse_config(payload)


def test_payloads_of_a_wrong_size_are_refused() -> None:
    for parse in (messages.parse_u64, messages.parse_vring_state, messages.parse_vring_addresses):
        with pytest.raises(FrontEndError, match="belong"):
            parse(bytes(7))


def test_replies_say_that_they_are() -> None:
    assert (
        messages.compose_reply(Ask.GET_CONFIG, messages.compose_config(0, b"ab"))
        == struct.pack("=IIIIII", 24, 5, 14, 0, 2, 0) + b"ab"
    )
    assert messages.compose_vring_state(1, 9) == struct.pack("=II", 1, 9)
