"""QEMU's control link: any bytes in any pieces give events or a QmpError, and the same whatever the pieces."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from host_stub.qemu.qmp import QmpConnection, QmpError, Received
from tests.unit.host_stub.qemu.test_qmp import GREETING

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
words = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(0, 3) | values,
        "return": values,
        "error": values,
        "event": values,
        "data": values,
        "QMP": values,
    },
)
lines = st.lists(words.map(lambda line: json.dumps(line).encode() + b"\r\n") | st.binary(max_size=40), max_size=8)


def received(pieces: list[bytes]) -> tuple[list[Received], bool]:
    """What came of it, and whether the connection went bad."""
    connection = QmpConnection()
    connection.receive_data(GREETING)
    for _ in range(2):
        connection.send("query-status")
    events: list[Received] = [greeting] if (greeting := connection.next_event()) else []
    bad = False
    for piece in pieces:
        try:
            connection.receive_data(piece)
        except QmpError:
            bad = True
        while (event := connection.next_event()) is not None:
            events.append(event)
    return events, bad


@given(lines, st.integers(1, 7))
def test_pieces_do_not_matter(said: list[bytes], size: int) -> None:
    whole = b"".join(said)
    assert received([whole]) == received([whole[at : at + size] for at in range(0, len(whole), size)])


@given(st.binary(max_size=400))
def test_any_bytes_give_events_or_an_error(data: bytes) -> None:
    received([data])
