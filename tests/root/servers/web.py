"""HTTP and HTTPS: small answers of every framing, an upgrade, a package index, an npm registry, git.

    /hello  /headers  /bytes/N  /chunked/N  /until-close/N  /status/N   POST|PUT /echo   GET /upgrade (then echo)
    /simple/…  /files/…   a package index as pip reads it (PEP 503)      /npm/…   an npm registry      /git/…   git over HTTP

Everything asked is noted in `Seen`, with the headers as they came.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.root.servers.seen import Seen, plain

PIECE_BYTES = 64 * 1024
INDEXES = ("index.html", "index.json")
GIT_TIMEOUT_S = 30


def pattern(count: int) -> bytes:
    """`count` bytes whose order can be checked."""
    block = bytes(range(251)) * 261
    return (block * (count // len(block) + 1))[:count]


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection; `server` is a `WebServer`."""

    protocol_version = "HTTP/1.1"
    server: WebServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        if parsed:
            self.server.seen.write(
                server=self.server.name,
                local=plain(self.connection.getsockname()),
                request=self.requestline,
                headers=[list(item) for item in self.headers.items()],
            )
        return parsed

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: `Seen` has it."""

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, body: bytes, kind: str = "text/plain", status: int = 200) -> None:
        self.send_response(status)
        if status in (204, 304):
            self.end_headers()
            return
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_chunked(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Sum")
        self.end_headers()
        for at in range(0, len(body), PIECE_BYTES):
            piece = body[at : at + PIECE_BYTES]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\nX-Sum: %d\r\n\r\n" % (sum(body) % 65536))

    def answer_until_close(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    # -- methods ------------------------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        word, _, rest = path.lstrip("/").partition("/")
        if word == "git":
            self.run_git(rest)
        elif word in ("simple", "files", "npm"):
            self.answer_file(path)
        elif word == "headers":
            self.answer(json.dumps(self.headers.items()).encode(), "application/json")
        elif word == "upgrade":
            self.upgrade()
        elif word in ("bytes", "chunked", "until-close"):
            answer = {"bytes": self.answer, "chunked": self.answer_chunked, "until-close": self.answer_until_close}[
                word
            ]
            answer(pattern(int(rest)))
        elif word == "status":
            self.answer(b"as asked\n", status=int(rest))
        else:
            self.answer(f"hello from {self.server.name}, {self.headers.get('Host')}\n".encode())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/git/"):
            self.run_git(path.removeprefix("/git/"))
        else:
            self.answer(self.read_body(), "application/octet-stream")

    do_PUT = do_POST

    def upgrade(self) -> None:
        """101, then every byte comes back."""
        self.send_response_only(101)
        self.send_header("Upgrade", "echo")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.close_connection = True
        while data := self.rfile.read1(PIECE_BYTES):
            self.wfile.write(data)

    def answer_file(self, path: str) -> None:
        root = self.server.root.resolve()
        found = (root / path.lstrip("/")).resolve()
        if root not in found.parents:
            self.answer(b"outside\n", status=403)
            return
        if found.is_dir():
            found = next((found / name for name in INDEXES if (found / name).is_file()), found)
        if not found.is_file():
            self.answer(b"no such file\n", status=404)
            return
        kind = {".html": "text/html", ".json": "application/json"}.get(found.suffix, "application/octet-stream")
        self.answer(found.read_bytes(), kind)

    def run_git(self, path: str) -> None:
        """git-http-backend(1) as a CGI program."""
        body = self.read_body()
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.root / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REMOTE_USER": "test",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": urlsplit(self.path).query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, timeout=GIT_TIMEOUT_S
        )
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(fields.pop("Status", "200").split()[0])
        self.answer(answer, fields.get("Content-Type", "text/plain"), status)


class WebServer(http.server.ThreadingHTTPServer):
    """On every address of its namespace, both families; `tls` makes it HTTPS."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int, *, name: str, root: Path, seen: Seen, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.root = root
        self.seen = seen
        self._tls = tls
        super().__init__(("::", port), Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "outside", self.server_address[1]

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            self.seen.connection(self.name, request)
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                request = self._tls.wrap_socket(request, server_side=True)
        except OSError:
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def make_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
