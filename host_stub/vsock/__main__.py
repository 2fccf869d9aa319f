"""`python -m host_stub.vsock --socket PATH --cid N --hybrid PATH`: be the vsock device of one machine, until TERM or INT.

With `--listener FD` the monitor's listening socket was made by whoever started us, and is that descriptor. It says `ready` on its
standard output once both sockets are there, and what happens on its standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from host_stub.vsock import hybrid
from host_stub.vsock.hybrid import HybridError
from host_stub.vsock.server import Server

_FD_LIMIT = 4096
_CIDS = range(3, 0xFFFFFFFF)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Judge the command line; ends the program with 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m host_stub.vsock", description="A vhost-user vsock device.")
    monitor = parser.add_mutually_exclusive_group(required=True)
    monitor.add_argument("--socket", type=Path, metavar="PATH", help="where the machine monitor connects to")
    monitor.add_argument("--listener", type=int, metavar="FD", help="the same as a listening socket that is there")
    parser.add_argument("--cid", type=_parse_cid, required=True, metavar="N", help="the guest's CID, 3 or more")
    parser.add_argument(
        "--hybrid", type=Path, required=True, metavar="PATH", help="the host's side; PATH_PORT for the guest's wishes"
    )
    parser.add_argument(
        "--allow-ports",
        type=_parse_ports,
        metavar="PORT,…",
        help="the host's only ports a guest may ask for (all that listen)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve; 1 with a line if a socket cannot be made."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    _raise_fd_limit()
    try:
        with contextlib.ExitStack() as stack:
            server = Server(
                monitors=_open_monitors(arguments, stack),
                hybrid_path=arguments.hybrid,
                cid=arguments.cid,
                allowed_ports=arguments.allow_ports,
                say=lambda line: print(f"vsock: {line}", file=sys.stderr, flush=True),
            )
            stack.callback(server.close)
            _stop_by_signals(server)
            print("ready", flush=True)
            server.run()
    except HybridError as error:
        print(f"vsock: {error}", file=sys.stderr)
        return 1
    return 0


def _open_monitors(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> socket.socket:
    """Where the monitor connects to; made here, it goes with `stack`, its file too."""
    if arguments.socket is not None:
        monitors = stack.enter_context(hybrid.listen(arguments.socket))
        stack.callback(hybrid.remove, arguments.socket)
        return monitors
    try:
        monitors = stack.enter_context(socket.socket(fileno=arguments.listener))
        listening = monitors.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise HybridError(f"descriptor {arguments.listener} is no socket: {error.strerror}") from error
    if not listening:
        raise HybridError(f"descriptor {arguments.listener} does not listen")
    monitors.setblocking(False)
    return monitors


def _stop_by_signals(server: Server) -> None:
    """A signal makes a descriptor readable, and so ends the turn it comes in."""
    stopping = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os.eventfd_write(stopping, 1))
    server.watch(stopping, lambda _: server.stop())


def _raise_fd_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FD_LIMIT if hard == resource.RLIM_INFINITY else min(hard, _FD_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _parse_cid(text: str) -> int:
    if not text.isdecimal() or int(text) not in _CIDS:
        raise argparse.ArgumentTypeError(f"{text} is no guest's CID: {_CIDS.start} to {_CIDS.stop - 1}")
    return int(text)


def _parse_ports(text: str) -> frozenset[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) < 1 << 32 for word in words):
        raise argparse.ArgumentTypeError(f"{text} is no list of ports")
    return frozenset(map(int, words))


if __name__ == "__main__":
    sys.exit(main())
