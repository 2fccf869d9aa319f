"""Whether an address is one of this host's own, as its kernel routes it; without root, on Linux and macOS.

A datagram socket that is connected sends nothing. It gets the source address that packets to that destination would have: the
destination itself where it is ours. On Linux the MTU of the way tells as well: the loopback device's, which no wire has, for ranges that
are routed to this host as a whole.

Sources: udp(7), ip(7) IP_MTU, ipv6(7) IPV6_MTU; udp(4) of macOS.
"""

from __future__ import annotations

import errno
import socket
import sys

_PORT = 9
_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
"""IP_MTU and IPV6_MTU of linux/in.h and linux/in6.h."""
_LOOPBACK_MTU = 65535
_UNREACHABLE = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EACCES, errno.EINVAL)
)
"""Nothing leads there, or only a broadcast: no connection will."""


def is_own_address(address: str) -> bool:
    """Ask the kernel. Raises `OSError` where it could not be asked."""
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
