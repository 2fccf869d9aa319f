"""What issue 6 wants measured: starts warm and cold, streams side by side, what a command weighs, what is had again, who slows whom, and
coworkd killed or abused, in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tests.bench import abuse, attach, fairness, restart, starts, streaming, streams, weight
from tests.bench.guest import SESSION, open_guest
from tests.bench.tables import MIB


class CommandsEffort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    starts: starts.Effort
    stream_bytes: int
    stream_pairs: int
    shared_bytes: int
    shared_rounds: int
    weighed: int
    weighed_rounds: int
    attach_pairs: int
    fairness_pairs: int
    restarts: int
    abuse_rounds: int
    abuse_asks: int


FULL_COMMANDS = CommandsEffort(
    starts=starts.FULL,
    stream_bytes=1024 * MIB,
    stream_pairs=5,
    shared_bytes=512 * MIB,
    shared_rounds=5,
    weighed=weight.COMMANDS,
    weighed_rounds=3,
    attach_pairs=15,
    fairness_pairs=15,
    restarts=restart.ROUNDS,
    abuse_rounds=abuse.ROUNDS,
    abuse_asks=abuse.ASKS,
)
QUICK_COMMANDS = CommandsEffort(
    starts=starts.QUICK,
    stream_bytes=128 * MIB,
    stream_pairs=2,
    shared_bytes=64 * MIB,
    shared_rounds=2,
    weighed=50,
    weighed_rounds=1,
    attach_pairs=3,
    fairness_pairs=3,
    restarts=2,
    abuse_rounds=1,
    abuse_asks=30,
)


class CommandsFigures(Struct, frozen=True, kw_only=True):
    """Everything that one run measured."""

    starts: starts.StartFigures
    streamed: streaming.Streamed
    shared: list[streams.Sharing]
    weighed: list[weight.Weighed]
    replays: attach.Replays
    fairness: list[fairness.Fairness]
    restarts: dict[str, list[restart.Restart]]
    abused: list[abuse.Abuse]


def measure_commands(directory: Path, effort: CommandsEffort, progress: Callable[[str], None]) -> CommandsFigures:
    """`directory` is an empty one that others may pass through; nothing else may run beside it."""
    rooms = {name: directory / name for name in ("guest", "restart", *map(str, range(effort.weighed_rounds)))}
    for room in rooms.values():
        room.mkdir(mode=0o755)
    started = starts.measure(effort.starts, lambda text: progress(f"starts: {text}"))
    progress(f"weight: {effort.weighed_rounds} × {effort.weighed} running commands")
    weighed = [_weigh(rooms[str(number)], effort.weighed) for number in range(effort.weighed_rounds)]
    with open_guest(rooms["guest"]) as guest, guest.connect() as client:
        fairness.open_sessions(client, rooms["guest"])
        progress("streams: one, beside a plain loop")
        streamed = streaming.measure_courses(client, size_bytes=effort.stream_bytes, pairs=effort.stream_pairs)
        progress("streams: one and many")
        shared = streams.measure_sharing(guest, size_bytes=effort.shared_bytes, rounds=effort.shared_rounds)
        progress("attach: kept output")
        replays = attach.measure_attach(guest.uri, pairs=effort.attach_pairs)
        progress("fairness: beside each troublemaker")
        fair = fairness.measure_fairness(guest, client, pairs=effort.fairness_pairs)
    progress(f"restart: {effort.restarts} × kill -9")
    restarts = restart.measure_restart(rooms["restart"], rounds=effort.restarts)
    progress("abuse: ping in a guest")
    abused = abuse.measure_abuse(rounds=effort.abuse_rounds, asks=effort.abuse_asks)
    return CommandsFigures(
        starts=started,
        streamed=streamed,
        shared=shared,
        weighed=weighed,
        replays=replays,
        fairness=fair,
        restarts=restarts,
        abused=abused,
    )


def _weigh(directory: Path, commands: int) -> weight.Weighed:
    with open_guest(directory) as guest, guest.connect() as client:
        client.session_ensure(name=SESSION)
        return weight.measure_weight(guest, client, commands=commands)
