"""Inspection: the TLS of a connection to a named domain is ended here and begun anew toward the server, so that requests can be judged.

Off by default, and per domain: an allowlist is a capability grant, and this bounds it. The parts: `inspect_ca` the certificates,
`proxy.tls` both ends, `proxy.inspected` the requests between them.

Rules
- Both handshakes run at once. Nothing of a request is sent before the server's certificate was verified; where that fails, requests are
  answered 502 with the reason.
- A client that does not speak TLS is refused, and so is one that names another host in its hello: inspected domains have no other way in.
- The client is not read while more than 64 KiB wait for the server's handshake or for an answer.
- A client that gets less than the whole of an answer sees no close_notify, and one whose answer ends with its connection sees it end as the
  server ended it.

Importing this costs little: `ssl`, `h11` and `cryptography` come with the first inspected connection, or with `ca_pem`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from coworkd.egressd.pump import Pump, TellRequest
from coworkd.model.egress import Inspection

if TYPE_CHECKING:
    from coworkd.egressd.inspect_ca import InspectionCa


class Inspecting:
    """See `pump.Inspector`."""

    def __init__(self, make_ca: Callable[[], InspectionCa] | None = None) -> None:
        self._make_ca = make_ca
        self._ca: InspectionCa | None = None
        self._trusted = ""

    def ca_pem(self) -> bytes:
        """The certificate of the authority, which is made when it is first asked for."""
        return self._authority().pem

    def inspect(self, host: str, port: int, inspection: Inspection, tell: TellRequest) -> Pump:
        """A pump for one connection; `host` is canonical."""
        from coworkd.egressd.inspect_pump import InspectedPump

        ca = self._authority()
        return InspectedPump(
            host,
            port,
            server_context=ca.server_context(host),
            client_context=ca.client_context(),
            approved=inspection.token_sha256,
            tell=tell,
        )

    def trust(self, pem: str) -> None:
        """Verify servers by these certificates beside the system's, from the next connection on; "" for none. They are ones that
        coworkd took (`ca.install`); makes nothing that is not there yet. Raises `OSError` (`ssl.SSLError` is one) where they are none.
        """
        if self._ca is not None:
            self._ca.trust(pem)
        self._trusted = pem

    def _authority(self) -> InspectionCa:
        if self._ca is None:
            if self._make_ca is None:
                from coworkd.egressd.inspect_ca import InspectionCa

                self._make_ca = InspectionCa
            ca = self._make_ca()
            if self._trusted:
                ca.trust(self._trusted)
            self._ca = ca
        return self._ca
