from __future__ import annotations

import pytest

from coworkd.launcher.order import Order, decode_order, encode_order

ORDER = Order(
    executable=b"/usr/bin/bwrap",
    command=b"./a b",
    cwd=b"/home/\xff",
    search_path=b"/bin:/usr/bin",
    rlimits=((7, 1024), (4, 0)),
    argv=(b"bwrap", b"", b"--", b"a\nb", b""),
)


@pytest.mark.parametrize(
    "order",
    [
        ORDER,
        ORDER._replace(rlimits=()),
        ORDER._replace(command=b"", search_path=b""),
        ORDER._replace(argv=(b"x" * 100_000,)),
        ORDER._replace(rlimits=((7, 2**64 - 1), (0, 1))),
    ],
)
def test_an_order_arrives_as_it_was_given(order: Order) -> None:
    assert decode_order(encode_order(order)) == order


@pytest.mark.parametrize("message", [b"", b"\0", b"bwrap\0\0/\0", b"bwrap\0\0/\0\x007:x\0bwrap", b"a\0b\0c\0d\x007\0e"])
def test_what_is_no_order_is_not_taken_for_one(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"unpack|literal"):
        decode_order(message)
