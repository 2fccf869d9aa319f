"""Bad input for the proxies, each with the answer it must get. Said byte by byte by `egress_clients/talk.py` inside a sandbox.

Each is refused and logged, none reaches a server, none takes a connection of anybody else's down.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from msgspec import Struct

from tests.root.egress_room import connect_head, socks_request
from tests.root.servers import dns

INDEX = f"index.{dns.DOMAIN}"
BY_ALLOWLIST, BY_GUARD = b"X-Proxy-Error: blocked-by-allowlist\r\n", b"X-Proxy-Error: blocked-by-sandbox-runtime\r\n"
SOCKS_CHOSEN = b"\x05\x00"


class Attack(Struct, frozen=True, kw_only=True):
    """One connection. `answers` are the statuses (HTTP) or the replies (SOCKS, behind the method) that are right."""

    name: str
    pieces: tuple[bytes, ...]
    answers: tuple[int, ...] = (400,)
    mark: bytes = b""
    """What an HTTP answer must hold."""
    pause_s: float = 0.0
    socks: bool = False
    """Judged by the SOCKS reply."""
    cut: bool = False
    """The client ends its side in the middle: it may also be closed without an answer."""


def http(
    name: str, *pieces: bytes, status: int | tuple[int, ...] = 400, mark: bytes = b"", pause_s: float = 0
) -> Attack:
    answers = status if isinstance(status, tuple) else (status,)
    return Attack(name=name, pieces=pieces, answers=answers, mark=mark, pause_s=pause_s)


def socks(name: str, *pieces: bytes, replies: tuple[int, ...]) -> Attack:
    return Attack(name=name, pieces=pieces, answers=replies, socks=True)


# -- hosts the allowlist refuses, in every spelling ------------------------------------------------------------------

UNLISTED = (
    *(f"unlisted.{dns.DOMAIN}", f"UNLISTED.{dns.DOMAIN.upper()}", f"unlisted.{dns.DOMAIN}.", "198.51.100.9"),
    *(f"denied.{dns.DOMAIN}", f"DeNiEd.{dns.DOMAIN}", f"denied.{dns.DOMAIN}.", "deep.example.test", "example.test"),
    *(f"{INDEX}.evil.test", f"xn--index-.{dns.DOMAIN}", f"evil{INDEX}", "192.0.2.1", "3221225985", "0xc0000201"),
    *("0300.0.2.1", "192.0.513", "[::ffff:192.0.2.1]", "[2001:db8::9]", "single", f"_.{dns.DOMAIN}", "168.63.129.16"),
)
"""Refused by the allowlist: unlisted, or denied."""

SPELLINGS = (
    *("127.1", "127.0.1", "0x7f.1", "0x7f000001", "017700000001", "2130706433", "0177.0.0.1", "127.0.0.1."),
    *("[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::1]", "localhost", "LOCALHOST", "LocalHost."),
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "[::ffff:a9fe:a9fe]", "169.254.169.254"),
    *("0", "0.0.0.0", "0x0", "255.255.255.255", "4294967295", "224.0.0.1", "127.8.9.10", "10.2", "10.0.0.2"),
    *(dns.GUEST, f"[::ffff:{dns.GUEST}]", f"[{dns.GUEST6}]", "[fe80::1]", "[fd00:ec2::254]", "100.100.100.200"),
)
"""Addresses the allowlist of the lab lets pass, as people write them around filters: refused by the guard."""


def literal(host: str) -> tuple[bytes, int]:
    """An address as SOCKS carries it."""
    parsed = ipaddress.ip_address(host)
    return parsed.packed, 1 if parsed.version == 4 else 4


LITERALS = ("127.0.0.1", "169.254.169.254", dns.GUEST, "10.0.0.2", "0.0.0.0", "::1", "fd00:ec2::254", dns.GUEST6)


def hosts() -> Iterator[Attack]:
    for host in UNLISTED:
        yield http(f"CONNECT {host}", connect_head(host), status=403, mark=BY_ALLOWLIST)
        target = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        yield http(f"GET {host}", target, status=403, mark=BY_ALLOWLIST)
        if not host.startswith("["):
            yield socks(f"SOCKS {host}", socks_request(host.encode()), replies=(2,))
    for host in SPELLINGS:
        yield http(f"CONNECT {host}", connect_head(host, 80), status=403, mark=BY_GUARD)
        if not host.startswith("["):
            yield socks(f"SOCKS {host}", socks_request(host.encode(), 80), replies=(2,))
    for host in LITERALS:
        packed, kind = literal(host)
        yield socks(f"SOCKS literal {host}", socks_request(packed, 80, kind=kind), replies=(2,))
    for name in dns.BAD:
        host = f"{name}.{dns.DOMAIN}"
        yield http(f"CONNECT {host}", connect_head(host, 80), status=403, mark=BY_GUARD)
        yield http(
            f"GET {host}", f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), status=403, mark=BY_GUARD
        )
        yield socks(f"SOCKS {host}", socks_request(host.encode(), 80), replies=(2,))


# -- bytes that are no request ---------------------------------------------------------------------------------------

_GET = f"GET http://{INDEX}/hello HTTP/1.1\r\n".encode()
_HOST = f"Host: {INDEX}\r\n".encode()
_POST = f"POST http://{INDEX}/echo HTTP/1.1\r\n".encode() + _HOST


def bad_ports() -> Iterator[Attack]:
    for port in ("0", "65536", "99999", "-1", "abc", "", "0080", "80 ", "+80", "443443443443", "4_43"):
        yield http(f"port {port!r}", connect_head(INDEX, port))
    yield http("no port", f"CONNECT {INDEX} HTTP/1.1\r\nHost: {INDEX}\r\n\r\n".encode())
    yield socks("SOCKS port 0", socks_request(INDEX.encode(), 0), replies=(1, 2, 4, 5))


def bad_hosts() -> Iterator[Attack]:
    for host in (
        *("a\r\nX: y", "in\x00dex.example.test", "in\tdex.example.test", "in dex.example.test", "index.example.test\n"),
        *("", "user@index.example.test", "user:pass@index.example.test", "index.example.test#", "index.example.test?"),
        *("index.example.test/", "[::1", "::1", "[::1]]", "[index.example.test]", "[::1%lo]", "ind%65x.example.test"),
        *(
            "\xefndex.example.test",
            "index.example.test%00.evil.test",
            "index.example.test\\.evil.test",
            "a" * 256 + ".test",
        ),
    ):
        yield http(f"host {host[:40]!r}", connect_head(host), status=(400, 403))
    for raw in (
        b"",
        b"in\0dex.example.test",
        b"a\r\nb",
        b"index.example.test\0.evil.test",
        b"in dex",
        b"\xff\xfe",
        b"[::1]",
        b"a" * 255,
    ):
        yield socks(f"SOCKS host {raw[:30]!r}", socks_request(raw), replies=(1, 2, 4, 8))


def bad_heads() -> Iterator[Attack]:
    yield http("CL and TE", _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    yield http("two CL", _POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
    yield http("CL list", _POST + b"Content-Length: 5, 5\r\n\r\nhello")
    yield http("CL sign", _POST + b"Content-Length: +5\r\n\r\nhello")
    yield http("CL octal", _POST + b"Content-Length: 010\r\n\r\nhellohello")
    yield http("TE gzip", _POST + b"Transfer-Encoding: gzip\r\n\r\n", status=(400, 501))
    yield http("TE twice", _POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", status=(400, 501))
    yield http("TE with tab", _POST + b"Transfer-Encoding:\tchunked\x0b\r\n\r\n", status=(400, 501))
    yield http("two Hosts", _GET + _HOST + b"Host: evil.test\r\n\r\n")
    yield http("two equal Hosts", _GET + _HOST + _HOST + b"\r\n")
    yield http("no Host", _GET + b"Accept: */*\r\n\r\n")
    yield http("Host is not the target", _GET + b"Host: unlisted.example.test\r\n\r\n")
    yield http(
        "CONNECT's Host is not the target", f"CONNECT {INDEX}:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n".encode()
    )
    yield http("bare LF", _GET.replace(b"\r\n", b"\n") + _HOST + b"\r\n")
    yield http("bare CR", _GET + b"X: a\rb\r\n" + _HOST + b"\r\n")
    yield http("NUL in a field", _GET + _HOST + b"X: a\0b\r\n\r\n")
    yield http("folded", _GET + _HOST + b"X: a\r\n b\r\n\r\n")
    yield http("blank before colon", _GET + _HOST + b"X : a\r\n\r\n")
    yield http("field without colon", _GET + _HOST + b"nothing\r\n\r\n")
    yield http("leading blank", b" " + _GET + _HOST + b"\r\n")
    yield http("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=(400, 505))
    yield http("HTTP/2 version", _GET.replace(b"1.1", b"2.0") + _HOST + b"\r\n", status=(400, 505))
    yield http("HTTP/0.9", f"GET http://{INDEX}/\r\n\r\n".encode())
    yield http("origin-form", b"GET /hello HTTP/1.1\r\n" + _HOST + b"\r\n")
    yield http("asterisk-form", b"OPTIONS * HTTP/1.1\r\n" + _HOST + b"\r\n")
    yield http("ftp", f"GET ftp://{INDEX}/hello.txt HTTP/1.1\r\n".encode() + _HOST + b"\r\n", status=(400, 501))
    yield http(
        "https absolute", f"GET https://{INDEX}/hello HTTP/1.1\r\n".encode() + _HOST + b"\r\n", status=(400, 501)
    )
    yield http("file", b"GET file:///etc/passwd HTTP/1.1\r\n" + _HOST + b"\r\n", status=(400, 501))
    yield http("userinfo", f"GET http://a:b@{INDEX}/ HTTP/1.1\r\n".encode() + _HOST + b"\r\n")
    yield http("TLS", bytes.fromhex("16030100a5010000a10303") + bytes(160))
    yield http("17 KiB head", _GET + _HOST + b"X: " + b"a" * 17 * 1024 + b"\r\n\r\n", status=431)
    yield http("17 KiB without an end", _GET + b"X: " + b"a" * 17 * 1024, status=431)
    yield http("17 KiB of names", _GET + _HOST + b"a:\r\n" * 4352 + b"\r\n", status=431)
    yield http("300 fields", _GET + _HOST + b"a:\r\n" * 300 + b"\r\n", status=431)
    yield http("TRACE", b"TRACE" + _GET[3:] + _HOST + b"Max-Forwards: 0\r\n\r\n", status=501)
    yield http("17 KiB target", b"GET http://" + b"a" * 17 * 1024, status=(400, 414, 431))
    yield http(
        "unlisted in pieces", *_one_by_one(connect_head(f"unlisted.{dns.DOMAIN}")), status=403, mark=BY_ALLOWLIST
    )
    yield http(
        "smuggled behind CONNECT's refusal", connect_head(f"unlisted.{dns.DOMAIN}") + _GET + _HOST + b"\r\n", status=403
    )
    hidden = f"GET http://unlisted.{dns.DOMAIN}/ HTTP/1.1\r\nHost: {INDEX}\r\n\r\n".encode()
    yield http("target hidden behind Host", hidden)


CUT_SOCKS = {
    "in the methods": b"\x05\x05\x00",
    "behind the methods": b"\x05\x01\x00",
    "in the host": b"\x05\x01\x00\x05\x01\x00\x03\xffshort",
    "in an address": b"\x05\x01\x00\x05\x01\x00\x04\0\0",
    "in the port": b"\x05\x01\x00\x05\x01\x00\x03\x01a\x01",
}


def bad_socks() -> Iterator[Attack]:
    bind, udp = socks_request(INDEX.encode(), command=2), socks_request(INDEX.encode(), command=3)
    yield socks("BIND", bind, replies=(7,))
    yield socks("UDP ASSOCIATE", udp, replies=(7,))
    yield socks("command 0", socks_request(INDEX.encode(), command=0), replies=(7,))
    yield socks("address type 2", socks_request(b"xxxx", kind=2), replies=(8,))
    yield socks("reserved byte", b"\x05\x01\x00\x05\x01\xff\x03\x01a\x01\xbb", replies=(1, 2, 4))
    yield socks("version 4 in the request", b"\x05\x01\x00\x04\x01\x00\x03\x01a\x01\xbb", replies=(1, 7))
    for name, data in CUT_SOCKS.items():
        yield Attack(name=f"SOCKS cut {name}", pieces=(data,), answers=(1,), socks=True, cut=True)
    yield Attack(name="SOCKS without methods", pieces=(b"\x05\x00",), answers=(0xFF,), socks=True, cut=True)
    yield Attack(
        name="SOCKS with a foreign method only", pieces=(b"\x05\x01\x01",), answers=(0xFF,), socks=True, cut=True
    )
    socks4 = b"\x04\x01\x01\xbb\xc6\x33\x64\x02user\0"
    yield Attack(name="SOCKS4", pieces=(socks4,), answers=(0x5B,), socks=True)
    yield Attack(
        name="SOCKS4a", pieces=(b"\x04\x01\x01\xbb\0\0\0\x01\0" + INDEX.encode() + b"\0",), answers=(0x5B,), socks=True
    )
    yield socks("domain of no length", b"\x05\x01\x00\x05\x01\x00\x03\x00\x01\xbb", replies=(1, 2, 8))


def _one_by_one(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


ATTACKS = {
    attack.name: attack for made in (hosts(), bad_ports(), bad_hosts(), bad_heads(), bad_socks()) for attack in made
}
