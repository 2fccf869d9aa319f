"""Unix sockets of a machine: their place, made by us and handed down, so that nobody waits for a file to appear.

A socket that is left over from before is taken away; one that somebody answers at is not, and is told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path

from host_stub.words import Trouble

PATH_LIMIT_BYTES = 107 if sys.platform == "linux" else 103
"""What sockaddr_un takes, without its NUL."""


def check_length(path: Path) -> None:
    """Raises Trouble `path_too_long`."""
    length = len(os.fsencode(path))
    if length > PATH_LIMIT_BYTES:
        raise Trouble(
            "path_too_long",
            f"{path} is {length} bytes long, and a socket's path may have {PATH_LIMIT_BYTES}",
            remedy="give the bundle a shorter path",
        )


def clear_leftover(path: Path) -> None:
    """Take away a socket nobody answers at. Raises Trouble `socket_taken` for all else that is there."""
    check_length(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            _remove(path)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT) and not isinstance(error, TimeoutError):
                raise _taken(path, f"{error.strerror}") from error
    raise _taken(path, "somebody answers there")


def listen_at(path: Path) -> socket.socket:
    """A listening socket that only we may connect to; a leftover is replaced. Raises Trouble."""
    clear_leftover(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise _taken(path, f"{error.strerror}") from error
    return listener


def _remove(path: Path) -> None:
    """A file of another kind than a socket refuses a connection too, and stays."""
    if not path.is_socket():
        raise _taken(path, "it is no socket")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _taken(path: Path, why: str) -> Trouble:
    return Trouble("socket_taken", f"{path} is taken: {why}", remedy="end the machine that uses it, or remove it")
