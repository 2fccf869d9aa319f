from __future__ import annotations

import pytest

from coworkd.proxy.http_head import HeadBuffer, HeadError, RequestHead, list_options, parse_request

LIMIT = 16384


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def connect(target: str, *fields: str, host: str | None = None) -> bytes:
    return head(f"CONNECT {target} HTTP/1.1", f"Host: {host or target}", *fields)


def get(target: str, *fields: str, host: str = "example.com") -> bytes:
    return head(f"GET {target} HTTP/1.1", f"Host: {host}", *fields)


def take(data: bytes, *, piece_bytes: int = 0, limit_bytes: int = LIMIT) -> bytes | None:
    buffer = HeadBuffer(limit_bytes)
    step = piece_bytes or len(data)
    for at in range(0, len(data), step):
        buffer.feed(data[at : at + step])
        found = buffer.take_head()
        if found is not None:
            return found
    return None


def parse(data: bytes, piece_bytes: int = 0) -> RequestHead:
    found = take(data, piece_bytes=piece_bytes)
    assert found is not None
    return parse_request(found)


# -- what is taken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("example.com:443", "example.com", 443),
        ("EXAMPLE.com:65535", "EXAMPLE.com", 65535),
        ("example.com.:1", "example.com.", 1),
        ("127.1:80", "127.1", 80),
        ("0x7f000001:80", "0x7f000001", 80),
        ("[2001:db8::1]:22", "2001:db8::1", 22),
        ("[::ffff:127.0.0.1]:22", "::ffff:127.0.0.1", 22),
        ("ex%61mple.com:443", "ex%61mple.com", 443),
        ("a" * 255 + ":443", "a" * 255, 443),
    ],
)
def test_connect_names_host_and_port_as_written(target: str, host: str, port: int) -> None:
    parsed = parse(connect(target))
    assert (parsed.connect, parsed.host, parsed.port, parsed.path) == (True, host, port, b"")


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "http://example.com/a?b=c", ("example.com", 80, b"/a?b=c")),
        ("GET", "HTTP://example.com", ("example.com", 80, b"/")),
        ("GET", "http://example.com?b=/@:", ("example.com", 80, b"/?b=/@:")),
        ("GET", "http://example.com:8080/", ("example.com", 8080, b"/")),
        ("GET", "http://example.com//../%2e%2e", ("example.com", 80, b"//../%2e%2e")),
        ("OPTIONS", "http://example.com", ("example.com", 80, b"*")),
        ("OPTIONS", "http://example.com/", ("example.com", 80, b"/")),
        ("M-SEARCH", "http://example.com/", ("example.com", 80, b"/")),
    ],
)
def test_whole_urls_are_taken_apart(method: str, target: str, expected: tuple[str, int, bytes]) -> None:
    parsed = parse(head(f"{method} {target} HTTP/1.1", "Host: example.com"))
    assert (parsed.host, parsed.port, parsed.path) == expected
    assert not parsed.connect


def test_ipv6_urls_lose_their_brackets() -> None:
    parsed = parse(get("http://[2001:db8::1]:8080/x", host="[2001:db8::1]:8080"))
    assert (parsed.host, parsed.port, parsed.path) == ("2001:db8::1", 8080, b"/x")


@pytest.mark.parametrize("host", ["example.com", "EXAMPLE.COM", "example.com.", "example.com:8080"])
def test_host_may_be_spelled_otherwise_and_lack_the_port(host: str) -> None:
    assert parse(get("http://example.com:8080/", host=host)).port == 8080


def test_clients_of_http_1_0_need_no_host() -> None:
    parsed = parse(head("CONNECT example.com:22 HTTP/1.0"))
    assert (parsed.host, parsed.minor) == ("example.com", 0)


def test_fields_are_kept_in_order_without_the_blanks_around_them() -> None:
    parsed = parse(get("http://example.com/", "A:1", "B: \t two  words\t ", "a:", "C: caf\xe9\t!"))
    assert parsed.fields[1:] == ((b"A", b"1"), (b"B", b"two  words"), (b"a", b""), (b"C", b"caf\xe9\t!"))


def test_a_head_may_have_256_fields() -> None:
    assert len(parse(get("http://example.com/", *["A:"] * 255)).fields) == 256


def test_options_of_connection_are_gathered() -> None:
    parsed = parse(get("http://example.com/", "Connection: X-One, ,UPGRADE", "connection:close"))
    assert parsed.connection == {b"x-one", b"upgrade", b"close"}
    assert list_options([]) == frozenset()


def test_connect_may_say_that_it_has_no_body() -> None:
    assert parse(connect("example.com:443", "Content-Length: 0")).port == 443


# -- what is not --------------------------------------------------------------------------------------------------

BAD_HEADS = [
    # targets
    (head("CONNECT example.com HTTP/1.1", "Host: example.com"), 400, "HOST:PORT"),
    (connect("example.com:"), 400, "HOST:PORT"),
    (connect("example.com:0"), 400, "1 to 65535"),
    (connect("example.com:65536"), 400, "1 to 65535"),
    (connect("example.com:99999999"), 400, "1 to 65535"),
    (connect("example.com:080"), 400, "1 to 65535"),
    (connect("example.com:+80"), 400, "1 to 65535"),
    (connect("example.com:80x"), 400, "1 to 65535"),
    (connect(":443"), 400, "HOST:PORT"),
    (connect("2001:db8::1:443"), 400, "IPv6 in brackets"),
    (connect("[2001:db8::1:443"), 400, "IPv6 in brackets"),
    (connect("[fe80::1%25eth0]:443"), 400, "IPv6 in brackets"),
    (connect("[]:443"), 400, "IPv6 in brackets"),
    (connect("[example.com]:443"), 400, "IPv6 in brackets"),
    (connect("user@example.com:443"), 400, "HOST:PORT"),
    (connect("http://example.com:443"), 400, "HOST:PORT"),
    (connect("example.com:443/path"), 400, "HOST:PORT"),
    (connect("a" * 256 + ":443"), 400, "HOST:PORT"),
    (connect("*"), 400, "HOST:PORT"),
    (connect("exam\\ple.com:443"), 400, "HOST:PORT"),
    (get("/path"), 400, "not a server"),
    (head("OPTIONS * HTTP/1.1", "Host: example.com"), 400, "not a server"),
    (get("example.com:80"), 400, "only a CONNECT"),
    (get("http:/example.com/"), 400, "only a CONNECT"),
    (get("https://example.com/"), 400, "CONNECT HOST:443"),
    (get("ftp://example.com/file"), 501, "only http://"),
    (get("ws://example.com/"), 501, "only http://"),
    (get("http://user:word@example.com/"), 400, "user name"),
    (get("http://example.com\\@elsewhere.example/"), 400, "user name"),
    (get("http://example.com\\.elsewhere.example/"), 400, "malformed"),
    (get("http://example.com:/"), 400, "malformed"),
    (get("http://example.com:0/"), 400, "malformed"),
    (get("http://example.com:65536/"), 400, "malformed"),
    (get("http:///path"), 400, "malformed"),
    (get("http://[::1/"), 400, "malformed"),
    (get("http://2001:db8::1/"), 400, "malformed"),
    (get("http://example.com/#part"), 400, "fragment"),
    (get("http://example.com#@elsewhere.example/"), 400, "fragment"),
    # request lines
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
    (head("PRI http://example.com/ HTTP/1.1", "Host: example.com"), 400, "HTTP/2"),
    (head("connect example.com:443 HTTP/1.1", "Host: example.com"), 400, "CONNECT"),
    (head("GET http://example.com/ HTTP/1.2", "Host: example.com"), 505, "HTTP/1.1"),
    (head("GET http://example.com/ HTTP/0.9", "Host: example.com"), 505, "HTTP/1.1"),
    (head("GET http://example.com/"), 400, "request line"),
    (head("GET  http://example.com/ HTTP/1.1"), 400, "request line"),
    (head("GET http://example.com/ HTTP/1.1 "), 400, "request line"),
    (head("GET http://example.com/a b HTTP/1.1"), 400, "request line"),
    (head("GET\thttp://example.com/ HTTP/1.1"), 400, "request line"),
    (head("GET http://exam\0ple.com/ HTTP/1.1"), 400, "request line"),
    (head("GET http://exam\rple.com/ HTTP/1.1"), 400, "request line"),
    (head("CONNECT exam\r\nple.com:443 HTTP/1.1"), 400, "request line"),
    (head("CONNECT caf\xe9.example:443 HTTP/1.1"), 400, "request line"),
    (head("GET http://example.com/ http/1.1"), 400, "request line"),
    (head("G(T http://example.com/ HTTP/1.1"), 400, "request line"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not in TLS"),
    (b"\x00\x01\x02", 400, "neither HTTP nor SOCKS5"),
    (b" GET http://example.com/ HTTP/1.1\r\n", 400, "neither HTTP nor SOCKS5"),
    (b"\rGET http://example.com/ HTTP/1.1\r\n", 400, "neither HTTP nor SOCKS5"),
    # lines
    (b"GET http://example.com/ HTTP/1.1\nHost: example.com\n\n", 400, "LF without CR"),
    (b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\n\r\n", 400, "LF without CR"),
    (b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\n", 400, "LF without CR"),
    (get("http://example.com/", "A: 1", " 2"), 400, "folded"),
    (get("http://example.com/", "A: 1", "\t2"), 400, "folded"),
    (get("http://example.com/", "A : 1"), 400, "NAME: VALUE"),
    (get("http://example.com/", ": 1"), 400, "NAME: VALUE"),
    (get("http://example.com/", "no colon"), 400, "NAME: VALUE"),
    (get("http://example.com/", "A\0: 1"), 400, "NAME: VALUE"),
    (get("http://example.com/", "A: \0"), 400, "NAME: VALUE"),
    (get("http://example.com/", "A: 1\rB: 2"), 400, "NAME: VALUE"),
    (get("http://example.com/", "A: \x1b[0m"), 400, "NAME: VALUE"),
    (get("http://example.com/", "A: \x7f"), 400, "NAME: VALUE"),
    # Host
    (head("GET http://example.com/ HTTP/1.1"), 400, "has a Host field"),
    (head("CONNECT example.com:443 HTTP/1.1"), 400, "has a Host field"),
    (get("http://example.com/", "host: example.com"), 400, "more than one Host"),
    (head("GET http://example.com/ HTTP/1.0", "Host: example.com", "Host: x.example"), 400, "more than one Host"),
    (get("http://example.com/", host="elsewhere.example"), 400, "another host"),
    (get("http://example.com/", host="example.com:81"), 400, "another host"),
    (connect("example.com:443", host="elsewhere.example:443"), 400, "another host"),
    (connect("example.com:443", host="example.com:80"), 400, "another host"),
    (get("http://example.com/", host="example.com, elsewhere.example"), 400, "not HOST"),
    (get("http://example.com/", host="example.com elsewhere.example"), 400, "not HOST"),
    (get("http://example.com/", host="example.com:080"), 400, "not HOST"),
    (head("GET http://example.com/ HTTP/1.1", "Host:"), 400, "not HOST"),
    (head("TRACE http://example.com/ HTTP/1.1", "Host: example.com", "Max-Forwards: 0"), 501, "TRACE is not forwarded"),
    (head("Trace http://example.com/ HTTP/1.1", "Host: example.com"), 501, "TRACE is not forwarded"),
    # framing
    (get("http://example.com/", "Content-Length: 3", "Transfer-Encoding: chunked"), 400, "both Content-Length"),
    (get("http://example.com/", "Transfer-Encoding: chunked", "content-length: 0"), 400, "both Content-Length"),
    (get("http://example.com/", "Content-Length: 3", "Content-Length: 3"), 400, "twice"),
    (get("http://example.com/", "Content-Length: 3, 3"), 400, "not a number"),
    (get("http://example.com/", "Content-Length: +3"), 400, "not a number"),
    (get("http://example.com/", "Content-Length: -1"), 400, "not a number"),
    (get("http://example.com/", "Content-Length: 0x3"), 400, "not a number"),
    (get("http://example.com/", "Content-Length:"), 400, "not a number"),
    (get("http://example.com/", "Content-Length: " + "9" * 19), 400, "not a number"),
    (get("http://example.com/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400, "twice"),
    (get("http://example.com/", "Transfer-Encoding: gzip, chunked"), 501, "chunked"),
    (get("http://example.com/", "Transfer-Encoding: chunked, identity"), 501, "chunked"),
    (get("http://example.com/", "Transfer-Encoding: \x0bchunked"), 400, "NAME: VALUE"),
    (get("http://example.com/", "Transfer-Encoding:"), 501, "chunked"),
    (head("POST http://example.com/ HTTP/1.0", "Transfer-Encoding: chunked"), 400, "HTTP/1.0"),
    (connect("example.com:443", "Content-Length: 5"), 400, "no body"),
    (connect("example.com:443", "Transfer-Encoding: chunked"), 400, "no body"),
    (get("http://example.com/", "Content-Length: 3", "Connection: content-length"), 400, "Connection names"),
    (get("http://example.com/", "Connection: close, Host"), 400, "Connection names"),
    (get("http://example.com/", "Connection: transfer-encoding"), 400, "Connection names"),
    # size
    (get("http://example.com/", "A: " + "a" * 17 * 1024), 431, "16384 bytes"),
    (get("http://example.com/", *["A:"] * 256), 431, "256 fields"),
    (get("http://example.com/", "Content-Length: 010"), 400, "leading zeros"),
    (b"GET http://example.com/" + b"a" * LIMIT, 431, "16384 bytes"),
]


@pytest.mark.parametrize("piece_bytes", [0, 1, 7])
@pytest.mark.parametrize(("data", "status", "word"), BAD_HEADS)
def test_bad_heads_are_refused_with_a_sentence(data: bytes, status: int, word: str, piece_bytes: int) -> None:
    with pytest.raises(HeadError) as caught:
        parse(data, piece_bytes)
    assert caught.value.status == status
    assert word in caught.value.reason
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("piece_bytes", [0, 1, 1000])
@pytest.mark.parametrize("over", [0, 1])
def test_a_head_may_have_its_limit_and_not_a_byte_more(over: int, piece_bytes: int) -> None:
    start = get("http://example.com/", "A: ")
    data = start.replace(b"A: ", b"A: " + b"a" * (LIMIT + over - len(start)))
    assert len(data) == LIMIT + over
    if over:
        with pytest.raises(HeadError, match="more than 16384"):
            take(data, piece_bytes=piece_bytes)
    else:
        assert take(data, piece_bytes=piece_bytes) == data


def test_a_bad_line_is_told_before_the_head_has_an_end() -> None:
    buffer = HeadBuffer(LIMIT)
    buffer.feed(b"USER anonymous\r\n")
    with pytest.raises(HeadError, match="request line"):
        buffer.take_head()


def test_a_long_run_of_blanks_that_ends_badly_takes_no_long_time() -> None:
    """A pattern that tried every cutting of the blanks would take minutes."""
    data = get("http://example.com/", "A:" + " " * 16000 + "\0")
    with pytest.raises(HeadError, match="NAME: VALUE"):
        parse_request(data)


# -- the buffer ---------------------------------------------------------------------------------------------------


def test_what_is_behind_a_head_is_kept_and_the_next_found() -> None:
    one, two = get("http://example.com/1"), get("http://example.com/2")
    buffer = HeadBuffer(LIMIT)
    buffer.feed(one + two + b"rest")
    assert [buffer.take_head(), buffer.take_head()] == [one, two]
    assert (len(buffer), buffer.peek(), buffer.take_all(), len(buffer)) == (4, b"rest", b"rest", 0)


def test_empty_lines_before_a_request_are_skipped() -> None:
    request = get("http://example.com/")
    assert take(b"\r\n\r\n" + request) == request
    assert take(b"\r\n\r\n" + request, piece_bytes=1) == request


def test_an_empty_buffer_has_no_head() -> None:
    buffer = HeadBuffer(LIMIT)
    assert buffer.take_head() is None
    buffer.feed(b"\r")
    assert buffer.take_head() is None
