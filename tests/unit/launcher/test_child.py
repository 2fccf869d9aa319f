"""The launcher's child as a process of its own, without the steps that need root: tests/root/test_launcher.py looks at those."""

from __future__ import annotations

import subprocess
import sys

_LIVE = """
import os, socket, sys
import coworkd.launcher.__main__
from coworkd.launcher import child, order
from coworkd.launcher.formats import Formats

def become(station, stage):
    os.dup2(station.order_fd, child._FD_ORDER)
    os.dup2(station.error_fd, child._FD_ERROR)
    os.closerange(3, child._FD_ORDER)
    sys.addaudithook(lambda event, words: event == "import" and os.write(child._FD_ERROR, b"loads %s " % words[0].encode()))

child._take_station = become
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
heard, error_fd = os.pipe()
formats = Formats(b"/bin/true")
if os.fork() == 0:
    child.run(child.Station(os.getppid(), 1234, 1234, -1, -1, theirs.fileno(), error_fd, True), formats)
os.close(error_fd)
command = sys.argv[1].encode()
given = order.Order(executable=command, command=command, cwd=b"/", search_path=b"", rlimits=((4, 0),), argv=(b"it",) * int(sys.argv[2]))
message, fds = order.encode_order(given), [0, 1, 2]
if len(message) > order.ORDER_LIMIT_BYTES:
    fds.append(os.memfd_create("order"))
    os.write(fds[-1], message)
    message = b"\\0"
socket.send_fds(ours, [message], fds)
print(os.waitstatus_to_exitcode(os.wait()[1]), os.read(heard, 1000).decode())
"""


def live(command: str, words: int = 1) -> str:
    """The status of a child that was told to become `command`, and all that it had to say."""
    argv = [sys.executable, "-c", _LIVE, command, str(words)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_it_loads_nothing_once_it_is_in_the_session() -> None:
    """What it loaded there would be the session's files."""
    assert live("/bin/true") == "0"
    assert live("/bin/true", 20_000) == "0"
    assert live("/nonexistent") == "127 exec 2"
    assert live("/etc/passwd") == "127 exec 13"
