"""The HTTP of the health port: what is a request, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.services.health_http import HEAD_BYTES, Answer, RequestReader, compose, refuse


def asked(data: bytes) -> str | Answer | None:
    return RequestReader().feed(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /live HTTP/1.1\r\nhost:  127.0.0.1:80 \r\nUser-Agent: kube-probe/1.30\r\nAccept: */*\r\n\r\n",
        b"GET /live HTTP/1.0\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: [::1]:5008\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        b"\r\n\r\nGET /live HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_path_is_asked_for(data: bytes) -> None:
    assert asked(data) == "/live"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /live HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"get /live HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /live HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET /live HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET http://x/live HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /live?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /%6cive HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"\x94\x00\x01\xa5hello", 400),
        (b"GET /" + b"a" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000, 431),
    ],
)
def test_all_else_is_refused(data: bytes, status: int) -> None:
    answer = asked(data)
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert answer.body.endswith(b"\n")


def test_a_head_that_is_not_whole_is_waited_for() -> None:
    reader = RequestReader()
    assert [reader.feed(bytes([byte])) for byte in b"GET /x HTTP/1.0\r\n\r\n"] == [None] * 18 + ["/x"]


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_in_any_cutting_are_a_path_a_refusal_or_waited_for(data: bytes, cut: int) -> None:
    whole, reader = asked(data), RequestReader()
    found: str | Answer | None = None
    for start in range(0, len(data), cut):
        found = reader.feed(data[start : start + cut])
        if found is not None:
            break
    assert found == whole


def test_an_answer_on_the_wire() -> None:
    assert compose(Answer(status=503, kind="application/json", body=b"{}")) == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Cache-Control: no-store\r\nConnection: close\r\n\r\n{}"
    )


def test_who_may_not_is_told_what_is_allowed() -> None:
    assert b"\r\nAllow: GET\r\n" in compose(refuse(405, "no"))
    assert b"Allow" not in compose(refuse(404, "no"))
