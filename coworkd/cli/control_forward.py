"""`coworkctl forward SESSION PORT [LOCAL_PORT]`: a port of a session, on this machine's loopback.

Rules
- Each local connection is one stream of one link; at most `CONNECTIONS` at once, more wait to be accepted.
- Both directions end apart, as they do in the session; what is reset there is reset here.
- A connection that fails is one line on standard error, one that succeeds is none. The link's end is ours.
- INT, TERM and HUP end it: nothing is left, the status is 128+n.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import signal
import socket
import struct
import sys

import trio

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import SYSTEM_SOCKET, URI_VARIABLE, named_uri, read_token
from coworkd.cli.control_tables import shown
from coworkd.client.aio import AsyncClient, connect
from coworkd.client.aio_stream import AsyncStream
from coworkd.model.errors import AlreadyExists, CoworkError, InvalidParams, InvalidState, Unavailable

ADDRESS = "127.0.0.1"
CONNECTIONS = 100
"""A link runs 256 calls at once; each connection may have one write and some acknowledgements on the way."""
CHUNK_BYTES = 128 * 1024
ACCEPT_PAUSE_S = 0.1
_RESET = struct.pack("ii", 1, 0)


def forward(args: argparse.Namespace) -> int:
    """Serve until a signal, or the link's end, which raises."""
    local_port = args.port if args.local_port is None else args.local_port
    for name, port, lowest in (("port", args.port, 1), ("local-port", local_port, 0)):
        if not lowest <= port <= 65_535:
            raise InvalidParams(f"{port} is no port: {lowest} to 65535", key=name)
    uri = named_uri(args)
    if uri is None:
        raise Unavailable(
            f"no coworkd runs here ({SYSTEM_SOCKET} is not there), and only one that runs has sessions with servers: name it "
            f"with --to URI or {URI_VARIABLE}"
        )
    return trio.run(_run, args, uri, local_port)


async def _run(args: argparse.Namespace, uri: str, local_port: int) -> int:
    async with await connect(uri, token=read_token(args.token_file), client_name="coworkctl forward") as client:
        await client.session_get(session=args.session)
        with open_listener(local_port) as listener:
            address = "{}:{}".format(*listener.getsockname())
            print(
                dump({"address": address, "session": args.session, "port": args.port})
                if args.json
                else f"{address} leads to port {args.port} of session {args.session}; end with Ctrl-C",
                flush=True,
            )
            return await _serve_until_the_end(client, listener, args.session, args.port)


async def _serve_until_the_end(
    client: AsyncClient, listener: trio.socket.SocketType, session: str, port: int
) -> int:  # fmt: skip
    number: int | None = None
    broken: CoworkError | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def watch_signals() -> None:
                nonlocal number
                number = await signals.__anext__()
                # The link first: nothing may wait for a guest that does not answer.
                await client.aclose()

            async def watch_link() -> None:
                nonlocal broken
                broken = await client.wait_broken()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch_signals)
            nursery.start_soon(watch_link)
            nursery.start_soon(Forwarder(client, session, port).serve, listener)
    if number is None:
        raise broken or Unavailable("the link to the guest ended")
    return 128 + number


def open_listener(port: int) -> trio.socket.SocketType:
    """A socket that listens on the loopback; 0 is any port. Raises `AlreadyExists`, `InvalidState`."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen(CONNECTIONS)
        return trio.socket.from_stdlib_socket(listener)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyExists(
                f"something listens on {ADDRESS}:{port} already: name another LOCAL_PORT, or 0 for any", port=port
            ) from error
        raise InvalidState(f"cannot listen on {ADDRESS}:{port}: {error.strerror}", port=port) from error


class Forwarder:
    """Local connections to one port of one session."""

    def __init__(self, client: AsyncClient, session: str, port: int) -> None:
        self._client = client
        self._session = session
        self._port = port
        self._room = trio.Semaphore(CONNECTIONS)

    async def serve(self, listener: trio.socket.SocketType) -> None:
        """Accept and relay, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._room.acquire()
                try:
                    accepted, peer = await listener.accept()
                except OSError as error:
                    self._room.release()
                    _tell(f"a connection could not be accepted: {error.strerror}")
                    await trio.sleep(ACCEPT_PAUSE_S)
                    continue
                nursery.start_soon(self._serve_one, accepted, peer[1])

    async def _serve_one(self, accepted: trio.socket.SocketType, peer_port: int) -> None:
        with accepted:
            try:
                async with await self._client.forward(self._session, self._port) as remote:
                    await _Relay(trio.SocketStream(accepted), remote).run()
            except CoworkError as error:
                _reset(accepted)
                if self._client.broken is None:
                    _tell(f"the connection from port {peer_port}: {error.message}")
            finally:
                self._room.release()


class _Relay:
    """One connection, both ways."""

    def __init__(self, local: trio.SocketStream, remote: AsyncStream) -> None:
        self._local = local
        self._remote = remote
        self._scope = trio.CancelScope()
        self._lost: CoworkError | None = None

    async def run(self) -> None:
        """Return when both directions have ended or the local side is gone; raise what the guest says of a loss."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._up)
                nursery.start_soon(self._down)
        if self._lost is not None:
            raise self._lost

    async def _up(self) -> None:
        try:
            while data := await self._local.receive_some(CHUNK_BYTES):
                await self._remote.send(bytes(data))
            await self._remote.close_write()
        except trio.BrokenResourceError:
            self._scope.cancel()
        except CoworkError:
            # The other side takes no more; if it is gone altogether, whoever receives is told.
            return

    async def _down(self) -> None:
        try:
            while data := await self._remote.receive():
                await self._local.send_all(data)
            await self._local.send_eof()
        except trio.BrokenResourceError:
            self._scope.cancel()
        except CoworkError as error:
            self._lost = error
            self._scope.cancel()


def _reset(connected: trio.socket.SocketType) -> None:
    """The close that follows must not look like a good end."""
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _tell(what: str) -> None:
    print(f"coworkctl: {shown(what)}", file=sys.stderr, flush=True)
