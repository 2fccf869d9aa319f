from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from coworkd.system import vsock


class FakeSocket:
    """Notes what is asked of it; no vsock socket is ever opened here."""

    def __init__(self, family: int, kind: int) -> None:
        self.asked: list[Any] = [("socket", family, kind)]
        self.refuse: OSError | None = None
        made.append(self)

    def setblocking(self, blocking: bool) -> None:
        self.asked.append(("setblocking", blocking))

    def bind(self, address: tuple[int, int]) -> None:
        self.asked.append(("bind", address))
        if address[1] == 1:
            raise OSError(errno.EADDRINUSE, "Address already in use")

    def listen(self, backlog: int) -> None:
        self.asked.append(("listen", backlog))

    def close(self) -> None:
        self.asked.append("close")


made: list[FakeSocket] = []


@pytest.fixture(autouse=True)
def no_real_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    monkeypatch.setattr(socket, "socket", FakeSocket)


def test_listener_is_bound_to_any_cid_and_does_not_block() -> None:
    vsock.open_vsock_listener(5005)
    assert made[0].asked == [
        ("socket", socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC),
        ("setblocking", False),
        ("bind", (0xFFFFFFFF, 5005)),
        ("listen", 1024),
    ]


def test_listener_that_cannot_bind_is_closed() -> None:
    with pytest.raises(OSError, match="in use"):
        vsock.open_vsock_listener(1)
    assert made[0].asked[-1] == "close"


def test_python_without_vsock_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_VSOCK")
    with pytest.raises(OSError, match="no vsock") as caught:
        vsock.open_vsock_socket()
    assert caught.value.errno == errno.EAFNOSUPPORT
