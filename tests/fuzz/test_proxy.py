"""Any bytes of clients, servers and parents give events and never an exception; any cutting gives the same; nothing is smuggled."""

from __future__ import annotations

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coworkd.proxy.events import Asked, Ended, Event, NeedData, Route, Send, SendUpstream, Tunnelled, UpstreamDone
from coworkd.proxy.front import Front
from coworkd.proxy.http_head import HeadError, parse_request
from coworkd.proxy.upstream import HttpConnect, Socks5Client

LINES = st.sampled_from(
    [
        b"GET http://example.com/ HTTP/1.1",
        b"POST http://other.example:8080/p?q HTTP/1.1",
        b"POST http://example.com/ HTTP/1.0",
        b"HEAD http://example.com HTTP/1.1",
        b"GET http://[2001:db8::1]/ HTTP/1.1",
        b"CONNECT example.com:443 HTTP/1.1",
        b"GET /inner HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"SM",
        b"Host: example.com",
        b"Host: other.example:8080",
        b"Host: [2001:db8::1]",
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Content-Length: 40",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding : chunked",
        b"transfer-encoding: gzip",
        b" folded",
        b"Connection: close",
        b"Connection: Upgrade, X-One",
        b"Upgrade: websocket",
        b"X-One: 1",
        b"Proxy-Connection: keep-alive",
        b"Expect: 100-continue",
        b"",
        b"",
        b"5",
        b"0",
        b"5;a=b",
        b"hello",
        b"X-Trailer: 1",
    ]
)
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b""])
NOISE = st.binary(max_size=12)
TYPED = st.lists(st.tuples(LINES, ENDS).map(b"".join) | NOISE, max_size=14).map(b"".join)

METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS"])
HOSTS = st.sampled_from([b"example.com", b"other.example", b"[2001:db8::1]"])
BODIES = st.binary(max_size=40)


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    host, body = draw(HOSTS), draw(BODIES)
    head = b"%b http://%b/%b HTTP/1.1\r\nHost: %b\r\n" % (
        draw(METHODS),
        host,
        draw(st.sampled_from([b"", b"a", b"?q"])),
        host,
    )
    head += b"".join(
        draw(st.lists(st.sampled_from([b"X-One: 1\r\n", b"Connection: X-One\r\n", b"TE: trailers\r\n"]), max_size=2))
    )
    if draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    chunk = b"%x;x=y\r\n%b\r\n" % (len(body), body) if body else b""
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\nX-Trailer: 1\r\n\r\n"


SOCKS = st.builds(
    lambda methods, command, address, port, rest: (
        b"\x05%c%b\x05%c\x00%b%b%b" % (len(methods), methods, command, address, port, rest)
    ),
    st.binary(max_size=3),
    st.integers(0, 4),
    st.sampled_from([b"\x01\x01\x02\x03\x04", b"\x03\x0bexample.com", b"\x03\x00", b"\x04" + bytes(16), b"\x02"]),
    st.sampled_from([b"\x00\x50", b"\x00\x00"]),
    NOISE,
)
CLIENTS = (
    st.lists(good_requests() | TYPED, max_size=4).map(b"".join)
    | SOCKS
    | st.binary(max_size=80)
    | st.binary(max_size=40).map(lambda data: b"\x05\x01\x00" + data)
)
SERVERS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: 1\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nto the end",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x01x",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut",
        b"nonsense\r\n\r\n",
        b"",
    ]
) | st.binary(max_size=60)
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=20)

modestly = settings(max_examples=150, deadline=None)


class Play:
    """A caller that grants all, answers each request with the next of `servers` in pieces, and keeps what was told."""

    def __init__(self, servers: list[bytes], sizes: list[int]) -> None:
        self.front = Front()
        self.servers = servers
        self.sizes = sizes
        self.told: list[Event] = []
        self.asked: list[Asked] = []
        self.forwarded: list[bytes] = []
        self.raw_up = b""
        self.raw_down = b""
        self._serving = False

    def run(self, data: bytes) -> Play:
        """All the client says comes before any server answers: what a server of ours did not wait for is another test's."""
        for piece in cut(data, self.sizes):
            if self.front.phase not in ("tunnel", "ended"):
                self.front.receive_data(piece)
                self._act()
            elif self.front.phase == "tunnel":
                self.raw_up += piece
        if self.front.phase not in ("tunnel", "ended"):
            self.front.receive_data(b"")
            self._act()
        turns = 0
        while self.front.phase == "exchange":
            self._serve(self.servers[turns % len(self.servers)] if self.servers else b"")
            turns += 1
        if self.front.phase == "tunnel":
            self.raw_up = self.front.rest + self.raw_up
        return self

    def _serve(self, answer: bytes) -> None:
        self._serving = True
        for piece in [*cut(answer, self.sizes), b""]:
            if self._serving and self.front.phase == "exchange":
                self.front.receive_upstream(piece)
                self._act()
            elif self.front.phase == "tunnel":
                self.raw_down += piece

    def _act(self) -> None:
        while not isinstance(event := self.front.next_event(), NeedData):
            self.told.append(event)
            if isinstance(event, Asked):
                self.asked.append(event)
                if not event.tunnel:
                    self.forwarded.append(b"")
                self.front.grant(Route())
            elif isinstance(event, SendUpstream):
                self.forwarded[-1] += event.data
            elif isinstance(event, UpstreamDone):
                self._serving = False

    def digest(self) -> list[str]:
        """What was told, with the bytes of each stream joined: pieces of a body are framed as they come."""
        made: list[str] = []
        for event in self.told:
            made.append(type(event).__name__ if isinstance(event, (Send, SendUpstream)) else repr(event))
            if len(made) > 1 and made[-1] == made[-2]:
                made.pop()
        return [*made, self.front.phase]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@modestly
@given(CLIENTS, st.lists(SERVERS, max_size=4), CUTS)
@example(b"\r\n\r\n", [], [1])
@example(b"\x04", [], [1])
def test_any_bytes_give_events_and_an_end_that_is_the_last(data: bytes, servers: list[bytes], sizes: list[int]) -> None:
    told = Play(servers, sizes).run(data).told
    assert all(not isinstance(event, Ended) for event in told[:-1])
    assert all(event.data for event in told if isinstance(event, (Send, SendUpstream)))
    assert isinstance(told[-1], Ended) or any(isinstance(event, Tunnelled) for event in told)


@modestly
@given(CLIENTS, CUTS)
@example(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\n\r\n", [1])
@example(b"\x16\x03\x01", [1])
def test_any_cutting_gives_the_same_requests(data: bytes, sizes: list[int]) -> None:
    whole, pieces = Play([], [1 << 20]).run(data), Play([], sizes).run(data)
    assert pieces.asked == whole.asked
    assert [parse_forwarded(each) for each in pieces.forwarded] == [parse_forwarded(each) for each in whole.forwarded]
    if not whole.forwarded:
        # Of tunnels and refusals every byte is the same; where requests are forwarded, a tunnel's begin is in step with the answers.
        assert joined(pieces.told) == joined(whole.told)
    assert kinds(pieces) == kinds(whole)
    assert pieces.raw_up == whole.raw_up


def kinds(play: Play) -> list[str]:
    return [repr(event) for event in play.told if not isinstance(event, (Send, SendUpstream))]


def joined(told: list[Event]) -> bytes:
    return b"".join(event.data for event in told if isinstance(event, Send))


@modestly
@given(SERVERS, CUTS)
def test_any_cutting_of_an_answer_gives_the_same(answer: bytes, sizes: list[int]) -> None:
    request = (
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    whole, pieces = Play([answer], [1 << 20]).run(request), Play([answer], sizes).run(request)
    assert pieces.digest() == whole.digest()
    assert parse_answer(joined(pieces.told) + pieces.raw_down) == parse_answer(joined(whole.told) + whole.raw_down)


def parse_answer(data: bytes) -> tuple[list[int], bytes, bool]:
    """As the client reads it: statuses, the body or what is raw, whether it is whole."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Upgrade", "websocket")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    statuses, body = [], b""
    while not isinstance(event := client.next_event(), type):
        if isinstance(event, (h11.InformationalResponse, h11.Response)):
            statuses.append(event.status_code)
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            break
    return statuses, body + client.trailing_data[0], isinstance(event, h11.EndOfMessage)


def parse_forwarded(data: bytes) -> tuple[bytes, bytes, bytes, bytes, bool]:
    """As a server reads it: method, target, Host, body, whether it is whole. Nothing may be behind it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    request = server.next_event()
    assert isinstance(request, h11.Request), data
    fields = dict(request.headers)
    assert len([name for name, _ in request.headers if name == b"host"]) == 1
    assert fields[b"connection"] in (b"close", b"Upgrade")
    assert not any(name.startswith(b"proxy-") or name in (b"te", b"keep-alive") for name in fields)
    assert not {b"content-length", b"transfer-encoding"} <= set(fields)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert server.trailing_data[0] == b"" or not isinstance(event, h11.EndOfMessage)
    return request.method, request.target, fields[b"host"], body, isinstance(event, h11.EndOfMessage)


@settings(max_examples=300, deadline=None)
@given(st.lists(good_requests() | TYPED, min_size=1, max_size=4).map(b"".join), st.lists(SERVERS, max_size=4), CUTS)
def test_one_request_goes_where_it_was_asked_for_and_nothing_behind_it(
    data: bytes, servers: list[bytes], sizes: list[int]
) -> None:
    play = Play(servers, sizes).run(data)
    plain = [asked for asked in play.asked if not asked.tunnel]
    assert len(plain) == len(play.forwarded)
    for asked, forwarded in zip(plain, play.forwarded, strict=True):
        _, target, host, _, _ = parse_forwarded(forwarded)
        authority = f"[{asked.host}]" if ":" in asked.host else asked.host
        assert host.decode() == (authority if asked.port == 80 else f"{authority}:{asked.port}")
        assert target.startswith(b"/") or target == b"*"


@modestly
@given(st.lists(good_requests(), min_size=1, max_size=4), CUTS)
def test_good_requests_arrive_as_they_were_meant(requests: list[bytes], sizes: list[int]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    play = Play([answer], sizes).run(b"".join(requests))
    assert len(play.forwarded) == len(requests)
    for request, forwarded in zip(requests, play.forwarded, strict=True):
        method, _, host, body, whole = parse_forwarded(forwarded)
        meant = parse_forwarded_client(request)
        assert (method, host, body, whole) == (*meant, True)
    assert joined(play.told).count(b"HTTP/1.1 200 OK\r\n") == len(requests)


def parse_forwarded_client(data: bytes) -> tuple[bytes, bytes, bytes]:
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    return request.method, dict(request.headers)[b"host"], body


@modestly
@given(TYPED)
def test_any_head_is_parsed_or_refused_in_words(head: bytes) -> None:
    try:
        parsed = parse_request(head)
    except HeadError as error:
        said, status = error.reason, error.status
    else:
        said, status = parsed.host, 400
        assert 1 <= parsed.port <= 65535
    assert said.isascii()
    assert said.isprintable()
    assert status in (400, 501, 505)


ANSWERS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n\r\nrest",
        b"HTTP/1.1 403 No\r\nX-Proxy-Error: a\r\n\r\n",
        b"\x05\x00\x05\x00\x00\x01" + bytes(6),
    ]
)


@modestly
@given(
    st.binary(max_size=60) | ANSWERS | st.binary(max_size=40).map(lambda data: b"\x05\x00" + data), CUTS, st.booleans()
)
def test_handshakes_come_to_one_end_whatever_the_cutting(answer: bytes, sizes: list[int], http: bool) -> None:
    ends = []
    for each in ([1 << 20], sizes):
        handshake = (
            HttpConnect("example.com", 443) if http else Socks5Client("example.com", 443, username="me", password="x")
        )
        sent = handshake.outgoing()
        for piece in [*cut(answer, each), b""]:
            handshake.receive_data(piece)
            sent += handshake.outgoing()
        ends.append((handshake.done, handshake.failed, handshake.refused_by_policy, handshake.rest, sent))
    assert ends[0] == ends[1]
    assert ends[0][0] != (ends[0][1] is not None)
