"""Who may talk to coworkd over vsock: the host, and nobody inside the guest, root included."""

from __future__ import annotations

import pytest

from coworkd.client.sync import Client
from tests.vm.guest_lab import Guest
from tests.vm.root_shell import RootShell

TRY = """
import socket, sys
connecting = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
connecting.settimeout(10)
try:
    connecting.connect((int(sys.argv[1]), 5005))
    print("closed" if connecting.recv(1) == b"" else "served")
except OSError as error:
    print("refused", error.errno)
"""


@pytest.fixture
def shell(guest: Guest) -> RootShell:
    return RootShell(guest.spec.state_dir / "shell.sock")


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_nobody_in_the_guest_is_served(guest: Guest, client: Client, shell: RootShell, user: str) -> None:
    """By the guest's own CID and by the local one (1), which need the loopback transport; without it nothing can even be tried."""
    is_local = shell.run("modprobe vsock_loopback").status == 0
    shell.check(f"cat > /tmp/try.py <<'END'\n{TRY}\nEND\nchmod 644 /tmp/try.py")
    for cid in (1, guest.spec.cid):
        become = "" if user == "root" else "setpriv --reuid=65534 --regid=65534 --clear-groups "
        said = shell.check(f"{become}python3 /tmp/try.py {cid}").split()
        assert said[0] in (("closed",) if is_local and cid == 1 else ("closed", "refused")), (cid, said)
    assert client.ping().time > 0, "the host is served all the while"
    shell.close()


def test_the_firewall_stands_under_the_proxies(client: Client, shell: RootShell) -> None:
    assert client.ping().time > 0
    assert shell.check("systemctl is-active coworkd-firewall coworkd-egress").split() == ["active", "active"]
    rules = shell.check("nft list table inet coworkd")
    assert rules.count("policy drop") == 3
    assert "meta skuid" in rules
    shell.close()
