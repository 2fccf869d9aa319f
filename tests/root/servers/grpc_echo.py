"""A gRPC echo, in the clear and under TLS. Its messages are bytes, so nothing has to be generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc  # type: ignore[import-untyped]

PLAIN_PORT, TLS_PORT = 50051, 50052
SERVICE = "lab.Echo"
WORKERS = 8
END_S = 1.0


def start_grpc(certificate: Path, key: Path) -> Callable[[], object]:
    """Start it; gives what ends it."""
    server = grpc.server(ThreadPoolExecutor(WORKERS))
    methods = {
        "Once": grpc.unary_unary_rpc_method_handler(_once),
        "Stream": grpc.stream_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"[::]:{PLAIN_PORT}")
    pair = (key.read_bytes(), certificate.read_bytes())
    server.add_secure_port(f"[::]:{TLS_PORT}", grpc.ssl_server_credentials([pair]))
    server.start()
    return lambda: server.stop(END_S).wait()


def _once(message: bytes, _context: grpc.ServicerContext) -> bytes:
    return message


def _stream(messages: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from messages
