"""Links that break while commands run, and hosts that come back: every byte once, and every call done once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from coworkd.client import aio, renewal
from coworkd.client import link as client_link
from coworkd.client.process import Process
from coworkd.client.sync import Client, connect
from coworkd.model.errors import InvalidParams, OutOfRange
from coworkd.model.process import ExitRecord, SpoolRequest
from tests.root.conftest import Daemon, running_daemon
from tests.root.cutting import Cut, CuttingWay, Way, cutting_way
from tests.root.live import client_of, exited, fresh_mark, living, session_of, wait_until

MIB = 1024 * 1024

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, "reattach") as name:
        yield name


def read_exactly(process: Process, wanted: int) -> bytes:
    said = b""
    while len(said) < wanted:
        piece = process.read(timeout_s=60)
        assert piece is not None
        assert piece.offset == len(said)
        said += piece.data
    return said


def joined(process: Process, first: int = 0) -> bytes:
    """All of stdout from `first` on, whose pieces have to follow."""
    said = b""
    for piece in process:
        if piece.stream == "stdout":
            assert piece.offset == first + len(said)
            said += piece.data
    return said


def cuts_of(seed: int, count: int, most: int) -> list[Cut]:
    chance = random.Random(seed)
    ways: list[Way] = ["to_guest", "to_host"]
    return [(ways[number % 2], chance.randrange(100, most)) for number in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_output_comes_whole_over_a_link_that_is_cut_again_and_again(
    daemon: Daemon, session: str, tmp_path: Path, seed: int
) -> None:
    cuts: list[Cut] = [("to_host", 1500 + size * 37_000 * (seed + 1)) for size in range(12)]
    with (
        cutting_way(tmp_path, daemon.socket_path, cuts) as way,
        connect(way.uri, reconnect_s=30) as client,
        client.start(session, ["seq", "1", "400000"], on_full="block") as process,
    ):
        assert joined(process) == b"".join(b"%d\n" % number for number in range(1, 400_001))
        assert process.wait().exit == exited(0)
        assert client.renewals == way.connections - 1 > 5


@pytest.mark.parametrize("seed", range(3))
def test_stdin_arrives_once_over_a_link_that_is_cut_again_and_again(
    daemon: Daemon, session: str, tmp_path: Path, seed: int
) -> None:
    data = random.Random(seed).randbytes(2 * MIB)
    with (
        cutting_way(tmp_path, daemon.socket_path, cuts_of(seed, 16, 300_000)) as way,
        connect(way.uri, reconnect_s=30) as client,
        client.start(session, ["cat"], stdin=True, on_full="block") as process,
    ):
        collected = process.communicate(data)
        assert collected.streams["stdout"] == data
        assert collected.exit.exit == exited(0)
        assert client.renewals > 3


def test_start_signal_and_kill_happen_once_wherever_the_link_is_cut(
    daemon: Daemon, client: Client, session: str, tmp_path: Path
) -> None:
    renewals = 0
    script = 'trap "echo caught" USR1; echo up; while :; do :; done'
    for at in range(1, 1400, 107):
        mark = fresh_mark()
        way_cut: Way = "to_guest" if at % 2 else "to_host"
        with (
            cutting_way(tmp_path, daemon.socket_path) as way,
            connect(way.uri, reconnect_s=30) as cut,
        ):
            way.cut_after(way_cut, at)
            process = cut.start(session, ["sh", "-c", script, mark])
            assert next(iter(process)).data == b"up\n"
            assert len(cut.process_list(session=session).processes) == 1
            process.signal("USR1")
            assert next(iter(process)).data == b"caught\n"
            process.kill(0)
            assert [piece.data for piece in process if piece.data] == []
            assert process.wait().exit.reason == "killed"
            process.forget()
            renewals += cut.renewals
        (tmp_path / "way.sock").unlink()
        wait_until(lambda mark=mark: not living(mark), "the command is gone")  # type: ignore[misc]
    assert client.process_list(session=session).processes == ()
    assert renewals > 6


def test_the_answer_of_run_is_asked_for_again(daemon: Daemon, session: str, tmp_path: Path) -> None:
    """The link is cut while the command runs; it is not run again, nor ended."""
    counter = "read n < c || n=0; echo $((n + 1)) > c; until [ -e cut ]; do sleep 0.02; done; cat c"
    with cutting_way(tmp_path, daemon.socket_path) as way, connect(way.uri, reconnect_s=30) as client:
        client.run(session, ["rm", "-f", "c", "cut"])
        done: list[bytes] = []
        runner = threading.Thread(target=lambda: done.append(client.run(session, ["sh", "-c", counter]).stdout))
        runner.start()
        wait_until(lambda: client.process_list(session=session).processes, "it runs")
        way.cut()
        with client_of(daemon) as other:
            other.run(session, ["touch", "cut"])
        runner.join(60)
        assert done == [b"1\n"]
        assert client.renewals == 1
        assert client.run(session, ["sh", "-c", counter]).stdout == b"2\n"


def test_trio_goes_on_too(daemon: Daemon, session: str, tmp_path: Path) -> None:
    async def main(uri: str) -> None:
        async with await aio.connect(uri, reconnect_s=30) as client:
            async with await client.start(session, ["seq", "1", "300000"], on_full="block") as process:
                said = b"".join([piece.data async for piece in process])
                assert said == b"".join(b"%d\n" % number for number in range(1, 300_001))
            assert client.renewals > 3

    cuts: list[Cut] = [("to_host", 1500 + size * 61_000) for size in range(8)]
    with cutting_way(tmp_path, daemon.socket_path, cuts) as way:
        trio.run(main, way.uri)


def test_events_go_on_where_they_were(daemon: Daemon, client: Client, session: str, tmp_path: Path) -> None:
    with cutting_way(tmp_path, daemon.socket_path, [("to_host", 4000)]) as way, connect(way.uri, reconnect_s=30) as cut:
        events = cut.events()
        for _ in range(12):
            client.run(session, ["true"])
        seen: list[int] = []
        while len(seen) < 24:
            event = events.read(timeout_s=60)
            assert event is not None, f"{len(seen)} events"
            if event.name in ("process.start", "process.exit"):
                seen.append(event.seq)
        assert events.missed == 0
        assert len(set(seen)) == 24
        assert cut.renewals == 1


def test_two_hosts_get_every_byte_and_one_of_them_writes(daemon: Daemon, client: Client, session: str) -> None:
    with client_of(daemon) as other:
        process = client.start(session, ["cat"], stdin=True, on_full="block")
        second = other.attach(process.id)
        taken: dict[bytes, int] = {b"a": 0, b"b": 0}

        def write(mine: Process, letter: bytes) -> None:
            while taken[letter] < 100:
                try:
                    taken[letter] += mine.write_some(letter)
                except OutOfRange:
                    mine.resume_stdin()

        writers = [threading.Thread(target=write, args=pair) for pair in ((process, b"a"), (second, b"b"))]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        assert process.resume_stdin() == 200
        process.close_stdin()
        ours, theirs = joined(process), joined(second)
        assert ours == theirs
        assert sorted(ours) == sorted(b"a" * 100 + b"b" * 100)
        process.forget()


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_a_grandchild_with_the_pipe_is_told_and_its_later_bytes_can_be_had(client: Client, session: str) -> None:
    script = "(sleep 1.2; echo late) & echo early"
    process = client.start(session, ["sh", "-c", script])
    record = process.wait(60)
    assert record.exit == exited(0)
    # Its sandbox ends with the command, and the grandchild with that: nobody is left to write.
    assert record.output in ("complete", "still_open")
    assert joined(process) == b"early\n"
    process.forget()


def test_a_large_spool_on_the_disk_replays_and_outlives_coworkd(tmp_path: Path) -> None:
    place, said = tmp_path / "coworkd", b"y\n" * (9 * MIB // 2)
    spool = SpoolRequest(limit_bytes=16 * MIB, where="disk")
    with running_daemon(place, "--keep") as daemon, client_of(daemon) as client:
        client.session_ensure(name="ondisk")
        script = f"yes | head -c {9 * MIB}; read x; echo more"
        process = client.start("ondisk", ["sh", "-c", script], stdin=True, attach=False, on_full="block", spool=spool)
        wait_until(lambda: client.process_get(process=process.id).streams["stdout"] == (0, 9 * MIB), "all came")
        assert client.stats().spool_bytes == 9 * MIB
        assert list((daemon.state / ".coworkd" / "spools").iterdir()) == []
        with client_of(daemon) as other:
            assert read_exactly(other.attach(process.id), 9 * MIB) == said
        daemon.child.kill()
        daemon.child.wait(60)
    with running_daemon(place) as daemon, client_of(daemon) as client:
        again = client.attach(process.id, stdout=0)
        assert read_exactly(again, 9 * MIB) == said
        again.close_stdin()
        assert joined(again, 9 * MIB) == b"more\n"
        assert again.wait().output == "complete"


def test_a_spool_is_at_most_what_policy_allows_and_told(client: Client, session: str) -> None:
    process = client.start(session, ["true"], spool=SpoolRequest(limit_bytes=1 << 40))
    assert any("spool_max" in said for said in process.narrowed)
    process.wait()
    process.forget()
    with pytest.raises(InvalidParams, match="limit_bytes"):
        client.start(session, ["true"], spool=SpoolRequest(limit_bytes=1))
    with pytest.raises(InvalidParams, match="terminal"):
        client.start(session, ["true"], tty=(24, 80), spool=SpoolRequest(where="disk"))


def test_a_gib_nobody_reads_takes_no_more_room_than_its_spool(client: Client, session: str) -> None:
    process = client.start(session, ["head", "-c", str(1024 * MIB), "/dev/zero"], attach=False, on_full="drop_oldest")
    record = process.wait(120)
    assert record.bytes["stdout"] == 1024 * MIB
    assert record.output == "truncated"
    first, end = client.process_get(process=process.id).streams["stdout"]
    assert (end, end - first < 2 * MIB) == (1024 * MIB, True)
    process.forget()


def test_one_byte_at_a_time_comes_whole(client: Client, session: str) -> None:
    with client.start(
        session, ["dd", "if=/dev/zero", "bs=1", "count=60000", "status=none"], on_full="block"
    ) as process:
        assert joined(process) == b"\0" * 60_000


def test_the_smallest_spool_does_not_stop_a_link_that_acknowledges(
    daemon: Daemon, session: str, tmp_path: Path
) -> None:
    cuts: list[Cut] = [("to_host", 1500 + size * 21_000) for size in range(12)]
    with (
        cutting_way(tmp_path, daemon.socket_path, cuts) as way,
        connect(way.uri, reconnect_s=30) as client,
        client.start(session, ["seq", "1", "300000"], spool=SpoolRequest(limit_bytes=64 * 1024)) as process,
    ):
        # Not `block`: the place of this host is held while it is away.
        assert joined(process) == b"".join(b"%d\n" % number for number in range(1, 300_001))
        assert client.renewals > 5


# -- links of which one half is gone ---------------------------------------------------------------------------------


def test_a_host_that_vanished_without_a_word_is_let_go_and_its_command_lives(
    daemon: Daemon, client: Client, session: str, tmp_path: Path
) -> None:
    mark = fresh_mark()
    links = client.stats().links

    def is_let_go() -> None:
        wait_until(lambda: client.stats().links == links, "its link is let go")

    async def vanish(uri: str, way: CuttingWay) -> str:
        async with await aio.connect(uri, keepalive_s=1) as lost:
            process = await lost.start(session, ["sh", "-c", f"sleep {mark}"], on_full="block")
            way.silent.set()
            await trio.to_thread.run_sync(is_let_go)
            return process.id

    with cutting_way(tmp_path, daemon.socket_path) as way:
        process = trio.run(vanish, way.uri, way)
        assert client.process_get(process=process).state == "running"
        assert living(mark)
        attached = client.attach(process)
        attached.kill(0)
        assert attached.wait().exit.reason == "killed"
        attached.forget()


def test_a_guest_that_says_nothing_is_asked_and_dialled_again(
    daemon: Daemon, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "SILENCE_S", 0.6)
    monkeypatch.setattr(client_link, "SILENCE_S", 0.6)
    with cutting_way(tmp_path, daemon.socket_path) as way, connect(way.uri, reconnect_s=30) as client:
        process = client.start(session, ["sh", "-c", "echo one; read x; echo two"], stdin=True, on_full="block")
        assert next(iter(process)).data == b"one\n"
        assert client.renewals == 0
        way.silent.set()
        threading.Timer(2.0, way.silent.clear).start()
        process.close_stdin()
        assert joined(process, 4) == b"two\n"
        assert client.renewals == 1
        process.forget()


# -- input that nobody takes -----------------------------------------------------------------------------------------


def test_input_that_is_not_read_is_bounded_and_counted(client: Client, session: str) -> None:
    process = client.start(session, ["sleep", "1000"], stdin=True)
    taken = 0
    while count := process.write_some(bytes(256 * 1024)):
        taken += count
    assert taken <= MIB
    assert process.resume_stdin() == taken
    process.kill(0)
    assert process.wait().exit.reason == "killed"
    process.forget()


# -- exits -----------------------------------------------------------------------------------------------------------


def test_exits_are_kept_until_they_are_forgotten_over_any_number_of_restarts(tmp_path: Path) -> None:
    place = tmp_path / "coworkd"
    records: dict[str, ExitRecord] = {}
    for turn in range(3):
        with running_daemon(place, "--keep") as daemon, client_of(daemon) as client:
            client.session_ensure(name="kept")
            kept = {info.process: info.exit for info in client.process_list(session="kept").processes}
            assert kept == records
            for number in range(2):
                process = client.start("kept", ["sh", "-c", f"echo {turn}{number}; exit {number}"], attach=False)
                records[process.id] = process.wait()
            first = next(iter(records))
            client.process_forget(process=first)
            del records[first]
            for name, record in records.items():
                assert client.process_wait(process=name) == record
                assert len(joined(client.attach(name, stdout=0))) == record.bytes["stdout"]
            daemon.child.kill()
            daemon.child.wait(60)
    with running_daemon(place) as daemon, client_of(daemon) as client:
        assert {info.process: info.exit for info in client.process_list(session="kept").processes} == records
