from __future__ import annotations

import pytest

from coworkd.model.errors import InvalidParams
from coworkd.wire.endpoint import (
    Endpoint,
    HybridEndpoint,
    UnixEndpoint,
    VirtioEndpoint,
    VsockEndpoint,
    VsockPort,
    parse_endpoint,
    parse_served_endpoint,
)

GOOD: list[tuple[str, Endpoint]] = [
    ("unix:///run/coworkd/coworkd.sock", UnixEndpoint(path="/run/coworkd/coworkd.sock")),
    ("unix:///a%20b%3F", UnixEndpoint(path="/a b?")),
    ("vsock://3:5005", VsockEndpoint(cid=3, port=5005)),
    ("hybrid:///tmp/vm.sock?port=5005", HybridEndpoint(path="/tmp/vm.sock", port=5005)),
    ("virtio:///dev/virtio-ports/coworkd", VirtioEndpoint(path="/dev/virtio-ports/coworkd")),
]


@pytest.mark.parametrize(("uri", "endpoint"), GOOD)
def test_endpoints_are_parsed_and_written_back(uri: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(uri) == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/run/coworkd.sock",
        "http://a/",
        "unix://run/x",
        "unix:///",
        "unix:///a/",
        "unix:relative",
        "unix:///a%00b",
        "unix:///a?port=1",
        "unix:///a#b",
        "unix:///" + "a" * 107,
        "unix://[::1",
        "vsock://3",
        "vsock://3:",
        "vsock://x:1",
        "vsock://-1:1",
        "vsock://3:4294967296",
        "vsock://3:5005/x",
        "vsock://:5005",
        "hybrid:///a",
        "hybrid:///a?port=x",
        "hybrid:///a?port=1&port=2",
        "hybrid:///a?port=1&x=2",
    ],
)
def test_endpoints_that_cannot_be_meant_are_refused(uri: str) -> None:
    with pytest.raises(InvalidParams, match="is no endpoint") as caught:
        parse_endpoint(uri)
    assert "unix:///PATH" in caught.value.message


def test_a_guest_listens_dials_and_opens() -> None:
    assert parse_served_endpoint("vsock://:5005") == VsockPort(port=5005)
    assert str(VsockPort(port=5005)) == "vsock://:5005"
    assert parse_served_endpoint("vsock://2:5007") == VsockEndpoint(cid=2, port=5007)
    assert parse_served_endpoint("unix:///a") == UnixEndpoint(path="/a")


@pytest.mark.parametrize("uri", ["hybrid:///a?port=1", "vsock://:", "vsock://:x"])
def test_a_guest_cannot_serve_everything(uri: str) -> None:
    with pytest.raises(InvalidParams):
        parse_served_endpoint(uri)
