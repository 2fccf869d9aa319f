"""The script is run as ssh runs it, against a proxy that is the test."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd import sandbox

SCRIPT = Path(sandbox.__file__).parent / "connect.py"
LIMIT_S = 20
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Proxy:
    """The proxy's end of the one connection, and the script."""

    def __init__(self, link: socket.socket, child: subprocess.Popen[bytes]) -> None:
        self.link = link
        self.child = child

    def read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.link.recv(1)
        return head

    def end(self) -> tuple[int, bytes, bytes]:
        """The proxy hangs up: how the script ended, what it said to stdout and stderr."""
        self.link.close()
        stdout, stderr = self.child.communicate(timeout=LIMIT_S)
        return self.child.returncode, stdout, stderr


@contextlib.contextmanager
def connected(host: str = "git.example.com", port: str = "22") -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)
        words = [sys.executable, "-I", "-S", str(SCRIPT), "127.0.0.1", str(listener.getsockname()[1]), host, port]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        ) as child:
            link, _ = listener.accept()
            link.settimeout(LIMIT_S)
            with link:
                yield Proxy(link, child)


@pytest.mark.parametrize(
    ("host", "target"), [("git.example.com", b"git.example.com:22"), ("2001:db8::1", b"[2001:db8::1]:22")]
)
def test_the_target_is_asked_for(host: str, target: bytes) -> None:
    with connected(host) as proxy:
        assert proxy.read_head() == b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target)
        proxy.end()


def test_bytes_go_both_ways_and_those_behind_the_answer_are_kept() -> None:
    with connected() as proxy:
        proxy.read_head()
        proxy.link.sendall(OPEN + b"SSH-2.0-server\r\n")
        assert proxy.child.stdin is not None
        proxy.child.stdin.write(b"SSH-2.0-client\r\n")
        assert proxy.link.recv(100) == b"SSH-2.0-client\r\n"
        proxy.link.sendall(b"more")
        assert proxy.end() == (0, b"SSH-2.0-server\r\nmore", b"")


def test_the_end_of_stdin_is_told_and_the_rest_still_comes() -> None:
    with connected() as proxy:
        proxy.read_head()
        proxy.link.sendall(OPEN)
        assert proxy.child.stdin is not None
        proxy.child.stdin.close()
        proxy.child.stdin = None
        assert proxy.link.recv(100) == b""
        proxy.link.sendall(b"late")
        assert proxy.end() == (0, b"late", b"")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno!\nmore\n", b"git.example.com:22: no!\n"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"git.example.com:22: 502 Bad Gateway\n"),
        (b"HTTP/1.1 200 OK\r\n", b"git.example.com:22: the proxy hung up\n"),
        (b"ICY 200 OK\r\n\r\n", b"git.example.com:22: 200 OK\n"),
        (b"", b"git.example.com:22: the proxy hung up\n"),
        (b"junk\r\n\r\n", b"git.example.com:22: the proxy hung up\n"),
        (b"x" * 20_000, b"git.example.com:22: the proxy hung up\n"),
    ],
    ids=["refused", "no-body", "cut", "foreign", "silent", "junk", "long"],
)
def test_a_refusal_is_one_line_and_exit_1(answer: bytes, said: bytes) -> None:
    with connected() as proxy:
        proxy.read_head()
        proxy.link.sendall(answer)
        proxy.link.shutdown(socket.SHUT_WR)
        assert proxy.end() == (1, b"", said)


def test_a_reason_that_comes_behind_the_head_is_told() -> None:
    with connected() as proxy:
        proxy.read_head()
        proxy.link.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        proxy.link.sendall(b"not on the list")
        proxy.link.shutdown(socket.SHUT_WR)
        assert proxy.end() == (1, b"", b"git.example.com:22: not on the list\n")
