from __future__ import annotations

import socket

from coworkd.system.socket_network import network_cookie


def test_sockets_of_one_namespace_have_the_same_cookie() -> None:
    with socket.socket(socket.AF_INET) as one, socket.socket(socket.AF_INET6) as other:
        assert network_cookie(one) == network_cookie(other) > 0


def test_the_whole_number_is_read() -> None:
    class Asked(socket.socket):
        def getsockopt(self, level: int, name: int, length: int = 0) -> bytes:  # type: ignore[override]
            assert (level, name, length) == (socket.SOL_SOCKET, 71, 8)
            return (2**63 + 5).to_bytes(8, "little")

    with Asked() as asked:
        assert network_cookie(asked) == 2**63 + 5
