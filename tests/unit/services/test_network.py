from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
import trio.testing

from coworkd.model.event import Event
from coworkd.model.network import DefaultRoute, NetworkDevice, NetworkFacts
from coworkd.services.network import LOOK_AGAIN_S, POLL_S, PROBE_DEADLINE_S, PROBE_S, START_S, Network, shown_upstream

ROUTED = NetworkFacts(
    devices=(NetworkDevice(name="eth0", addresses=("198.51.100.2/24",)),),
    routes=(DefaultRoute(device="eth0", gateway="198.51.100.1"),),
)


class World:
    """What the service sees, and what it told; tests change the first while it runs."""

    def __init__(self) -> None:
        self.routes = "one"
        self.unreadable = False
        self.facts: NetworkFacts | OSError = ROUTED
        self.looks = 0
        self.upstream = "direct"
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.states: list[str | None] = []
        self.reason: str | None = None
        self.hangs = False
        self.tries: list[tuple[str, dict[str, Any]]] = []

    def read(self) -> str:
        if self.unreadable:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.routes

    def ask(self) -> NetworkFacts:
        self.looks += 1
        if isinstance(self.facts, OSError):
            raise self.facts
        return self.facts

    def publish(self, name: str, params: Mapping[str, Any], /) -> Event:
        self.told.append((name, dict(params)))
        return Event(seq=len(self.told), at=0.0, name=name, params=dict(params))

    async def try_target(self, target: str, **way: Any) -> str | None:
        self.tries.append((target, way))
        if self.hangs:
            await trio.sleep_forever()
        return self.reason


Steps = Callable[[World, Network, Callable[[float], Awaitable[None]]], Awaitable[None]]


def play(steps: Steps, world: World, probe: str = "", *, asks_early: bool = False) -> None:
    clock = trio.testing.MockClock()

    async def ask_in_no_thread(call: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return call()

    async def main() -> None:
        network = Network(
            events=world,
            upstream=lambda: world.upstream,
            host_uri="unix:///h",
            probe=probe,
            on_state=world.states.append,
            read=world.read,
            ask=world.ask,
            try_target=world.try_target,
            run_blocking=ask_in_no_thread,
        )

        async def pass_time(seconds: float) -> None:
            clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as nursery:
            await nursery.start(network.serve)
            await trio.testing.wait_all_tasks_blocked()
            assert (world.looks, world.told) == (0, [])
            if asks_early:
                assert network.default_routes() == ("eth0 via 198.51.100.1",)
            await pass_time(START_S)
            await steps(world, network, pass_time)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_the_status_is_told_at_the_start_and_not_again() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        for _ in range(5):
            await pass_time(POLL_S)
        assert world.told == [
            (
                "network.status",
                {
                    "status": "CONNECTED",
                    "upstream": "direct",
                    "devices": [{"name": "eth0", "addresses": ["198.51.100.2/24"]}],
                    "routes": [{"device": "eth0", "gateway": "198.51.100.1"}],
                },
            )
        ]
        assert world.looks == 1

    play(steps, World())


def test_routes_that_changed_are_looked_at_and_told() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        world.routes, world.facts = "none", NetworkFacts()
        await pass_time(POLL_S)
        assert world.told[-1][1]["status"] == network.status == "NOT_CONNECTED"
        assert not network.default_routes()
        world.routes, world.facts = "again", ROUTED
        await pass_time(POLL_S)
        assert [params["status"] for _, params in world.told] == ["CONNECTED", "NOT_CONNECTED", "CONNECTED"]
        assert world.looks == 3
        assert network.default_routes() == ("eth0 via 198.51.100.1",)

    play(steps, World())


def test_routes_that_cannot_be_read_for_a_while_change_nothing() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        world.unreadable, world.routes, world.facts = True, "none", NetworkFacts()
        await pass_time(POLL_S)
        assert (network.status, world.looks) == ("CONNECTED", 1)
        world.unreadable = False
        await pass_time(POLL_S)
        assert (network.status, world.looks) == ("NOT_CONNECTED", 2)

    play(steps, World())


def test_an_upstream_other_than_direct_is_a_connection() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        assert network.status == "NOT_CONNECTED"
        world.upstream = "http://me:secret@proxy.example:3128"
        await pass_time(POLL_S)
        assert world.told[-1][1]["status"] == "CONNECTED"
        assert world.told[-1][1]["upstream"] == "http://proxy.example:3128"
        assert world.looks == 1

    world = World()
    world.facts = NetworkFacts()
    play(steps, world)


def test_a_helper_that_fails_is_told_and_asked_again_later() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        assert world.states == ["no netlink"]
        assert world.told[0][1]["status"] == "NOT_CONNECTED"
        await pass_time(POLL_S)
        assert world.looks == 1
        world.facts = ROUTED
        await pass_time(LOOK_AGAIN_S)
        assert world.states == ["no netlink", None]
        assert network.status == "CONNECTED"

    world = World()
    world.facts = OSError("no netlink")
    play(steps, world)


def test_the_last_facts_hold_while_the_helper_fails() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        world.routes, world.facts = "two", OSError("no netlink")
        await pass_time(POLL_S)
        assert network.status == "CONNECTED"
        assert len(world.told) == 1

    play(steps, World())


def test_nothing_is_tried_without_a_probe() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        await pass_time(10 * PROBE_S)
        assert (world.tries, network.reachability) == ([], None)

    play(steps, World())


def test_reachability_is_told_when_it_changes() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        assert world.tries == [("probe.example:443", {"upstream": "direct", "host_uri": "unix:///h"})]
        await pass_time(PROBE_S)
        assert network.reachability == ("probe.example:443", None)
        world.reason = "Connection refused"
        await pass_time(PROBE_S)
        assert list(network.reachability or ()) == ["probe.example:443", "Connection refused"]
        world.reason = None
        await pass_time(PROBE_S)
        told = [params for name, params in world.told if name == "reachability"]
        assert [(one["reachable"], one["reason"]) for one in told] == [
            (True, ""),
            (False, "Connection refused"),
            (True, ""),
        ]
        assert told[0]["target"] == "probe.example:443"
        assert len(world.tries) == 4

    play(steps, World(), probe="probe.example:443")


def test_a_probe_that_hangs_is_given_up() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        assert network.reachability is None
        await pass_time(PROBE_DEADLINE_S)
        assert network.reachability is not None
        assert "no answer within 10 s" in world.told[-1][1]["reason"]
        await pass_time(PROBE_S - PROBE_DEADLINE_S)
        assert len(world.tries) == 2

    world = World()
    world.hangs = True
    play(steps, world, probe="probe.example:443")


def test_whoever_asks_for_routes_before_the_first_look_gets_them() -> None:
    async def steps(world: World, network: Network, pass_time: Callable[[float], Awaitable[None]]) -> None:
        assert world.looks == 2

    play(steps, World(), asks_early=True)


def test_an_upstream_is_shown_without_credentials() -> None:
    assert shown_upstream("http://a:b@c:1") == "http://c:1"
    assert shown_upstream("socks5h://c:1") == "socks5h://c:1"
    assert shown_upstream("host") == "host"
