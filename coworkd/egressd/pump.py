"""What carries a connection whose bytes are not just passed on: the seam between the loop and who reads what passes.

A tunnel is spliced in the kernel and needs none of this. A forwarded plain HTTP request and an inspected connection do: their driver
(`exchange`) moves bytes between two sockets and a `Pump`, which does no I/O, within these rules:

- `start` is called once, when the way to the upstream is open; then each arrival is given to `receive_client` or `receive_upstream`,
  `b""` being an end of file, told once a side; `lose_upstream` tells that the upstream broke instead. Each returns what is to be sent
  to either side now.
- A pump holds no more than what it needs to understand one message. The driver does not read one side while more than
  `BUFFER_LIMIT_BYTES` wait for the other, nor the client while `wants_client` is False.
- `upstream_done`: the upstream is to be closed; the client stays. `ended`: the client is to be closed too, once all was sent to it, and
  with a reset where `abrupt`. `raw`: from here on bytes pass unread both ways (a plain upgrade), and the driver splices them.
- A pump never raises for what a peer sent: it answers, or ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from coworkd.model.egress import Inspection

BUFFER_LIMIT_BYTES = 256 * 1024
"""What may wait for one side before the other is no longer read."""


class Sends(NamedTuple):
    """What is to be sent now."""

    client: bytes = b""
    upstream: bytes = b""


NOTHING = Sends()


class Pump(Protocol):
    """One connection's bytes, understood. See the rules above."""

    @property
    def wants_client(self) -> bool:
        """Whether the client is to be read."""

    @property
    def upstream_done(self) -> bool:
        """Whether the upstream is finished with."""

    @property
    def ended(self) -> bool:
        """Whether the client is finished with, and so everything."""

    @property
    def abrupt(self) -> bool:
        """Whether the client's connection is to be reset: it did not get the whole."""

    @property
    def raw(self) -> bool:
        """Whether bytes are passed unread from here on."""

    def start(self) -> Sends:
        """The way is open: what is to be sent before anything has come."""

    def receive_client(self, data: bytes) -> Sends:
        """Bytes of the client; `b""` is its end of file."""

    def receive_upstream(self, data: bytes) -> Sends:
        """Bytes of the upstream; `b""` is its end of file."""

    def lose_upstream(self, reason: str) -> Sends:
        """The upstream broke (a reset, silence for too long): what came is not the whole."""


TellRequest = Callable[[str, str, int, str], bool]
"""Method, path without its query, status, and a reason where it was refused: one request of an inspected connection. True where there
is no room for more, or its session asks too fast: then this is the connection's last."""


class Inspector(Protocol):
    """Who opens the TLS of connections to `Inspection.domains`."""

    def ca_pem(self) -> bytes:
        """The certificate of its CA, which is made when it is first asked for."""

    def trust(self, pem: str) -> None:
        """Verify servers by these certificates as well, from the next connection on; "" for none. Raises `OSError` where they are none."""

    def inspect(self, host: str, port: int, inspection: Inspection, tell: TellRequest) -> Pump:
        """A pump for one connection, between a client that got its answer and an upstream that is connected."""
