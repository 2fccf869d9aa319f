from __future__ import annotations

import base64

import pytest

from coworkd.proxy.upstream import Handshake, HttpConnect, Socks5Client, compose_basic

OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
BEGAN = "the parent proxy did not open a way: "


def drive(handshake: Handshake, *answers: bytes, piece_bytes: int = 0) -> list[bytes]:
    """All that was sent: at first, and behind each answer. An empty answer is the end of file."""
    sent = [handshake.outgoing()]
    for answer in answers:
        step = piece_bytes or max(len(answer), 1)
        for at in range(0, max(len(answer), 1), step):
            handshake.receive_data(answer[at : at + step])
        sent.append(handshake.outgoing())
    return sent


# -- CONNECT ------------------------------------------------------------------------------------------------------


def test_connect_says_where_to() -> None:
    assert drive(HttpConnect("example.com", 443)) == [
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
    ]


def test_connect_to_ipv6_has_brackets() -> None:
    assert (
        HttpConnect("2001:db8::1", 22)
        .outgoing()
        .startswith(b"CONNECT [2001:db8::1]:22 HTTP/1.1\r\nHost: [2001:db8::1]:22\r\n")
    )


def test_the_host_is_told_the_session_and_a_parent_the_credentials() -> None:
    asked = HttpConnect("example.com", 443, session="build-1", authorization=compose_basic("me", "wörd:s")).outgoing()
    fields = asked.decode().split("\r\n")[2:4]
    assert fields[1] == "Cowork-Session: build-1"
    assert base64.b64decode(fields[0].removeprefix("Proxy-Authorization: Basic ")).decode() == "me:wörd:s"


@pytest.mark.parametrize("piece_bytes", [0, 1])
@pytest.mark.parametrize(
    "answer",
    [
        OPENED,
        b"HTTP/1.0 200\r\n\r\n",
        b"HTTP/1.1 204 \r\nVia: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OPENED,
    ],
)
def test_any_2xx_opens_and_what_is_behind_it_is_kept(answer: bytes, piece_bytes: int) -> None:
    handshake = HttpConnect("example.com", 443)
    assert drive(handshake, answer + b"\r\nSSH-2.0", b"-it", piece_bytes=piece_bytes)[1:] == [b"", b""]
    assert (handshake.done, handshake.failed, handshake.rest) == (True, None, b"\r\nSSH-2.0-it")


@pytest.mark.parametrize("piece_bytes", [0, 1])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n", "it answered 502 Bad Gateway"),
        (b"HTTP/1.1 503\r\n\r\n", "it answered 503"),
        (b"HTTP/1.1 302 \x1b\xff\r\nLocation: /\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 302 \xff\xffmoved\r\n\r\n", "it answered 302 moved"),
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "it asks for credentials, or does not take those it got (407)",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "it answered 101 to a CONNECT"),
        (b"HTTP/2 200 OK\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 099 OK\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nbad field\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\nA: b\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "its answer is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 16384, "the head of its answer has more than 16384 bytes"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 16384 + b"\r\n\r\n", "the head of its answer has more than 16384 bytes"),
        (b"HTTP/1.1 200 OK\r\n", "it closed the connection before it answered"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "it closed the connection before it answered"),
        (b"", "it closed the connection before it answered"),
    ],
)
def test_all_else_failed_and_says_why(answer: bytes, words: str, piece_bytes: int) -> None:
    handshake = HttpConnect("example.com", 443)
    drive(handshake, answer, b"", b"late" + OPENED, piece_bytes=piece_bytes)
    assert (handshake.done, handshake.failed, handshake.rest) == (False, BEGAN + words, b"")
    assert not handshake.refused_by_policy


def test_403_is_a_refusal_with_its_mark() -> None:
    handshake = HttpConnect("example.com", 443, session="s")
    drive(handshake, b"HTTP/1.1 403 Forbidden\r\nx-proxy-error:  blocked-by-allowlist \r\nA: b\r\n\r\n")
    assert (handshake.refused_by_policy, handshake.status, handshake.mark) == (True, 403, "blocked-by-allowlist")
    assert handshake.failed == BEGAN + "it answered 403 Forbidden"


def test_a_refusal_without_a_mark() -> None:
    handshake = HttpConnect("example.com", 443)
    drive(handshake, b"HTTP/1.1 403 Forbidden\r\nNot-X-Proxy-Error: a\r\n\r\n")
    assert (handshake.refused_by_policy, handshake.mark) == (True, None)


@pytest.mark.parametrize(
    ("host", "port"), [("exa\r\nmple.com", 443), ("", 443), ("a b", 443), ("a", 0), ("a", 65536), ("é", 1)]
)
def test_what_cannot_be_said_is_not(host: str, port: int) -> None:
    with pytest.raises(ValueError, match="not a canonical host"):
        HttpConnect(host, port)
    with pytest.raises(ValueError, match="not a canonical host"):
        Socks5Client(host, port)


@pytest.mark.parametrize("words", ["", "a\r\nB: c", "é", "a\0"])
def test_fields_cannot_be_smuggled_in(words: str) -> None:
    with pytest.raises(ValueError, match="credentials"):
        HttpConnect("example.com", 443, authorization=words)
    with pytest.raises(ValueError, match="session name"):
        HttpConnect("example.com", 443, session=words)


# -- SOCKS5 -------------------------------------------------------------------------------------------------------

REPLY = b"\x05\x00\x00\x01" + bytes(6)


@pytest.mark.parametrize("piece_bytes", [0, 1])
@pytest.mark.parametrize(
    "reply",
    [REPLY, b"\x05\x00\x00\x04" + bytes(18), b"\x05\x00\x00\x03\x03abc\x00\x50", b"\x05\x00\x00\x03\x00\x00\x50"],
)
def test_socks_resolves_there_and_keeps_what_is_behind(reply: bytes, piece_bytes: int) -> None:
    handshake = Socks5Client("example.com", 443)
    sent = drive(handshake, b"\x05\x00", reply + b"SSH-2.0", piece_bytes=piece_bytes)
    assert sent == [b"\x05\x01\x00", b"\x05\x01\x00\x03\x0bexample.com\x01\xbb", b""]
    assert (handshake.done, handshake.failed, handshake.rest, handshake.reply) == (True, None, b"SSH-2.0", 0)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("198.51.100.1", b"\x01\xc6\x33\x64\x01"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
        ("127.1", b"\x03\x05127.1"),
    ],
)
def test_socks_literals_go_as_addresses(host: str, address: bytes) -> None:
    assert drive(Socks5Client(host, 80), b"\x05\x00")[1] == b"\x05\x01\x00" + address + b"\x00\x50"


def test_socks_gives_credentials_where_they_are_asked_for() -> None:
    handshake = Socks5Client("a.example", 80, username="me", password="wörd")
    sent = drive(handshake, b"\x05\x02", b"\x01\x00", REPLY)
    assert sent[:2] == [b"\x05\x02\x00\x02", b"\x01\x02me\x05w\xc3\xb6rd"]
    assert sent[2].startswith(b"\x05\x01\x00\x03")
    assert handshake.done
    handshake = Socks5Client("a.example", 80, username="me")
    assert drive(handshake, b"\x05\x00", REPLY)[1].startswith(b"\x05\x01\x00\x03")
    assert handshake.done


@pytest.mark.parametrize("piece_bytes", [0, 1])
@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((b"\x04\x5a",), "its answer is not SOCKS5"),
        ((b"HTTP/1.1 400",), "its answer is not SOCKS5"),
        ((b"\x05\xff",), "it asks for credentials that we have none of"),
        ((b"\x05\x02",), "it asks for credentials that we have none of"),
        ((b"\x05\x01",), "it chose an unknown method"),
        ((b"\x05\x00", b"\x05\x02\x00\x01" + bytes(6)), "its rules do not allow it"),
        ((b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)), "the connection was refused"),
        ((b"\x05\x00", b"\x05\x63"), "reply 99"),
        ((b"\x05\x00", b"\x04\x00\x00\x01" + bytes(6)), "its reply is not SOCKS5"),
        ((b"\x05\x00", b"\x05\x00\x01\x01" + bytes(6)), "its reply is malformed"),
        ((b"\x05\x00", b"\x05\x00\x00\x02" + bytes(6)), "its reply is malformed"),
        ((b"\x05\x00", REPLY[:-1]), "it closed the connection before it answered"),
        ((b"\x05",), "it closed the connection before it answered"),
        ((), "it closed the connection before it answered"),
    ],
)
def test_socks_failures_say_why(answers: tuple[bytes, ...], words: str, piece_bytes: int) -> None:
    handshake = Socks5Client("example.com", 443)
    drive(handshake, *answers, b"", REPLY, piece_bytes=piece_bytes)
    assert (handshake.done, handshake.failed, handshake.rest) == (False, BEGAN + words, b"")
    assert handshake.refused_by_policy == (words == "its rules do not allow it")


def test_socks_credentials_may_be_refused() -> None:
    handshake = Socks5Client("example.com", 443, username="me", password="x")
    assert drive(handshake, b"\x05\x02", b"\x01\x01")[2] == b""
    assert handshake.failed == BEGAN + "it does not take the user name and password"


@pytest.mark.parametrize(("username", "password"), [("", "x"), ("u" * 256, "x"), ("u", "x" * 256)])
def test_socks_credentials_have_their_sizes(username: str, password: str) -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        Socks5Client("example.com", 443, username=username, password=password)
