"""Call the lab's gRPC echo: argv[1] is HOST:PORT, argv[2] `plain` or a bundle of certificates. Prints what came."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc  # type: ignore[import-untyped]

target, trust = sys.argv[1:]
if trust == "plain":
    channel = grpc.insecure_channel(target)
else:
    channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(trust).read_bytes()))
with channel:
    print(channel.unary_unary("/lab.Echo/Once")(b"hello from grpc", timeout=20).decode())
    pieces = [b"%d" % number for number in range(100)]
    assert list(channel.stream_stream("/lab.Echo/Stream")(iter(pieces), timeout=20)) == pieces
