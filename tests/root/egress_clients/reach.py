"""What a sandbox can reach without the proxies: each attempt of the JSON object on stdin, and how the kernel answered.

Nothing is sent where a socket cannot even be made. AF_VSOCK is only ever asked for: the filter must refuse it before it opens.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

AF_VSOCK, WAIT_S = 40, 2.0
_QUERY = bytes.fromhex("abcd01000001000000000000") + b"\x05index\x07example\x04test\x00\x00\x01\x00\x01"


def attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> str:
    with socket.socket(family, kind) as end:
        end.settimeout(WAIT_S)
        return attempt(lambda: end.connect(address))


def ask_udp(address: tuple[str, int]) -> str:
    def ask() -> None:
        end.sendto(_QUERY, address)
        end.recv(512)

    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as end:
        end.settimeout(WAIT_S)
        return attempt(ask)


def make(family: int, kind: int, protocol: int = 0) -> str:
    return attempt(lambda: socket.socket(family, kind, protocol).close())


def ping(address: str) -> str:
    """The unprivileged echo of ICMP, where the kernel lets this group have it."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as end:
            end.sendto(b"\x08\x00\x00\x00\x00\x00\x00\x00", (address, 0))

    return attempt(send)


def resolve(name: str) -> str:
    try:
        socket.getaddrinfo(name, 443)
    except socket.gaierror:
        return "not resolved"
    return "resolved"


def main() -> None:
    given = json.load(sys.stdin)
    answers = {f"tcp {host}:{port}": connect(socket.AF_INET, (host, port)) for host, port in given["tcp"]}
    answers |= {f"tcp6 {host}:{port}": connect(socket.AF_INET6, (host, port)) for host, port in given["tcp6"]}
    answers |= {f"udp {host}:{port}": ask_udp((host, port)) for host, port in given["udp"]}
    answers |= {f"unix {path}": connect(socket.AF_UNIX, path) for path in given["unix"]}
    answers |= {f"seqpacket {path}": connect(socket.AF_UNIX, path, socket.SOCK_SEQPACKET) for path in given["unix"]}
    answers |= {f"abstract {name}": connect(socket.AF_UNIX, "\0" + name) for name in given["abstract"]}
    answers["ping"] = ping(given["tcp"][0][0])
    answers["raw"] = make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    answers["raw6"] = make(socket.AF_INET6, socket.SOCK_RAW, 58)
    answers["packet"] = make(socket.AF_PACKET, socket.SOCK_RAW)
    answers["vsock"] = make(AF_VSOCK, socket.SOCK_STREAM)
    answers["vsock, high bit"] = attempt(lambda: _socket_call(AF_VSOCK | 1 << 32))
    answers["name"] = resolve(given["name"])
    answers["sockets"] = " ".join(sorted(os.listdir("/tmp")))
    print(json.dumps(answers))


def _socket_call(family: int) -> None:
    """socket(2) with a family of 64 bits: the kernel looks at the low half."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
    fd = libc.syscall(ctypes.c_long(number), ctypes.c_ulong(family), ctypes.c_ulong(1), ctypes.c_ulong(0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "socket")
    os.close(fd)


if __name__ == "__main__":
    main()
