"""The host's way out for a guest of the tests: beside its vsock, and a server on this machine that names lead to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trio

from host_stub.egress import HostEgress
from host_stub.egress_rules import EgressOptions
from host_stub.words import EGRESS_PORT

ANSWER = b"from the host's side\n"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextlib.contextmanager
def web_server() -> Iterator[int]:
    """A server at 127.0.0.1; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@contextlib.contextmanager
def way_out(vsock: Path, names: dict[str, list[str]], **options: Any) -> Iterator[None]:
    """The host's egress for the guest whose hybrid socket that is; `names` is all that its name service knows."""
    ready = threading.Event()
    over: list[tuple[trio.CancelScope, trio.lowlevel.TrioToken]] = []

    def look_up(host: str) -> list[str]:
        if host not in names:
            raise OSError(-2, "Name or service not known")
        return names[host]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            path = vsock.with_name(f"{vsock.name}_{EGRESS_PORT}")
            await nursery.start(HostEgress(path, EgressOptions(**options), lookup=look_up).run)
            over.append((nursery.cancel_scope, trio.lowlevel.current_trio_token()))
            ready.set()

    vsock.parent.chmod(0o700)  # as a bundle's directories are
    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(10), "the host's egress did not come up"
    try:
        yield
    finally:
        scope, token = over[0]
        token.run_sync_soon(scope.cancel)
        thread.join(10)
        assert not thread.is_alive()
