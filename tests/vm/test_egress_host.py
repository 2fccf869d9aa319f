"""A guest without a network card: what its sessions may reach, the host connects them to over vsock, and nothing else leads out."""

from __future__ import annotations

import pytest

from coworkd.client.sync import Client
from tests.vm.egress_lab import ANSWER, way_out, web_server
from tests.vm.guest_lab import Guest

NAME = "api.anthropic.com"
"""A host that the default profile's settings allow; here it leads where the tests say."""
FETCH = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=20).read())"
ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", 3128), timeout=20) as proxy:
    proxy.sendall(b"CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n" % ((sys.argv[1].encode(),) * 2))
    print(proxy.recv(4096).decode().splitlines()[0])
"""
VSOCK = """
import errno, socket
try:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    print("made")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture
def session(client: Client) -> str:
    client.session_ensure(name="outward")
    return "outward"


def asked(client: Client, session: str, target: str) -> str:
    return client.run(session, ["python3", "-c", ASK, target]).stdout.decode().strip()


def test_a_session_reaches_what_is_allowed_by_way_of_the_host_alone(guest: Guest, client: Client, session: str) -> None:
    with web_server() as port, way_out(guest.spec.vsock, {NAME: ["127.0.0.1"]}, allow_addresses=("127.0.0.1",)):
        ran = client.run(session, ["python3", "-c", FETCH, f"http://{NAME}:{port}/"])
        assert (ran.stdout, ran.exit.code) == (ANSWER, 0), ran.stderr
        log = client.egress_log(session=session).records
        assert {record.upstream for record in log if record.kind == "open"} == {"host"}
        devices = client.run(session, ["sh", "-c", "ls /sys/class/net 2>/dev/null; cat /proc/net/dev"]).stdout
        assert b"eth0" not in devices

        # What the guest's policy does not list never gets as far as the host.
        assert " 403 " in asked(client, session, f"unlisted.example.org:{port}")
        assert " 403 " in asked(client, session, "169.254.169.254:80")


def test_what_leads_to_the_host_itself_or_nowhere_is_refused_there(guest: Guest, client: Client, session: str) -> None:
    with web_server() as port, way_out(guest.spec.vsock, {NAME: ["127.0.0.1"]}):
        assert " 403 " in asked(client, session, f"{NAME}:{port}")
    with way_out(guest.spec.vsock, {}):
        assert " 502 " in asked(client, session, f"{NAME}:443")
    assert " 502 " in asked(client, session, f"{NAME}:443"), "no host serves it now"


def test_no_session_makes_a_vsock_socket_past_the_proxies(client: Client, session: str) -> None:
    assert client.run(session, ["python3", "-c", VSOCK]).stdout == b"EAFNOSUPPORT\n"
