from __future__ import annotations

import pytest

from coworkd.wire.resync import GuestResync, HostResync

NONCE = bytes(range(16))
MARK = b"\xc1" + NONCE
HELLO = b"\x94\x00\x00\xa5hello\x91\x80"


def test_both_ends_find_the_beginning_behind_old_halves() -> None:
    guest, host = GuestResync(), HostResync(NONCE)
    assert guest.feed(b"\x94\x00old half") == (b"", b"")
    answer, rest = guest.feed(host.mark + HELLO)
    assert (answer, rest, guest.synced) == (MARK, HELLO, True)
    assert host.feed(b"old output\xc1" + answer + b"\x94\x01") == b"\x94\x01"
    assert host.synced


def test_once_synced_everything_passes() -> None:
    guest, host = GuestResync(), HostResync(NONCE)
    guest.feed(MARK + HELLO)
    host.feed(MARK + b"\x94")
    assert guest.feed(MARK) == (b"", MARK)
    assert host.feed(MARK) == MARK


def test_a_mark_in_an_old_half_is_answered_and_then_forgotten() -> None:
    guest = GuestResync()
    stale = b"\xc1" + b"s" * 16 + b"more of the old half"
    answer, rest = guest.feed(stale + MARK + HELLO)
    assert (answer, rest) == (b"\xc1" + b"s" * 16 + MARK, HELLO)


def test_a_repeated_mark_is_answered_anew_and_the_host_skips_copies() -> None:
    guest, host = GuestResync(), HostResync(NONCE)
    answer, rest = guest.feed(MARK + MARK + HELLO)
    assert (answer, rest) == (MARK + MARK, HELLO)
    assert host.feed(answer + b"\x94\x01") == b"\x94\x01"


def test_host_waits_for_its_own_nonce() -> None:
    host = HostResync(NONCE)
    assert host.feed(b"\xc1" + b"x" * 16 + b"\x94") == b""
    assert not host.synced


def test_any_cutting_gives_the_same() -> None:
    stream = b"old\xc1" + b"s" * 16 + b"\x01" + MARK + MARK + HELLO
    answers, rest = b"", b""
    guest, host, host_rest = GuestResync(), HostResync(NONCE), b""
    for byte in stream:
        answer, passed = guest.feed(bytes([byte]))
        answers, rest = answers + answer, rest + passed
    for byte in answers + b"\x94\x01":
        host_rest += host.feed(bytes([byte]))
    assert (rest, host_rest) == (HELLO, b"\x94\x01")


def test_a_nonce_has_16_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        HostResync(b"short")


@pytest.mark.parametrize("left", range(1, 18))
def test_behind_any_part_of_an_old_mark_the_second_one_is_the_beginning(left: int) -> None:
    guest, host = GuestResync(), HostResync(b"\xc1" * 16)
    guest.feed((b"\xc1" + b"s" * 16)[:left])
    for _ in range(2):
        host.feed(guest.feed(host.mark)[0])
    assert host.synced
    assert guest.feed(HELLO) == (b"", HELLO)
