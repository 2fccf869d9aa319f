"""A network of two namespaces for egress: `outside` with servers, `guest` where coworkd runs, and nothing behind either.

    guest 198.51.100.1, 2001:db8::1  ──veth──  outside 198.51.100.2, .3, .53 (DNS), 2001:db8::2 and every forbidden address

Rules
- Neither namespace has a route further than the other: no packet can leave the machine. What a guard must refuse (metadata, private and
  link-local addresses) is on the link and answered by the same servers, so that a guard with a hole is seen in `seen`.
- The guest side has a mount namespace of its own with resolv.conf, hosts and nsswitch.conf of the lab's.
- Nothing has a name: the namespaces are held by descriptors of this process and end with it and with what runs in them; the servers end
  with their stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.root.conftest import Daemon, running_daemon
from tests.root.servers import dns
from tests.root.servers.certificates import Certificates, make_certificates
from tests.root.servers.packages import make_packages

_REPO = Path(__file__).resolve().parents[2]
_STEP_S = 60
_ON_LINK = ("169.254.0.0/16", "10.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.168.0.0/16")
_OUTSIDE = (
    *(f"{address}/24" for address in (dns.SERVER, dns.OTHER, dns.RESOLVER)),
    *("169.254.169.254/32", "169.254.7.7/32", "10.0.0.2/32", "100.64.0.2/32", "100.100.100.200/32"),
    *("168.63.129.16/32", "192.0.0.192/32", "192.168.1.2/32"),
)
_OUTSIDE6 = (f"{dns.SERVER6}/32", "fd00::2/8", "fd00:ec2::254/128")
_GUEST_FILES = {
    "resolv.conf": f"nameserver {dns.RESOLVER}\noptions timeout:2 attempts:2\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_PREPARE = """
import os, sys
from coworkd.system import mounts, namespaces
namespaces.unshare(namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS)
namespaces.set_loopback_up()
mounts.mount(b"none", b"/", b"", mounts.MS_REC | mounts.MS_PRIVATE)
for words in sys.argv[1:]:
    source, target = map(os.fsencode, words.split("=", 1))
    mounts.mount(source, target, b"", mounts.MS_BIND)
print("ready", flush=True)
sys.stdin.read()
"""


class Side:
    """One network namespace with the mount namespace that goes with it, held open here."""

    def __init__(self, pid: int) -> None:
        self._fds = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "mnt")]
        self.net, self.mount = (f"/proc/{os.getpid()}/fd/{fd}" for fd in self._fds)

    def entering(self, directory: Path = _REPO) -> list[str]:
        """What to put before an argv to run it here, in `directory`."""
        return [sys.executable, "-m", "tests.root.enter", self.net, self.mount, str(directory)]

    def run(self, *argv: str, stdin: str = "") -> str:
        """A command's output; AssertionError with what it said where it fails."""
        command = [*self.entering(), *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_STEP_S, cwd=_REPO)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


class Lab:
    """An open lab. `directory` is what the web servers give; `certificates` what they show."""

    def __init__(self, directory: Path, guest: Side, outside: Side, certificates: Certificates) -> None:
        self.directory = directory
        self.guest = guest
        self.outside = outside
        self.certificates = certificates

    @contextlib.contextmanager
    def running_daemon(self, directory: Path, *options: str, through: Sequence[str] = ()) -> Iterator[Daemon]:
        """A coworkd on the guest side; `through` is an argv that becomes it there."""
        with running_daemon(directory, *options, through=through or self.guest.entering()) as daemon:
            yield daemon

    @contextlib.contextmanager
    def running(self, side: Side, *argv: str, ready: bytes = b"ready\n") -> Iterator[subprocess.Popen[bytes]]:
        """A program on one side that says `ready` on stdout; killed at the end of the `with` where it still runs."""
        command = [*side.entering(), *argv]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_REPO) as child:
            try:
                assert child.stdout is not None
                line = child.stdout.readline()
                assert line == ready, f"{argv} said {line!r}"
                yield child
            finally:
                child.kill()

    def seen(self, keep: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[dict[str, Any]]:
        """What the servers have noted so far, in order."""
        path = self.directory / "seen"
        lines = path.read_text().splitlines() if path.exists() else []
        return [entry for entry in map(json.loads, lines) if keep(entry)]


@contextlib.contextmanager
def open_lab(directory: Path, *, servers: bool = True) -> Iterator[Lab]:
    """A lab that is gone at the end of the `with`, whatever happened. `directory` is made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        sides = []
        for binds in (_write_guest_files(directory / "guest-etc"), []):
            sides.append(stack.enter_context(open_side(binds)))
        guest, outside = sides
        _join(guest, outside)
        certificates = make_certificates(
            directory,
            names=(f"index.{dns.DOMAIN}", f"*.{dns.DOMAIN}"),
            addresses=(dns.SERVER, dns.OTHER, dns.SERVER6),
        )
        lab = Lab(directory, guest, outside, certificates)
        if servers:
            make_packages(directory, url=f"https://index.{dns.DOMAIN}")
            argv = (sys.executable, "-m", "tests.root.servers", str(directory))
            stack.enter_context(lab.running(outside, *argv))
            stack.enter_context(lab.running(guest, *argv, "canary"))
        yield lab


@contextlib.contextmanager
def open_side(binds: Sequence[str] = ()) -> Iterator[Side]:
    """A network namespace with nothing but lo, and a mount namespace with the `binds` (SOURCE=TARGET each) done."""
    command = [sys.executable, "-c", _PREPARE, *binds]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_REPO) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        side = Side(child.pid)
    with contextlib.closing(side):
        assert side.run("ip", "route") == "", "a new network namespace has routes"
        yield side


def _write_guest_files(directory: Path) -> list[str]:
    directory.mkdir()
    for name, text in _GUEST_FILES.items():
        (directory / name).write_text(text)
    return [f"{directory / name}={os.path.realpath(f'/etc/{name}')}" for name in _GUEST_FILES]


def _join(guest: Side, outside: Side) -> None:
    """The veth pair, made on the guest side; its other end is moved by the namespace's own path."""
    guest.run("ip", "link", "add", "guest0", "type", "veth", "peer", "name", "outside0", "netns", outside.net)
    lines = [f"address add {dns.GUEST}/24 dev guest0", f"address add {dns.GUEST6}/32 dev guest0 nodad"]
    lines += ["link set guest0 up", *(f"route add {network} dev guest0" for network in _ON_LINK)]
    lines += ["route add fd00::/8 dev guest0"]
    guest.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
    lines = [f"address add {address} dev outside0" for address in _OUTSIDE]
    lines += [f"address add {address} dev outside0 nodad" for address in _OUTSIDE6]
    outside.run("ip", "-batch", "-", stdin="\n".join([*lines, "link set outside0 up"]) + "\n")
