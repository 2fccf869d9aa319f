"""Run as root in a child: behind the walls of coworkd-egress, with everything still to be imported, one connection is inspected.

Prints one JSON map: what was told of the request, what had been imported before, and by how much memory grew.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from coworkd.egressd import lockdown
from coworkd.egressd.inspect import Inspecting
from coworkd.egressd.pump import NOTHING, Pump, Sends
from coworkd.model.egress import Inspection

UID = 64999
HEAVY = ("ssl", "h11", "cryptography")


def main() -> None:
    """`sys.argv`: the filter in hex, a directory with `root.pem`, `server.pem` (with its key)."""
    bpf, directory = bytes.fromhex(sys.argv[1]), Path(sys.argv[2])
    root, server = (directory / "root.pem").read_text(), (directory / "server.pem").read_bytes()
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)  # /proc is out of reach afterwards
    degraded = lockdown.drop(uid=UID, gid=UID)
    lockdown.install_filter(bpf)
    before = int(os.pread(statm, 100, 0).split()[1])
    loaded = [name for name in HEAVY if name in sys.modules]
    told: list[tuple[str, str, int, str]] = []
    inspecting = Inspecting()
    inspecting.trust(root)
    ca = inspecting.ca_pem()

    def tell(method: str, path: str, status: int, reason: str) -> bool:
        told.append((method, path, status, reason))
        return False

    pump = inspecting.inspect("api.example", 443, Inspection(domains=("api.example",)), tell)
    grown = int(os.pread(statm, 100, 0).split()[1]) - before
    heard = converse(pump, ca, server)
    answer = {
        "degraded": degraded,
        "loaded_before": loaded,
        "grown_bytes": grown * os.sysconf("SC_PAGE_SIZE"),
        "told": told,
        "heard": heard,
    }
    print(json.dumps(answer))


def converse(pump: Pump, ca: bytes, server: bytes) -> list[str]:
    """A request and its answer; what the server and the client heard."""
    import ssl

    from tests.unit.egressd.inspected_room import Peer, trusting

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with open(os.memfd_create("server", os.MFD_CLOEXEC), "wb", buffering=0) as file:
        file.write(server)
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    client, upstream = Peer(trusting(ca), server_hostname="api.example"), Peer(context, server_side=True)
    sends, answered = pump.start(), False
    client.say(b"GET /a HTTP/1.1\r\nHost: api.example\r\n\r\n")
    for _ in range(8):
        for peer, data in ((client, sends.client), (upstream, sends.upstream)):
            if data:
                peer.receive(data)
        if upstream.heard and not answered:
            answered = True
            upstream.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        to_pump = client.outgoing.read(), upstream.outgoing.read()
        first = pump.receive_client(to_pump[0]) if to_pump[0] else NOTHING
        second = pump.receive_upstream(to_pump[1]) if to_pump[1] else NOTHING
        sends = Sends(client=first.client + second.client, upstream=first.upstream + second.upstream)
    return [upstream.heard.decode(), client.heard.decode()]


if __name__ == "__main__":
    main()
