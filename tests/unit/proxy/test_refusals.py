from __future__ import annotations

import h11
import pytest

from coworkd.proxy.events import Refusal, RefusalKind
from coworkd.proxy.refusals import (
    ALLOWLIST_LINE,
    compose_http_misuse,
    compose_http_refusal,
    compose_socks_refusal,
    compose_socks_reply,
)

REASON = "no pattern allows it"


def read(answer: bytes, method: str = "GET") -> tuple[h11.Response, bytes]:
    """As a client of HTTP reads it, to the end: it must be whole, and close."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    assert client.trailing_data[0] == b""
    return response, body


@pytest.mark.parametrize(
    ("kind", "status", "mark", "reply"),
    [
        ("allowlist", 403, b"blocked-by-allowlist", 2),
        ("address", 403, b"blocked-by-sandbox-runtime", 2),
        ("dns", 502, b"name-not-resolved", 4),
        ("connect", 502, b"connect-failed", 5),
        ("timeout", 504, b"timed-out", 6),
        ("limit", 429, b"too-many-connections", 1),
        ("unavailable", 503, b"unavailable", 1),
    ],
)
def test_each_kind_has_its_answer(kind: RefusalKind, status: int, mark: bytes, reply: int) -> None:
    refusal = Refusal(kind=kind, reason=REASON)
    response, body = read(compose_http_refusal(refusal))
    fields = dict(response.headers)
    assert (response.status_code, fields[b"x-proxy-error"]) == (status, mark)
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert body.decode().endswith(f"{REASON}\n")
    assert compose_socks_refusal(refusal) == bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])


def test_only_a_limit_says_when_to_come_again() -> None:
    assert dict(read(compose_http_refusal(Refusal(kind="limit", reason=REASON)))[0].headers)[b"retry-after"] == b"1"
    assert b"Retry-After" not in compose_http_refusal(Refusal(kind="unavailable", reason=REASON))


def test_allowlist_refusals_begin_as_sandbox_runtime_words_them() -> None:
    response, body = read(compose_http_refusal(Refusal(kind="allowlist", reason=REASON)))
    assert body.decode() == f"{ALLOWLIST_LINE}\n{REASON}\n"
    assert response.reason == b"Forbidden"
    assert read(compose_http_refusal(Refusal(kind="allowlist", reason="")))[1].decode() == f"{ALLOWLIST_LINE}\n"


def test_a_denied_reason_stands_in_the_status_line_and_in_the_body() -> None:
    response, body = read(
        compose_http_refusal(Refusal(kind="allowlist", reason=REASON, denied_reason="Use the mirror."))
    )
    assert response.reason == b"Use the mirror."
    assert body.decode().splitlines() == [ALLOWLIST_LINE, "Use the mirror.", REASON]


def test_a_denied_reason_cannot_add_to_the_head() -> None:
    spoken = "Nein\r\nX-Evil: 1\r\n\r\nüber " + "a" * 300
    response, body = read(compose_http_refusal(Refusal(kind="allowlist", reason="", denied_reason=spoken)))
    assert response.reason.startswith(b"Nein X-Evil: 1 ber aaa")
    assert len(response.reason) <= 200
    assert b"x-evil" not in dict(response.headers)
    assert spoken.encode() in body


def test_an_unprintable_denied_reason_leaves_the_usual_phrase() -> None:
    refusal = Refusal(kind="allowlist", reason="", denied_reason="否")
    assert read(compose_http_refusal(refusal))[0].reason == b"Forbidden"


def test_head_is_answered_without_a_body() -> None:
    answer = compose_http_refusal(Refusal(kind="dns", reason=REASON), body=False)
    response, body = read(answer, "HEAD")
    assert (response.status_code, body) == (502, b"")
    assert dict(response.headers)[b"content-length"] == str(len(REASON) + 1).encode()


@pytest.mark.parametrize("status", [400, 408, 431, 501, 505])
def test_misuse_is_answered_with_its_sentence(status: int) -> None:
    response, body = read(compose_http_misuse(status, "it is wrong"))
    assert (response.status_code, body) == (status, b"it is wrong\n")
    assert dict(response.headers)[b"x-proxy-error"] == b"bad-request"


def test_replies_tell_no_address_of_ours() -> None:
    assert compose_socks_reply(0x07) == b"\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"
