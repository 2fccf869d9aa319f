"""The shim is run as the launcher runs it, but outside a sandbox: a script read from a descriptor, talking over 8 and 9."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from coworkd import sandbox

SHIM = Path(sandbox.__file__).parent / "shim.py"
ARRANGE = "import os,sys; a,b=map(int,sys.argv[1:3]); os.dup2(a,8); os.dup2(b,9); os.execv(sys.executable,sys.argv[3:])"
LIMIT_S = 20


class Shim(NamedTuple):
    """`master` is the terminal's, `said` all of the status pipe, `status` how it ended, `output` what the terminal showed."""

    said: bytes
    status: int
    output: bytes


def run(*command: str, rows: int = 5, cols: int = 70) -> Shim:
    ours, theirs = socket.socketpair()
    status_read, status_write = os.pipe()
    words = [sys.executable, "-I", "-S", str(SHIM), str(rows), str(cols), *command]
    # Well above 8 and 9, so that arranging them overwrites neither.
    given = [os.dup(fd) for fd in (theirs.fileno(), status_write)]
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", ARRANGE, *map(str, given), *words],
        pass_fds=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()
    os.close(status_write)
    for fd in given:
        os.close(fd)
    ours.settimeout(LIMIT_S)
    with ours, child:
        message, ancillary, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(4))
        assert message == b"m"
        master = array.array("i", ancillary[0][2])[0]
        output = read_all(master)
        os.close(master)
        said = read_all(status_read)
        os.close(status_read)
        return Shim(said, child.wait(LIMIT_S), output)


def read_all(fd: int) -> bytes:
    def pieces() -> Iterator[bytes]:
        try:
            while data := os.read(fd, 65536):
                yield data
        except OSError:  # EIO: the terminal's last user has gone
            return

    return b"".join(pieces())


@pytest.fixture(scope="module", autouse=True)
def _terminals_can_be_made() -> None:
    os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))


def test_shim_gives_the_command_a_terminal_of_the_size_asked_for() -> None:
    done = run("sh", "-c", "stty size; tty <&2; exit 3")
    assert done.output.startswith(b"5 70\r\n/dev/pts/")
    assert (done.said, done.status) == (b"+", 3)


def test_shim_leaves_the_command_nothing_but_its_terminal() -> None:
    done = run("sh", "-c", "ls /proc/self/fd | tr '\\n' ' '")
    assert done.output.split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads


def test_shim_gives_back_the_signals_python_ignores() -> None:
    done = run("sh", "-c", "grep SigIgn /proc/self/status")
    ignored = int(done.output.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize(
    ("command", "said"), [("/nope", b"+not_found 2"), ("/etc/passwd/x", b"+not_found 20"), ("/", b"+not_executable 13")]
)
def test_shim_tells_why_the_command_did_not_start(command: str, said: bytes) -> None:
    done = run(command)
    assert (done.said, done.status) == (said, 127)
