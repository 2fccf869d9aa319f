"""The network of a session: lo, and nothing behind it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable

from tests.root.probes.kernel import Given, attempt, probe, read_text

RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_GETLINK = 16, 20, 24, 18
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP = 1, 4, 0x400, 0x300
IFF_UP = 1


@probe("network.interfaces")
def interfaces(_given: Given) -> str:
    return " ".join(name for _, name in socket.if_nameindex())


@probe("network.routes")
def routes(_given: Given) -> str:
    return " ".join(read_text("/proc/net/route").splitlines()[1:]) or "none"


@probe("network.routes6")
def routes6(_given: Given) -> str:
    devices = {line.split()[-1] for line in read_text("/proc/net/ipv6_route").splitlines()}
    return " ".join(sorted(devices - {"lo"})) or "lo only"


def _connect(family: int, kind: int, address: str | tuple[str, int]) -> str:
    with socket.socket(family, kind) as end:
        end.settimeout(2)
        return attempt(lambda: end.connect(address))


def _to_each(addresses: Iterable[str], port: int) -> str:
    return " ".join(sorted({_connect(socket.AF_INET, socket.SOCK_STREAM, (address, port)) for address in addresses}))


@probe("network.connect-out")
def connect_out(_given: Given) -> str:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80))


@probe("network.connect-private")
def connect_private(_given: Given) -> str:
    return _to_each(("10.0.0.1", "172.17.0.1", "192.168.0.1"), 22)


@probe("network.connect-metadata")
def connect_metadata(_given: Given) -> str:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))


@probe("network.connect-guest")
def connect_guest(given: Given) -> str:
    """The guest's own addresses, where its own listeners are."""
    return _to_each(given["host"]["addresses"], given["host"]["port"])


@probe("network.connect-guest-loopback")
def connect_guest_loopback(given: Given) -> str:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", given["host"]["port"]))


@probe("network.connect-guest-abstract")
def connect_guest_abstract(given: Given) -> str:
    return _connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + given["host"]["abstract"])


@probe("network.connect-ipv6")
def connect_ipv6(_given: Given) -> str:
    return _connect(socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 80))


@probe("network.send-udp")
def send_udp(_given: Given) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        return attempt(lambda: end.sendto(b"x", ("192.0.2.1", 53)))


@probe("network.broadcast")
def broadcast(_given: Given) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return attempt(lambda: end.sendto(b"x", ("255.255.255.255", 53)))


@probe("network.multicast")
def multicast(_given: Given) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        return attempt(lambda: end.sendto(b"x", ("224.0.0.251", 5353)))


@probe("network.names")
def names(_given: Given) -> str:
    try:
        socket.getaddrinfo("example.com", 80)
    except socket.gaierror:
        return "not resolved"
    return "resolved"


@probe("network.localhost")
def localhost(_given: Given) -> str:
    return " ".join(sorted({str(entry[4][0]) for entry in socket.getaddrinfo("localhost", 80)}))


@probe("network.low-port")
def low_port(_given: Given) -> str:
    with socket.socket() as end:
        return attempt(lambda: end.bind(("127.0.0.1", 80)))


@probe("network.bind-foreign-address")
def bind_foreign(_given: Given) -> str:
    with socket.socket() as end:
        return attempt(lambda: end.bind(("192.0.2.1", 8080)))


@probe("network.transparent")
def transparent(_given: Given) -> str:
    with socket.socket() as end:
        return attempt(lambda: end.setsockopt(socket.SOL_IP, 19, 1))


@probe("network.mark")
def mark(_given: Given) -> str:
    with socket.socket() as end:
        return attempt(lambda: end.setsockopt(socket.SOL_SOCKET, 36, 1))


@probe("network.force-buffer")
def force_buffer(_given: Given) -> str:
    with socket.socket() as end:
        return attempt(lambda: end.setsockopt(socket.SOL_SOCKET, 33, 1 << 30))


@probe("network.iptables")
def iptables(_given: Given) -> str:
    """IPT_SO_SET_REPLACE with nothing in it: the privilege is asked before the table."""
    with socket.socket() as end:
        return attempt(lambda: end.setsockopt(socket.SOL_IP, 64, b"\0" * 84))


def _netlink(kind: int, flags: int, body: bytes) -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as end:
        end.settimeout(2)
        end.send(struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0) + body)
        answer = end.recv(65536)
    (error,) = struct.unpack_from("=i", answer, 16)
    return attempt(lambda: _raise(-error))


def _raise(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))


@probe("network.set-link-down")
def set_link(_given: Given) -> str:
    return _netlink(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, 1, 0, IFF_UP))


@probe("network.add-address")
def add_address(_given: Given) -> str:
    attribute = struct.pack("=HH4s", 8, 2, socket.inet_aton("192.0.2.2"))
    return _netlink(RTM_NEWADDR, NLM_F_CREATE, struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 1) + attribute)


@probe("network.add-route")
def add_route(_given: Given) -> str:
    device = struct.pack("=HHi", 8, 4, 1)
    return _netlink(RTM_NEWROUTE, NLM_F_CREATE, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 253, 1, 0) + device)


@probe("network.add-interface")
def add_interface(_given: Given) -> str:
    kind = struct.pack("=HH5s3x", 9, 1, b"dummy")
    information = struct.pack("=HH", 4 + len(kind), 18) + kind
    return _netlink(RTM_NEWLINK, NLM_F_CREATE, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + information)
