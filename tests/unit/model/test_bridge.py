from __future__ import annotations

import pytest

from coworkd.model.bridge import (
    BridgeEnd,
    BridgeSpec,
    SessionEnd,
    TcpEnd,
    UnixEnd,
    VsockEnd,
    parse_bridge,
    parse_connect_end,
    parse_listen_end,
)
from coworkd.model.errors import InvalidParams


@pytest.mark.parametrize(
    ("uri", "end"),
    [
        ("tcp://127.0.0.1:80", TcpEnd(host="127.0.0.1", port=80)),
        ("tcp://[2001:db8::1]:80", TcpEnd(host="2001:db8::1", port=80)),
        ("session://work:8000", SessionEnd(session="work", port=8000)),
        ("unix:///run/x.sock", UnixEnd(path="/run/x.sock")),
    ],
)
def test_an_end_of_either_side_is_read_and_written(uri: str, end: BridgeEnd) -> None:
    assert parse_listen_end(uri) == parse_connect_end(uri) == end
    assert str(end) == uri


def test_ends_of_one_side() -> None:
    assert parse_connect_end("tcp://db.example:5432") == TcpEnd(host="db.example", port=5432)
    assert parse_connect_end("vsock://2:5006") == VsockEnd(cid=2, port=5006)
    assert parse_listen_end("vsock://:70000") == VsockEnd(cid=None, port=70_000)
    assert str(VsockEnd(cid=None, port=7)) == "vsock://:7"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "127.0.0.1:80",
        "http://127.0.0.1:80",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:+1",
        "tcp://:80",
        "tcp://::1:80",
        "tcp://[::1%eth0]:80",
        "tcp://[127.0.0.1]:80",
        "tcp://127.1:80",
        "tcp://0x7f000001:80",
        "tcp://a b:80",
        "tcp://-a:80",
        "session://Work:80",
        "session://root:80",
        "session://work:70000",
        "unix://relative",
        "unix:///run/../etc/x",
        "unix:///run/",
        "unix:///" + "a" * 107,
        "unix:///a\0b",
        "vsock://x:1",
        "vsock://4294967295:1",
        "vsock://2:0",
        "vsock://2:4294967295",
    ],
)
def test_what_cannot_be_meant_is_refused(uri: str) -> None:
    for parse in (parse_listen_end, parse_connect_end):
        with pytest.raises(InvalidParams):
            parse(uri)


def test_a_name_or_a_cid_cannot_be_listened_on() -> None:
    with pytest.raises(InvalidParams, match="address"):
        parse_listen_end("tcp://localhost:80")
    with pytest.raises(InvalidParams, match="vsock://:5"):
        parse_listen_end("vsock://3:5")


def test_nobody_cannot_be_connected_to() -> None:
    with pytest.raises(InvalidParams, match="CID"):
        parse_connect_end("vsock://:5")


def test_a_bridge_is_its_name_and_ends() -> None:
    assert parse_bridge({"name": "db", "listen": "session://work:5432", "connect": "unix:///run/db"}) == BridgeSpec(
        name="db", listen=SessionEnd(session="work", port=5432), connect=UnixEnd(path="/run/db")
    )


@pytest.mark.parametrize("name", ["", "-a", "A", "a" * 65, "a b", "a\n"])
def test_a_bad_name_is_refused_with_its_key(name: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        parse_bridge({"name": name, "listen": "unix:///a", "connect": "unix:///b"})
    assert caught.value.details["key"] == "name"
