"""Whether an address is one of this machine's own, as its kernel routes it; without root, on Linux, and on macOS for the host stub.

A datagram socket that is connected sends nothing; it gets the source address that packets to that destination would have, and the MTU
of their way. The destination itself as source, or on Linux the MTU of the loopback device, which no wire has: what is sent there arrives
here. So every interface counts, and ranges that are routed to this machine as a whole, without a list of ours.

Sources: udp(7), ip(7) IP_MTU, ipv6(7) IPV6_MTU, net/ipv4/route.c (`RTN_LOCAL`); udp(4) of macOS.
"""

from __future__ import annotations

import errno
import socket
import sys

_PORT = 9
_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
"""IP_MTU and IPV6_MTU (linux/in.h, linux/in6.h): of the way a connected socket's packets take."""
_LOOPBACK_MTU = 65535
"""65536, of which IPv4 has one less."""
_UNREACHABLE = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EACCES, errno.EINVAL)
)
"""Nothing leads there, or only a broadcast: no connection will."""


def is_own_address(address: str) -> bool:
    """Ask the kernel. An address that nothing leads to is not ours; raises `OSError` where the kernel could not be asked."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _PORT))
            if probe.getsockname()[0] == probe.getpeername()[0]:
                return True
            return sys.platform == "linux" and probe.getsockopt(*_MTU[family]) >= _LOOPBACK_MTU
    except OSError as error:
        if error.errno in _UNREACHABLE:
            return False
        raise
