"""`python -m tests.root.servers DIRECTORY [canary]`: every server of the lab, in the namespace this is started in.

`canary` starts just the web servers' plain ports, for the guest side, where no session may ever arrive.
DIRECTORY holds `server.pem` and `server.key`, what the web servers give (`simple/`, `files/`, `npm/`, `git/`), and gets `seen`. The line
`ready` on stdout says that all listen; the end of stdin ends everything.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.root.servers import dns, ftp, grpc_echo, parents
from tests.root.servers.plain import SERVERS, serve_plain
from tests.root.servers.seen import Seen
from tests.root.servers.web import WebServer, make_tls

HTTP_PORTS, HTTPS_PORT = (80, 8080), 443


def main() -> None:
    directory = Path(sys.argv[1])
    seen = Seen(str(directory / "seen"))
    if sys.argv[2:] == ["canary"]:
        for port in HTTP_PORTS:
            start(WebServer(port, name="canary", root=directory, seen=seen).serve_forever)
        print("ready", flush=True)
        sys.stdin.buffer.read()
        return
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind((dns.RESOLVER, 53))
    start(dns.serve_dns, resolver)
    for port in HTTP_PORTS:
        start(WebServer(port, name="http", root=directory, seen=seen).serve_forever)
    tls = make_tls(directory / "server.pem", directory / "server.key")
    start(WebServer(HTTPS_PORT, name="https", root=directory, seen=seen, tls=tls).serve_forever)
    for port, behave in SERVERS.items():
        start(serve_plain, listen(port), behave.__name__, behave, seen)
    start(ftp.serve_ftp, listen(ftp.PORT), seen)
    start(parents.serve_parent, listen(parents.HTTP_PORT), parents.http_parent, seen)
    start(parents.serve_parent, listen(parents.SOCKS_PORT), parents.socks_parent, seen)
    start(parents.serve_parent, parents.listen_as_host(str(directory)), parents.the_host, seen)
    end_grpc = grpc_echo.start_grpc(directory / "server.pem", directory / "server.key")
    print("ready", flush=True)
    sys.stdin.buffer.read()
    end_grpc()


def listen(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)


def start(target: Callable[..., Any], *arguments: Any) -> None:
    threading.Thread(target=partial(target, *arguments), daemon=True).start()


if __name__ == "__main__":
    main()
