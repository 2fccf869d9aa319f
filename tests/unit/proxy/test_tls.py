from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.proxy.tls import TlsEnd
from tests.unit.certificates import make, make_authority

ROOT = make_authority()
SERVER = make("server.example", by=ROOT, hosts=("server.example",)).server_context()


def client_context(pem: str = ROOT.pem) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    return context


def pair(name: str = "server.example", pem: str = ROOT.pem) -> tuple[TlsEnd, TlsEnd]:
    client = TlsEnd(client_context(pem), server_hostname=name)
    client.begin()
    return client, TlsEnd(SERVER)


def move(client: TlsEnd, server: TlsEnd) -> tuple[bytes, bytes]:
    """Until nothing is left; returns what the client and the server were told."""
    to_client, to_server = b"", b""
    while True:
        outgoing, incoming = client.outgoing(), server.outgoing()
        if not outgoing and not incoming:
            return to_client, to_server
        if outgoing:
            to_server += server.receive_data(outgoing)
        if incoming:
            to_client += client.receive_data(incoming)


def test_what_is_said_before_the_handshake_goes_behind_it() -> None:
    client, server = pair()
    client.send(b"early")
    assert client.kept_bytes == 5
    assert move(client, server) == (b"", b"early")
    assert client.kept_bytes == 0
    assert client.established
    assert server.established


def test_words_of_any_length_arrive_whole() -> None:
    client, server = pair()
    move(client, server)
    client.send(b"x" * 300_000)
    server.send(b"y" * 300_000)
    assert move(client, server) == (b"y" * 300_000, b"x" * 300_000)


def test_an_end_that_was_said_is_told_from_one_that_was_not() -> None:
    client, server = pair()
    move(client, server)
    client.end()
    move(client, server)
    assert (server.ended, server.torn) == (True, False)
    assert client.receive_data(b"") == b""
    assert (client.ended, client.torn) == (True, True)


def test_one_that_has_ended_still_hears() -> None:
    client, server = pair()
    move(client, server)
    client.end()
    move(client, server)
    server.send(b"still")
    assert move(client, server)[0] == b"still"


def test_a_certificate_nobody_vouches_for_fails_and_drops_what_waits() -> None:
    client, server = pair(pem=make_authority("Other").pem)
    client.send(b"secret")
    move(client, server)
    assert client.failed is not None
    assert client.failed.startswith("its certificate is not trusted: ")
    assert client.kept_bytes == 0
    assert server.failed == "it does not trust the certificate it was shown"


def test_a_name_that_tls_cannot_ask_for_fails() -> None:
    client = TlsEnd(client_context(), server_hostname=f"{'a' * 64}.example")
    client.begin()
    assert client.failed is not None
    client.send(b"x")
    client.end()
    assert client.receive_data(b"x") == b""
    assert client.outgoing() == b""


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it speaks plain HTTP where TLS is expected"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what it sends is not TLS"),
        (b"", "it closed the connection during the handshake"),
    ],
)
def test_what_is_no_tls_is_named(said: bytes, sentence: str) -> None:
    server = TlsEnd(SERVER)
    server.receive_data(said)
    assert server.failed == sentence


def test_nothing_is_taken_behind_the_end() -> None:
    client, server = pair()
    move(client, server)
    server.receive_data(b"")
    client.send(b"late")
    assert server.receive_data(client.outgoing()) == b""


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=4), st.booleans(), st.booleans())
def test_any_bytes_fail_or_wait(pieces: list[bytes], established: bool, at_client: bool) -> None:
    client, server = pair()
    if established:
        move(client, server)
    end = client if at_client else server
    for piece in pieces:
        assert end.receive_data(piece) == b""
    end.send(b"x")
    end.receive_data(b"")
    assert end.failed is not None or end.ended


@given(st.integers(0, 5000), st.integers(1, 255))
def test_a_changed_byte_of_a_record_is_noticed(at: int, change: int) -> None:
    client, server = pair()
    move(client, server)
    client.send(b"x" * 4000)
    record = bytearray(client.outgoing())
    record[at % len(record)] ^= change
    said = server.receive_data(bytes(record))
    server.receive_data(b"")
    assert said == b""
    assert server.failed is not None or server.torn
