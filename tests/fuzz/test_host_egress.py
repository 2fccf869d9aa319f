"""What a hostile guest may send the host: any bytes to its egress, any line to its log, any words about its health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coworkd.model.calls import LogLine
from host_stub.egress import EgressTiming, HostEgress
from host_stub.egress_rules import EgressOptions, EgressRules
from host_stub.logs import compose_record, compose_text

TEXT = st.text(max_size=300)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 40), 1 << 40) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
REQUESTS = st.binary(max_size=600) | st.builds(
    lambda target, session, rest: (
        b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nCowork-Session: %b\r\n\r\n%b" % (target, target, session, rest)
    ),
    st.binary(max_size=40) | st.sampled_from([b"127.0.0.1:80", b"[::1]:80", b"localhost:80", b"0x7f.1:80"]),
    st.binary(max_size=20) | st.just(b"work"),
    st.binary(max_size=50),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(REQUESTS, min_size=1, max_size=4))
def test_any_bytes_are_refused_or_closed_and_nothing_is_reached(tmp_path: Path, pieces: list[bytes]) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "s"

    def look_up(host: str) -> list[str]:
        return ["127.0.0.1"]  # whatever name gets through leads to this host, and is refused for it

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                timing = EgressTiming(head_s=1.0, connect_s=1.0, idle_s=1.0, farewell_s=0.2)
                await nursery.start(HostEgress(path, EgressOptions(), timing=timing, lookup=look_up).run)
                async with await trio.open_unix_socket(str(path)) as stream:
                    answer = b""
                    try:
                        for piece in pieces:
                            await stream.send_all(piece)
                        await stream.send_eof()
                        while data := await stream.receive_some():
                            answer += bytes(data)
                    except trio.BrokenResourceError:
                        pass
                    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
                nursery.cancel_scope.cancel()

    trio.run(main)


@given(host=TEXT, port=st.integers(-10, 70_000))
def test_any_host_has_a_decision(host: str, port: int) -> None:
    decision = EgressRules(EgressOptions(), is_own=lambda _: False).decide(host, port, now=0.0)
    assert decision.refusal is None or decision.refusal.reason


@given(
    at=st.floats(),
    level=TEXT,
    component=TEXT,
    message=TEXT,
    fields=st.dictionaries(TEXT, ANYTHING, max_size=5),
)
def test_any_line_of_a_guest_is_one_line_here(at: float, level: str, component: str, message: str, fields: Any) -> None:
    shown = compose_text(LogLine(at=at, level=level, component=component, message=message, fields=fields))
    assert len(shown.splitlines()) == 1
    assert "\x1b" not in shown


@given(fields=st.dictionaries(TEXT, TEXT | st.integers(0, 1 << 40), max_size=5))
def test_any_record_is_one_line(fields: dict[str, Any]) -> None:
    assert len(compose_record(fields).splitlines()) == 1
