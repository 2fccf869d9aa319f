"""Which coworkd a command talks to: `--to`, else COWORKD_URI, else the system's socket, else one of its own.

Rules: what was named is used or refused, never replaced. An embedded coworkd lives as long as the `with`, and needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping

from coworkd.cli.control_tables import shown
from coworkd.client.sync import Client, connect
from coworkd.model.errors import InvalidParams, Unavailable

URI_VARIABLE = "COWORKD_URI"
SYSTEM_SOCKET = "/run/coworkd/coworkd.sock"
LOCAL_KINDS = ("unix:",)
EARLY_COMMANDS = frozenset({"boot-time", "sync-clock", "shutdown", "logs", "log-level", "call"})
"""What a coworkd that is coming up answers (docs/protocol.md H-6); `call` is the caller's own affair."""
COMING_UP_S = 120.0
LOOK_S = 0.2


def named_uri(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URI that was asked for, or the system's where its socket is there; None where one must be started."""
    asked: str | None = args.to if args.to is not None else environment.get(URI_VARIABLE) or None
    if asked is not None:
        return asked
    return f"unix://{SYSTEM_SOCKET}" if os.path.exists(SYSTEM_SOCKET) else None


def read_token(path: str | None) -> str | None:
    """The shared token, first line of a file; never from argv, where everybody sees it. Raises `InvalidParams`."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            token = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParams(f"the token file {path} cannot be read: {error}", key="token-file") from error
    if not token:
        raise InvalidParams(f"the token file {path} is empty", key="token-file")
    return token


@contextlib.contextmanager
def open_client(args: argparse.Namespace, *, again_s: float = 0.0) -> Iterator[Client]:
    """A client of whatever `args` names, greeted; closed at the end. Raises `Unavailable`, `Unauthenticated`.

    A link that is lost is looked for again for `again_s`, where it is not to a coworkd that ends with us.
    """
    with contextlib.ExitStack() as stack:
        named = named_uri(args)
        uri = stack.enter_context(_embedded()) if named is None else named
        client = stack.enter_context(_connect_up(uri, args))
        if again_s and named is not None:
            client.keep(lambda within_s: _connect_again(uri, args, within_s), again_s)
        yield client


def _connect_again(uri: str, args: argparse.Namespace, within_s: float) -> Client:
    """Another link to a coworkd that is up. Raises `Unavailable` where it still comes up."""
    client = connect(
        uri, token=read_token(args.token_file), client_name=f"coworkctl {args.command}", timeout_s=within_s
    )
    stage = client.hello.degraded.get("starting")
    if stage is not None:
        client.close()
        raise Unavailable(f"coworkd is coming up: it is at {stage}")
    return client


def _connect_up(uri: str, args: argparse.Namespace) -> Client:
    """A client of a coworkd that has come up, waited for; those that are answered before that do not wait."""
    token, name = read_token(args.token_file), f"coworkctl {args.command}"
    over_at: float | None = None
    while True:
        client = connect(uri, token=token, client_name=name)
        stage = client.hello.degraded.get("starting")
        if stage is None or args.command in EARLY_COMMANDS:
            return client
        client.close()
        now = time.monotonic()
        if over_at is None:
            over_at = now + COMING_UP_S
            print(f"coworkctl: waiting for coworkd, which is coming up: {shown(stage)}", file=sys.stderr)
        if now > over_at:
            raise Unavailable(
                f"coworkd has not come up in {COMING_UP_S:g} s: it is at {stage}; coworkctl logs says more"
            )
        time.sleep(LOOK_S)


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    if os.geteuid() != 0:
        raise Unavailable(
            f"no coworkd runs here ({SYSTEM_SOCKET} is not there), and starting one for this call needs root: use sudo, or "
            f"name one with --to URI or {URI_VARIABLE}"
        )
    from coworkd.cli.embedded import open_embedded

    with open_embedded() as uri:
        yield uri


def is_local(args: argparse.Namespace) -> bool:
    """Whether coworkd sees the same directories as we do: not through a VM's socket."""
    uri = named_uri(args)
    return uri is None or uri.startswith(LOCAL_KINDS)
