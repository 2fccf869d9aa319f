from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.proxy.http_head import HeadError
from coworkd.proxy.inspected_head import judge_credentials, parse_inspected, shown_path


def head(line: str = "GET /a?b HTTP/1.1", *fields: str, host: str = "Host: api.example") -> bytes:
    return "\r\n".join([line, *([host] if host else []), *fields, "", ""]).encode("latin-1")


def test_a_path_is_a_request_to_the_connections_host() -> None:
    parsed = parse_inspected(head("PUT /a?b HTTP/1.1", "X: 1"), "api.example", 8443)
    assert (parsed.method, parsed.host, parsed.port, parsed.path) == (b"PUT", "api.example", 8443, b"/a?b")
    assert parsed.fields == ((b"Host", b"api.example"), (b"X", b"1"))


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("OPTIONS * HTTP/1.1", b"*"),
        ("GET https://api.example/x HTTP/1.1", b"/x"),
        ("GET HTTPS://API.example:443?q HTTP/1.1", b"/?q"),
        ("GET //other.example/ HTTP/1.1", b"//other.example/"),
        ("GET /http://other.example/ HTTP/1.1", b"/http://other.example/"),
        ("GET /@other.example HTTP/1.1", b"/@other.example"),
    ],
)
def test_what_a_target_may_be(line: str, path: bytes) -> None:
    parsed = parse_inspected(head(line), "api.example", 443)
    assert (parsed.host, parsed.path) == ("api.example", path)


@pytest.mark.parametrize(
    "host", ["api.example", "API.EXAMPLE", "api.example.", "api.example:443", "api.example.:443", " api.example\t"]
)
def test_the_spellings_of_the_host(host: str) -> None:
    assert parse_inspected(head(host=f"hOST: {host}"), "api.example", 443).port == 443


def test_an_address_of_version_6_stands_in_brackets() -> None:
    assert parse_inspected(head(host="Host: [2001:db8::1]"), "2001:db8::1", 443).host == "2001:db8::1"


def test_http_1_0_needs_no_host() -> None:
    assert parse_inspected(head("GET / HTTP/1.0", host=""), "api.example", 443).minor == 0


@pytest.mark.parametrize(
    "host",
    [
        "other.example",
        "api.example.evil.example",
        "xapi.example",
        "api.example:444",
        "api.example:0443",
        "api.example:",
        "api.example, other.example",
        "other.example\tapi.example",
        "user@api.example",
        "",
    ],
)
def test_another_host_is_misdirected(host: str) -> None:
    with pytest.raises(HeadError) as caught:
        parse_inspected(head(host=f"Host: {host}"), "api.example", 443)
    assert caught.value.status == 421


def test_fields_that_look_like_host_do_not_stand_for_it() -> None:
    with pytest.raises(HeadError) as caught:
        parse_inspected(
            head("GET / HTTP/1.1", "X: a\tHost: api.example", host="XHost: api.example"), "api.example", 443
        )
    assert caught.value.status == 400


def test_only_a_websocket_may_be_upgraded_to() -> None:
    parsed = parse_inspected(head("GET / HTTP/1.1", "Upgrade: h2c", "Upgrade: WebSocket"), "api.example", 443)
    assert [field for field in parsed.fields if field[0] == b"Upgrade"] == [(b"Upgrade", b"WebSocket")]


def test_the_shown_path_has_no_query_and_an_end() -> None:
    assert shown_path(parse_inspected(head("GET /a?key=1 HTTP/1.1"), "api.example", 443)) == "/a"
    shown = shown_path(parse_inspected(head(f"GET /{'a' * 999} HTTP/1.1"), "api.example", 443))
    assert len(shown) == 256
    assert shown.endswith("…")


@given(
    st.binary(max_size=120)
    | st.from_regex(rb"[A-Z]{1,5} [!-~]{1,12} HTTP/1\.1\r\n(Host: [ -~]{0,14}\r\n)?\r\n", fullmatch=True)
)
def test_any_head_is_parsed_for_the_connections_host_or_refused(data: bytes) -> None:
    try:
        parsed = parse_inspected(data, "a.example", 443)
    except HeadError as error:
        assert 400 <= error.status < 600  # noqa: PT017
    else:
        assert (parsed.host, parsed.port) == ("a.example", 443)


WORDS = ["one", "two", "three"]
APPROVED = tuple(hashlib.sha256(word.encode()).hexdigest() for word in WORDS[:2])


def test_every_credential_must_be_approved_and_one_must_be_there() -> None:
    """All pairs of what may stand in the two fields."""
    for bearer, key in itertools.product([None, *WORDS], repeat=2):
        fields = []
        if bearer is not None:
            fields.append((b"Authorization", f"Bearer {bearer}".encode()))
        if key is not None:
            fields.append((b"x-api-key", key.encode()))
        passes = bool(fields) and "three" not in (bearer, key)
        assert (judge_credentials(fields, APPROVED) is None) is passes, (bearer, key)


@pytest.mark.parametrize("field", [b"X-Api-Key", b"x_api_key", b"Authorization"])
@pytest.mark.parametrize("options", [b"%b", b"close, %b", b"keep-alive ,\t%b,"])
def test_a_credential_that_connection_names_does_not_go_on_and_does_not_count(field: bytes, options: bytes) -> None:
    credential = (field, b"Bearer one" if field == b"Authorization" else b"one")
    assert judge_credentials([credential, (b"Connection", b"close")], APPROVED) is None
    for name in (field, field.upper()):
        assert judge_credentials([credential, (b"Connection", options % name)], APPROVED) is not None


def test_the_sum_itself_is_no_credential() -> None:
    assert judge_credentials([(b"X-Api-Key", APPROVED[0].encode())], APPROVED) is not None


@given(st.binary(max_size=40), st.sampled_from([b"Authorization", b"X-API-Key", b"x_api-key", b"AUTHORIZATION"]))
def test_no_other_words_pass(value: bytes, name: bytes) -> None:
    assert judge_credentials([(name, value)], ("0" * 64,)) is not None
