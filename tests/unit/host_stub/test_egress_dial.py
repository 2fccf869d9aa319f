"""The way out: every address judged before any is dialled, and the first that answers wins."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from host_stub.egress_dial import Dialler, Refused, connect_first, take_turns
from host_stub.egress_rules import Decision, EgressOptions, EgressRules


def rules(**options: Any) -> EgressRules:
    return EgressRules(EgressOptions(**options), is_own=lambda _: False)


def refusal_of(lookup: Callable[[str], list[str]], host: str = "a.example.org") -> str:
    async def main() -> None:
        await Dialler(rules(), lookup=lookup).open_way(Decision(host=host, port=443))

    with pytest.raises(Refused) as caught:
        trio.run(main)
    return f"{caught.value.refusal.kind}: {caught.value.refusal.reason}"


@pytest.mark.parametrize(
    "bad", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"]
)
def test_one_bad_address_refuses_the_name_before_any_is_dialled(bad: str) -> None:
    assert refusal_of(lambda _: ["192.0.2.1", bad]).startswith("address: a.example.org resolved to ")


def test_a_name_without_an_address_is_told_as_such() -> None:
    def fail(_: str) -> list[str]:
        raise OSError(-2, "Name or service not known")

    assert refusal_of(fail) == "dns: a.example.org has no address here: Name or service not known"
    assert refusal_of(lambda _: []) == "dns: a.example.org has no address here"


def test_a_name_that_no_resolver_can_spell_is_refused() -> None:
    def fail(host: str) -> list[str]:
        raise UnicodeError("label too long")

    assert refusal_of(fail).startswith("dns: ")


@pytest.mark.parametrize(
    ("addresses", "turns"),
    [
        (["1.1.1.1", "2.2.2.2"], ["1.1.1.1", "2.2.2.2"]),
        (["2001:db8::1", "2001:db8::2", "1.1.1.1"], ["2001:db8::1", "1.1.1.1", "2001:db8::2"]),
        ([], []),
    ],
)
def test_families_take_turns(addresses: list[str], turns: list[str]) -> None:
    assert take_turns(addresses) == turns


class Net:
    """Addresses that answer after a while, fail, or say nothing."""

    def __init__(self, **answers: float | int | None) -> None:
        self.answers = answers
        self.tried: list[tuple[str, float]] = []
        self.opened: list[trio.SocketStream] = []

    async def connect(self, address: str, port: int) -> trio.SocketStream:
        self.tried.append((address, trio.current_time()))
        answer = self.answers[address]
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, float):
            await trio.sleep(answer)
            ours, theirs = trio.socket.socketpair()
            theirs.close()
            self.opened.append(trio.SocketStream(ours))
            return self.opened[-1]
        await trio.lowlevel.checkpoint()
        assert answer is not None
        raise OSError(answer, os.strerror(answer))


def race(net: Net) -> str:
    won: list[str] = []

    async def main() -> None:
        stream, address = await connect_first(list(net.answers), 443, "x", connect=net.connect)
        won.append(address)
        assert [opened for opened in net.opened if opened.socket.fileno() >= 0] == [stream]
        await stream.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return won[0]


def test_the_first_that_answers_wins() -> None:
    net = Net(a=0.01, b=0.01)
    assert race(net) == "a"
    assert len(net.tried) == 1


def test_one_that_fails_is_passed_at_once_and_one_that_is_silent_after_a_moment() -> None:
    net = Net(a=errno.ECONNREFUSED, b=None, c=0.01)
    assert race(net) == "c"
    assert [round(at - net.tried[0][1], 2) for _, at in net.tried] == [0.0, 0.0, 0.25]


def test_a_slow_one_is_not_given_up_while_others_are_tried() -> None:
    assert race(Net(a=0.6, b=errno.ENETUNREACH, c=None)) == "a"


def test_where_none_answers_the_last_reason_is_told() -> None:
    with pytest.raises(Refused, match="Connection refused"):
        race(Net(a=errno.ENETUNREACH, b=errno.ECONNREFUSED))


def test_cancelled_nothing_is_left_open() -> None:
    net = Net(a=None, b=None)

    async def main() -> None:
        with trio.move_on_after(3):
            await connect_first(["a", "b"], 443, "x", connect=net.connect)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(net.tried) == 2


def test_many_addresses_are_not_all_tried() -> None:
    names = {f"a{number}": errno.ECONNREFUSED for number in range(100)}
    net = Net(**names)
    with pytest.raises(Refused):
        race(net)
    assert len(net.tried) == 8


async def _serve_proxy(answer: bytes, heard: list[bytes], *, task_status: trio.TaskStatus[int]) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        heard.append(bytes(await stream.receive_some(4096)))
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        task_status.started(listeners[0].socket.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhi", None),
        (b"HTTP/1.1 403 No\r\n\r\n", "allowlist"),
        (b"HTTP/1.1 502 No\r\n\r\n", "connect"),
        (b"nonsense\r\n\r\n", "connect"),
        (b"", "connect"),
    ],
)
def test_a_parent_proxy_is_asked_with_its_credentials_and_its_answer_is_told(answer: bytes, kind: str | None) -> None:
    heard: list[bytes] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(_serve_proxy, answer, heard)
            decision = Decision(host="a.example.org", port=443, route=f"http://u:p@127.0.0.1:{port}")
            if kind is None:
                way = await Dialler(rules()).open_way(decision)
                assert way.rest == b"hi"
                await way.stream.aclose()
            else:
                with pytest.raises(Refused) as caught:
                    await Dialler(rules()).open_way(decision)
                assert caught.value.refusal.kind == kind
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert heard[0].startswith(b"CONNECT a.example.org:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dTpw\r\n" in heard[0]
