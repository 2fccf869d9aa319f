"""The shim is run as the launcher runs it, but outside a sandbox: a script read from a descriptor, its command coming over 7."""

from __future__ import annotations

import array
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from coworkd import sandbox
from coworkd.sandbox.failure import parse_shim

SHIM = Path(sandbox.__file__).parent / "shim.py"
ARRANGE = (
    "import os,sys; a,b=map(int,sys.argv[1:3]); os.dup2(a,7); os.dup2(b,8);"
    "os.closerange(9,1024); os.execv(sys.executable,sys.argv[3:])"
)
LIMIT_S = 20
PATH = b"PATH=/usr/local/bin:/usr/bin:/bin"


class Done(NamedTuple):
    """`said` is all of the status pipe, `code` how it ended, `output` and `errors` what the command put out, or its terminal showed."""

    said: bytes
    code: int
    output: bytes
    errors: bytes = b""


class Shim:
    """One that waits, or comes up."""

    def __init__(self) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(LIMIT_S)
        source = os.open(SHIM, os.O_RDONLY)
        # Well above 7 and 8, so that arranging them overwrites neither.
        given = [os.dup(fd) for fd in (theirs.fileno(), source)]
        words = [sys.executable, "-I", "-S", "/proc/self/fd/8"]
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", ARRANGE, *map(str, given), *words],
            pass_fds=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
        )
        theirs.close()
        for fd in (source, *given):
            os.close(fd)

    def close(self) -> int:
        self.link.close()
        return self.child.wait(LIMIT_S)

    def send(self, words: Sequence[bytes], fds: Sequence[int], *, in_file: bool = False) -> None:
        message, carried = b"\0".join(words), list(fds)
        if in_file:
            carried.append(os.memfd_create("command"))
            os.write(carried[-1], message)
            message = b"\0"
        socket.send_fds(self.link, [message], carried)
        for fd in carried:
            os.close(fd)


def open_gate() -> int:
    """One that was opened before anybody came to it."""
    gate, opener = os.pipe()
    os.write(opener, b"g")
    os.close(opener)
    return gate


def run(
    *argv: bytes, cwd: bytes = b"/", env: Sequence[bytes] = (PATH,), native: bytes = b"", in_file: bool = False
) -> Done:
    shim = Shim()
    pipes = [os.pipe() for _ in range(3)]
    null = os.open("/dev/null", os.O_RDONLY)
    (said, status), (output, stdout), (errors, stderr) = pipes
    words = (b"%d" % len(argv), cwd, b"", native.hex().encode(), *argv, *env)
    shim.send(words, (status, open_gate(), null, stdout, stderr), in_file=in_file)
    found = [read_all(fd) for fd in (output, errors)]
    told = read_status(said)
    code = shim.close()
    return Done(told, code, found[0], found[1])


def run_on_terminal(*argv: bytes, rows: int = 5, cols: int = 70) -> Done:
    shim = Shim()
    ours, theirs = socket.socketpair()
    said, status = os.pipe()
    words = (b"%d" % len(argv), b"/", b"%d %d" % (rows, cols), b"", *argv, PATH)
    shim.send(words, (status, open_gate(), theirs.detach()))
    ours.settimeout(LIMIT_S)
    with ours:
        message, ancillary, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(4))
        assert message == b"m"
        master = array.array("i", ancillary[0][2])[0]
        output = read_all(master)
    return Done(read_status(said), shim.close(), output)


def read_status(fd: int) -> bytes:
    """All of a status pipe, without the time."""
    said = read_all(fd)
    at = parse_shim(said)[0]
    assert at is None or abs(time.time() - at) < LIMIT_S
    return re.sub(rb"^\+[0-9]+ ", b"+", said)


def read_all(fd: int) -> bytes:
    def pieces() -> Iterator[bytes]:
        try:
            while data := os.read(fd, 65536):
                yield data
        except OSError:  # EIO: the terminal's last user has gone
            return
        finally:
            os.close(fd)

    return b"".join(pieces())


def script(directory: Path, content: bytes, mode: int = 0o755) -> bytes:
    path = directory / "file"
    path.write_bytes(content)
    path.chmod(mode)
    return os.fsencode(path)


@pytest.fixture(scope="module", autouse=True)
def _terminals_can_be_made() -> None:
    os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))


# -- waiting ------------------------------------------------------------------------------------------------------


def test_shim_says_that_it_is_ready_and_what_it_has_used() -> None:
    shim = Shim()
    word, *numbers = shim.link.recv(256).split()
    assert word == b"ready"
    assert len(numbers) == 7
    assert int(numbers[0]) + int(numbers[1]) > 0
    assert shim.close() == 0


def test_shim_holds_nothing_while_it_waits_but_its_link() -> None:
    shim = Shim()
    shim.link.recv(256)
    assert sorted(os.listdir(f"/proc/{shim.child.pid}/fd")) == ["0", "1", "2", "7"]
    assert shim.close() == 0


# -- the command --------------------------------------------------------------------------------------------------


def test_shim_waits_at_the_gate_with_all_but_the_exec_behind_it() -> None:
    shim = Shim()
    shim.link.recv(256)
    said, status = os.pipe()
    gate, opener = os.pipe()
    output, stdout = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    shim.send((b"2", b"/usr", b"", b"", b"echo", b"out", PATH), (status, gate, null, stdout, os.dup(stdout)))
    while os.readlink(f"/proc/{shim.child.pid}/cwd") != "/usr":
        assert shim.child.poll() is None
    os.set_blocking(said, False)
    with pytest.raises(BlockingIOError):
        os.read(said, 1)
    os.set_blocking(said, True)
    os.write(opener, b"g")
    assert (read_status(said), read_all(output), shim.close()) == (b"+", b"out\n", 0)
    os.close(opener)


def test_shim_tells_at_once_what_no_gate_could_mend() -> None:
    shim = Shim()
    said, status = os.pipe()
    gate, opener = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    shim.send((b"1", b"/no/such", b"", b"", b"true", PATH), (status, gate, null, os.dup(null), os.dup(null)))
    assert (read_all(said), shim.close()) == (b"cwd 2", 127)
    os.close(opener)


def test_shim_becomes_the_command() -> None:
    done = run(b"sh", b"-c", b"echo out; echo err >&2; exit 3")
    assert done == Done(b"+", 3, b"out\n", b"err\n")


def test_shim_gives_it_its_directory_and_its_variables_alone() -> None:
    done = run(b"/usr/bin/env", b"-0", cwd=b"/usr/bin", env=(b"A=b=c", b"EMPTY=", PATH))
    assert done.output.split(b"\0") == [b"A=b=c", b"EMPTY=", PATH, b"PWD=/usr/bin", b""]
    assert run(b"pwd", cwd=b"/usr").output == b"/usr\n"


def test_shim_leaves_a_pwd_where_it_was() -> None:
    done = run(b"/usr/bin/env", cwd=b"/usr", env=(b"PWD=x", b"A=b"))
    assert done.output == b"PWD=/usr\nA=b\n"


def test_shim_leaves_it_nothing_else() -> None:
    done = run(b"sh", b"-c", b"ls /proc/self/fd | tr '\\n' ' '")
    assert done.output.split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads


def test_shim_gives_back_the_signals_python_takes() -> None:
    lines = run(b"grep", b"^Sig[IC]", b"/proc/self/status").output.decode().splitlines()
    masks = {name: int(value, 16) for name, value in (line.split(":\t") for line in lines)}
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        assert not (masks["SigIgn"] | masks["SigCgt"]) & (1 << number - 1)


def test_shim_takes_a_long_message_from_a_file() -> None:
    done = run(
        b"sh", b"-c", b'echo "${#1} ${#V}"', b"sh", b"x" * 100_000, env=(PATH, b"V=" + b"y" * 100_000), in_file=True
    )
    assert done.output == b"100000 100000\n"


def test_shim_tells_words_that_the_kernel_does_not_take() -> None:
    assert run(b"true", b"x" * 200_000, in_file=True).said == b"+exec 7"


# -- how it is looked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (b"/nope", b"+exec 2"),
        (b"nope", b"+exec 2"),
        (b"/etc/passwd/x", b"+exec 20"),
        (b"/", b"+exec 13"),
        (b"x" * 300, b"+exec 36"),
    ],
)
def test_shim_tells_why_the_command_did_not_start(command: bytes, said: bytes) -> None:
    done = run(command)
    assert (done.said, done.code, done.errors) == (said, 127, b"")


@pytest.mark.parametrize(("cwd", "number"), [(b"/nope", errno.ENOENT), (b"/etc/passwd", errno.ENOTDIR)])
def test_shim_tells_why_the_directory_could_not_be_entered(cwd: bytes, number: int) -> None:
    assert run(b"true", cwd=cwd).said == b"cwd %d" % number


def test_shim_goes_on_behind_what_may_not_be_executed(tmp_path: Path) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / name).mkdir()
        script(tmp_path / name, b"#!/bin/sh\necho second\n", mode)
    places = b"PATH=%s/none:%s/first:%s/second" % ((os.fsencode(tmp_path),) * 3)
    assert run(b"file", env=(places,)).output == b"second\n"
    (tmp_path / "second" / "file").chmod(0o644)
    assert run(b"file", env=(places,)).said == b"+exec 13"


def test_shim_looks_in_the_usual_places_where_there_is_no_path() -> None:
    assert run(b"true", env=()).code == 0


def test_shim_looks_in_the_directory_for_an_empty_place(tmp_path: Path) -> None:
    script(tmp_path, b"#!/bin/sh\necho here\n")
    assert run(b"file", cwd=os.fsencode(tmp_path), env=(b"PATH=/none:",)).output == b"here\n"


def test_shim_runs_a_script_without_an_interpreter_as_execvp_does(tmp_path: Path) -> None:
    done = run(script(tmp_path, b'echo "$0 $1"\n'), b"word")
    assert done.output == os.fsencode(tmp_path / "file") + b" word\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x7fELF\x01\x02" + bytes(60), b"+exec 8"),
        (b"\0\1\2binary", b"+exec 8"),
        (b"#!/none\n", b"+exec 2"),
    ],
)
def test_shim_hands_no_binary_to_a_shell(tmp_path: Path, content: bytes, said: bytes) -> None:
    assert run(script(tmp_path, content), native=b"\x02\x01>\0").said == said


def test_shim_judges_nothing_where_it_is_told_nothing(tmp_path: Path) -> None:
    assert run(script(tmp_path, b"\0\1\2binary")).said == b"+"


# -- a terminal ---------------------------------------------------------------------------------------------------


def test_shim_gives_the_command_a_terminal_of_the_size_asked_for() -> None:
    done = run_on_terminal(b"sh", b"-c", b"stty size; tty <&2; exit 3")
    assert done.output.startswith(b"5 70\r\n/dev/pts/")
    assert (done.said, done.code) == (b"+", 3)


def test_shim_leaves_the_command_nothing_but_its_terminal() -> None:
    done = run_on_terminal(b"sh", b"-c", b"ls /proc/self/fd | tr '\\n' ' '")
    assert done.output.split() == [b"0", b"1", b"2", b"3"]


def test_shim_makes_the_terminal_the_commands_own() -> None:
    done = run_on_terminal(b"sh", b"-c", b"ps -o pid=,pgid=,sid=,tpgid= -p $$; :")
    assert len(set(done.output.split())) == 1


def test_a_terminals_command_that_does_not_start_is_told_too() -> None:
    assert run_on_terminal(b"/nope").said == b"+exec 2"
