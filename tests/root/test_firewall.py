"""The guest's firewall, loaded by nft into a network of its own: out goes one user, and nothing comes in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root.lab import Lab, Side, open_lab
from tests.root.servers.dns import GUEST, GUEST6, SERVER, SERVER6

pytestmark = [pytest.mark.root, pytest.mark.needs("netns", "mountns", "nftables")]

RULES = Path(__file__).resolve().parents[2] / "systemd" / "firewall.nft"
EGRESS_UID, SESSION_UID = 41_999, 41_998
PORT, DNS_PORT = 7777, 53
SERVE = """
import selectors, socket
chosen = selectors.DefaultSelector()
for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for kind, port in ((socket.SOCK_STREAM, 7777), (socket.SOCK_DGRAM, 7777), (socket.SOCK_DGRAM, 53)):
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        chosen.register(made, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            key.fileobj.accept()[0].sendall(b"here")
        else:
            data, peer = key.fileobj.recvfrom(100)
            key.fileobj.sendto(b"here", peer)
"""
TRY = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as tried:
    tried.settimeout(float(sys.argv[4]))
    try:
        tried.connect((host, port))
        if kind == "udp":
            tried.send(b"?")
        print(tried.recv(10).decode() or "closed")
    except OSError:
        print("refused")
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("firewall")
    text = RULES.read_text()
    assert text.count('define egress = "coworkd-egress"') == 1
    file = directory / "firewall.nft"
    file.write_text(text.replace('define egress = "coworkd-egress"', f"define egress = {EGRESS_UID}"))
    with open_lab(directory / "lab", servers=False) as opened:
        serve = (sys.executable, "-c", SERVE)
        with opened.running(opened.outside, *serve), opened.running(opened.guest, *serve):
            assert attempt(opened.guest, SESSION_UID, "tcp", SERVER, timeout_s=10) == "here", (
                "nothing gets through without rules either"
            )
            opened.guest.run("nft", "--check", "--file", str(file))
            opened.guest.run("nft", "--file", str(file))
            opened.guest.run("nft", "--file", str(file))  # again: what is loaded twice is there once
            yield opened


def attempt(side: Side, uid: int, kind: str, host: str, port: int = PORT, *, timeout_s: float = 1) -> str:
    become = () if not uid else ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    return side.run(*become, sys.executable, "-c", TRY, kind, host, str(port), str(timeout_s)).strip()


@pytest.mark.parametrize("host", [SERVER, SERVER6])
@pytest.mark.parametrize(("kind", "port"), [("tcp", PORT), ("udp", DNS_PORT)])
def test_the_egress_user_gets_out(lab: Lab, host: str, kind: str, port: int) -> None:
    assert attempt(lab.guest, EGRESS_UID, kind, host, port, timeout_s=10) == "here"


@pytest.mark.parametrize("uid", [0, SESSION_UID])
@pytest.mark.parametrize("host", [SERVER, SERVER6])
@pytest.mark.parametrize(("kind", "port"), [("tcp", PORT), ("udp", PORT), ("udp", DNS_PORT)])
def test_nobody_else_does_root_included(lab: Lab, uid: int, host: str, kind: str, port: int) -> None:
    assert attempt(lab.guest, uid, kind, host, port) == "refused"


def test_the_egress_user_sends_no_datagrams_but_questions_for_names(lab: Lab) -> None:
    assert attempt(lab.guest, EGRESS_UID, "udp", SERVER, PORT) == "refused"


@pytest.mark.parametrize("host", [GUEST, GUEST6])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_nothing_comes_in(lab: Lab, host: str, kind: str) -> None:
    assert attempt(lab.outside, 0, kind, host) == "refused"


@pytest.mark.parametrize("uid", [0, SESSION_UID])
def test_the_guest_talks_to_itself(lab: Lab, uid: int) -> None:
    assert attempt(lab.guest, uid, "tcp", "127.0.0.1", timeout_s=10) == "here"


def test_what_was_refused_is_counted(lab: Lab) -> None:
    attempt(lab.guest, 0, "tcp", SERVER)
    listed = lab.guest.run("nft", "list", "chain", "inet", "coworkd", "output")
    assert "counter packets 0 " not in listed
