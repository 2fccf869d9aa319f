from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coworkd.services import doctor_network_probes
from coworkd.services.doctor_network_probes import SystemNetworkProbes
from tests.unit.services.doctor_sources import NO_PRESETS, sources


def test_what_coworkd_knows_is_passed_on() -> None:
    probes = SystemNetworkProbes(
        sources(
            egress_pid=7, egress_degraded=("no Landlock",), default_routes=("eth0",), reachability=("a.example:1", None)
        )
    )
    assert (probes.egress_pid(), probes.egress_degraded()) == (7, ("no Landlock",))
    assert (probes.default_routes(), probes.reachability()) == (("eth0",), ("a.example:1", None))
    assert probes.presets() is NO_PRESETS


@pytest.mark.parametrize(
    ("upstream", "shown"),
    [("direct", "direct"), ("host", "host"), ("http://me:secret@proxy.example:3128", "http://proxy.example:3128")],
)
def test_an_upstream_has_no_credentials(upstream: str, shown: str) -> None:
    assert SystemNetworkProbes(sources(upstream=upstream)).upstream() == shown


def test_a_parent_proxy_is_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        SystemNetworkProbes(sources(upstream=f"http://127.0.0.1:{port}")).try_upstream()
        server.accept()[0].close()
    with pytest.raises(ConnectionRefusedError):
        SystemNetworkProbes(sources(upstream=f"socks5h://127.0.0.1:{port}")).try_upstream()


def test_the_host_is_connected_to_by_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "host.sock"
    probes = SystemNetworkProbes(sources(upstream="host", host_uri=f"unix://{path}"))
    with pytest.raises(FileNotFoundError):
        probes.try_upstream()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        probes.try_upstream()


def test_the_host_is_connected_to_by_vsock(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Vsock:
        def __enter__(self) -> Vsock:
            return self

        def __exit__(self, *_: object) -> None:
            asked.append("closed")

        def settimeout(self, seconds: float) -> None:
            asked.append(seconds)

        def connect(self, address: object) -> None:
            asked.append(address)

    monkeypatch.setattr(doctor_network_probes, "open_vsock_socket", Vsock)
    SystemNetworkProbes(sources(upstream="host", host_uri="vsock://2:5006")).try_upstream()
    assert asked == [doctor_network_probes.CONNECT_DEADLINE_S, (2, 5006), "closed"]


def test_a_way_that_is_none_is_an_error() -> None:
    with pytest.raises(OSError, match="no way to the host"):
        SystemNetworkProbes(sources(upstream="host", host_uri="virtio:///dev/x")).try_upstream()


def test_names_are_resolved() -> None:
    SystemNetworkProbes(sources()).resolve("127.0.0.1")
