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
    shell.run("modprobe vsock_loopback")
    shell.check(f"cat > /tmp/try.py <<'END'\n{TRY}\nEND\nchmod 644 /tmp/try.py")
    for cid in (1, guest.spec.cid):
        become = "" if user == "root" else "setpriv --reuid=65534 --regid=65534 --clear-groups "
        said = shell.check(f"{become}python3 /tmp/try.py {cid}").split()
        assert said[0] in ("closed", "refused"), (cid, said)
    assert client.ping().time > 0, "the host is served all the while"
    shell.close()
