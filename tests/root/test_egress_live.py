"""Egress while it runs: policies that change, caps that hold and let go, and the death of each program in turn."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.client.process import Process
from coworkd.model.errors import CoworkError, PolicyDenied
from tests.root.egress_room import (
    FOLDER,
    HTTP_PORT,
    PROFILE,
    SOCKS_PORT,
    Room,
    compose_settings,
    connect_head,
    finish_talk,
    open_room,
    saying,
    socks_request,
    write_policies,
)
from tests.root.live import client_of, exited, took_at_most, wait_until
from tests.root.servers import dns
from tests.root.servers.plain import COUNTING, ECHO, ENDLESS, GREETING, RESETTING, SILENT

pytestmark = pytest.mark.needs("netns", "mountns", "bubblewrap", "python3")

INDEX = f"index.{dns.DOMAIN}"
OTHER = f"other.{dns.DOMAIN}"
HEAD = connect_head(INDEX, ECHO)
COMES_BACK_S = 6.0
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with open_room(tmp_path_factory.mktemp("live")) as opened:
        yield opened


@pytest.fixture
def session(room: Room) -> Iterator[str]:
    """A session of a name of its own: the log keeps what others were told."""
    with room.session(f"live-{next(_numbers)}") as name:
        yield name


class Tunnel:
    """A tunnel to the echo held open by a command in the sandbox; `ask` sends a line through it and gives what came back."""

    def __init__(self, room: Room, session: str, host: str = INDEX) -> None:
        argv = ["/usr/bin/python3", "-I", f"/sessions/{session}/mnt/{FOLDER}/tunnel.py", host, str(ECHO)]
        self.process: Process = room.client.start(session, argv, stdin=True)
        self._said = b""
        assert self.line() == "open"

    def line(self, timeout_s: float = 10) -> str:
        """The next line of the command; empty at its end."""
        while b"\n" not in self._said:
            piece = self.process.read(timeout_s=timeout_s)
            if piece is None:
                return ""
            self._said += piece.data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def ask(self, word: str) -> str:
        self.process.write_stdin(f"{word}\n".encode())
        return self.line()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


# -- what passes through a tunnel -----------------------------------------------------------------------------------


def test_half_close_is_kept_in_both_directions(room: Room, session: str) -> None:
    body = os.urandom(200_000)
    ways = [connect_head(INDEX, COUNTING), socks_request(INDEX.encode(), COUNTING)]
    conversations = [
        saying(head + body, to=("127.0.0.1", port), shut=True)
        for head, port in zip(ways, (HTTP_PORT, SOCKS_PORT), strict=True)
    ]
    for talked in room.talk(session, conversations):
        assert talked.got.endswith(b"200000\n")
        assert talked.end == "eof"


def test_server_that_speaks_first_is_heard(room: Room, session: str) -> None:
    (talked,) = room.talk(session, [saying(connect_head(INDEX, GREETING), enough=50)])
    assert talked.got.endswith(b"220 ready\r\n")


def test_servers_reset_ends_the_tunnel(room: Room, session: str) -> None:
    (talked,) = room.talk(session, [saying(connect_head(INDEX, RESETTING), b"x", pause_s=0.2)])
    assert talked.end in ("eof", "ECONNRESET")


def test_killed_client_leaks_nothing(room: Room, session: str) -> None:
    """Killed in the middle of bytes both ways: coworkd-egress has no descriptor more, even where the server reads nothing."""
    room.client.session_set_policy(session=session, egress=narrowed(idle_s=3))
    room.talk(session, [saying(HEAD, b"x", enough=40)])
    pid = room.egress_pid()
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for port in (ENDLESS, SILENT, ECHO):
        conversations = [saying(connect_head(INDEX, port), bytes(400_000), enough=40, hold_s=60)] * 10
        process = room.start_talk(session, conversations)
        wait_until(lambda: connections(room, session) == 10, "ten tunnels")
        process.kill()
        process.wait()
        wait_until(lambda: connections(room, session) == 0, "the end of the tunnels")
    wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 8, "their descriptors to be closed")


def connections(room: Room, session: str) -> int:
    return sum(line.connections for line in room.client.egress_status().sessions if line.session == session)


# -- policies that change -------------------------------------------------------------------------------------------


def test_set_policy_holds_from_the_next_connection_and_closes_what_it_forbids(room: Room, session: str) -> None:
    kept, cut = Tunnel(room, session, OTHER), Tunnel(room, session, INDEX)
    settings = compose_settings()
    settings["network"]["allowedDomains"] = [OTHER]
    answer = room.client.session_set_policy(session=session, egress=settings)
    assert answer.closed == 1
    assert cut.line() == "closed"
    assert kept.ask("ping") == "ping"
    refused, allowed = room.talk(session, [saying(HEAD), saying(connect_head(OTHER, ECHO), b"x", enough=40)])
    assert (refused.status, allowed.status) == (403, 200)
    for tunnel in (kept, cut):
        tunnel.close()


def test_set_policy_can_leave_open_what_it_forbids(room: Room, session: str) -> None:
    tunnel = Tunnel(room, session, INDEX)
    settings = compose_settings()
    settings["network"]["allowedDomains"] = [OTHER]
    assert room.client.session_set_policy(session=session, egress=settings, close_forbidden=False).closed == 0
    assert tunnel.ask("ping") == "ping"
    tunnel.close()


def test_set_policy_cannot_widen(room: Room, session: str) -> None:
    settings = compose_settings()
    settings["network"]["allowedDomains"] += [f"unlisted.{dns.DOMAIN}"]
    answer = room.client.session_set_policy(session=session, egress=settings)
    assert any(f"unlisted.{dns.DOMAIN}" in sentence for sentence in answer.narrowed)
    (talked,) = room.talk(session, [saying(connect_head(f"unlisted.{dns.DOMAIN}"))])
    assert talked.status == 403


def test_bad_policy_changes_nothing(room: Room, session: str) -> None:
    with pytest.raises(CoworkError):
        room.client.session_set_policy(session=session, egress={"network": {"allowedDomains": ["*.com"]}})
    (talked,) = room.talk(session, [saying(HEAD, b"x", enough=40)])
    assert talked.status == 200


def test_allowance_lasts_as_long_as_it_says(room: Room, session: str) -> None:
    host = f"temporary.{dns.DOMAIN}"
    say_it = [saying(connect_head(host, ECHO), b"x", enough=40)]
    assert room.talk(session, say_it)[0].status == 403
    allowed = room.client.egress_allow(session=session, host=host, duration_s=6)
    assert room.talk(session, say_it)[0].status == 200
    wait_until(lambda: time.time() > allowed.until, "the end of the allowance")
    assert room.talk(session, say_it)[0].status == 403


def test_allowance_does_not_lift_what_is_denied(room: Room, session: str) -> None:
    host = f"denied.{dns.DOMAIN}"
    try:
        room.client.egress_allow(session=session, host=host, duration_s=60)
    except PolicyDenied:
        return
    assert room.talk(session, [saying(connect_head(host))])[0].status == 403


@pytest.mark.parametrize(
    ("host", "allowed"),
    [(INDEX, True), (INDEX.upper(), True), (f"unlisted.{dns.DOMAIN}", False), (f"denied.{dns.DOMAIN}", False)],
)
def test_check_says_what_would_happen(room: Room, session: str, host: str, allowed: bool) -> None:
    checked = room.client.egress_check(session=session, host=host, port=ECHO)
    (talked,) = room.talk(session, [saying(connect_head(host, ECHO), b"x", enough=40)])
    assert checked.allowed == allowed == (talked.status == 200)
    assert checked.reason
    if checked.rule is not None:
        assert PROFILE in checked.rule


def test_connection_is_audited_with_its_bytes_and_times(room: Room, session: str) -> None:
    room.talk(session, [saying(HEAD, bytes(1000), shut=True)])
    wait_until(lambda: [record for record in room.log(session) if record.kind == "close"], "the record of the end")
    opened, closed = (next(record for record in room.log(session) if record.kind == kind) for kind in ("open", "close"))
    assert opened.connection == closed.connection
    assert (closed.sent_bytes, closed.received_bytes) == (1000, 1000)
    assert opened.host == INDEX
    assert closed.address in (dns.SERVER, dns.SERVER6)
    assert closed.at >= opened.at
    kinds = [record["kind"] for record in room.client.audit_tail(limit=200).records if record.get("session") == session]
    assert any(kind.startswith("egress.") for kind in kinds), kinds


# -- caps -----------------------------------------------------------------------------------------------------------


def narrowed(**limits: float) -> dict[str, Any]:
    return compose_settings(limits=limits)


def test_connections_past_the_cap_are_refused_and_recover(room: Room, session: str) -> None:
    room.client.session_set_policy(session=session, egress=narrowed(connections=10))
    process = room.start_talk(session, [saying(HEAD, b"x", enough=40, hold_s=4)] * 30)
    answers = finish_talk(process)
    statuses = sorted(answer.status for answer in answers)
    assert statuses.count(200) == 10
    assert set(statuses) == {200, 429}
    assert all(b"Retry-After:" in answer.got for answer in answers if answer.status == 429)
    wait_until(lambda: connections(room, session) == 0, "room again")
    assert [answer.status for answer in room.talk(session, [saying(HEAD, b"x", enough=40)] * 10)] == [200] * 10


def test_cap_of_one_session_is_not_anothers(room: Room, session: str) -> None:
    room.client.session_set_policy(session=session, egress=narrowed(connections=5))
    process = room.start_talk(session, [saying(HEAD, b"x", enough=40, hold_s=3)] * 20)
    wait_until(lambda: connections(room, session) >= 5, "the cap to be reached")
    with room.session("beside") as beside:
        (talked,) = room.talk(beside, [saying(HEAD, b"x", enough=40)])
        assert talked.status == 200
    finish_talk(process)


def test_rate_past_the_burst_is_refused_and_recovers(room: Room, session: str) -> None:
    room.client.session_set_policy(session=session, egress=narrowed(burst=20, rate_per_s=10))
    answers = room.talk(session, [saying(HEAD, b"x", enough=40)] * 60)
    passed = sum(answer.status == 200 for answer in answers)
    assert 20 <= passed <= 45
    assert {answer.status for answer in answers} == {200, 429}
    room.wait_for_refusals(session, 60 - passed)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 1.0, "a second to pass")
    assert room.talk(session, [saying(HEAD, b"x", enough=40)])[0].status == 200


def test_flood_of_silent_connections_is_bounded_and_let_go(room: Room, session: str) -> None:
    """Connections that say nothing, many more than the cap: they end by themselves, and then all is as before."""
    room.client.session_set_policy(session=session, egress=narrowed(connections=20, head_s=2))
    pid = room.egress_pid()
    before = len(os.listdir(f"/proc/{pid}/fd"))
    process = room.start_talk(session, [saying(read_s=15)] * 200)
    wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) > before + 10, "the flood")
    assert len(os.listdir(f"/proc/{pid}/fd")) <= before + 60
    for answer in finish_talk(process):
        assert answer.end != "timeout"
    wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 4, "its descriptors to be closed")
    assert room.talk(session, [saying(HEAD, b"x", enough=40)])[0].status == 200


def test_slow_head_is_bounded(room: Room, session: str) -> None:
    room.client.session_set_policy(session=session, egress=narrowed(head_s=1))
    dripping = [bytes([byte]) for byte in HEAD]
    (by_drops, silent) = room.talk(session, [saying(*dripping, pause_s=0.2, read_s=10), saying(read_s=10)])
    for talked in (by_drops, silent):
        assert talked.status in (0, 408)
        assert talked.end in ("eof", "EPIPE", "ECONNRESET")
    assert silent.took_s < 8
    assert by_drops.took_s < 8 + 0.2 * len(dripping)
    room.wait_for_refusals(session, 1)


def test_idle_tunnel_ends(room: Room, session: str) -> None:
    room.client.session_set_policy(session=session, egress=narrowed(idle_s=1))
    tunnel = Tunnel(room, session)
    with took_at_most(20):
        assert tunnel.line() == "closed"
    tunnel.close()


# -- deaths ---------------------------------------------------------------------------------------------------------


def test_killed_egress_comes_back_on_the_same_listeners(room: Room, session: str) -> None:
    """Commands live on, their tunnels end, and who connects meanwhile is served by the next one."""
    tunnel = Tunnel(room, session)
    killed = room.egress_pid()
    os.kill(killed, signal.SIGKILL)
    with took_at_most(COMES_BACK_S):
        (talked,) = room.talk(session, [saying(HEAD, b"x", enough=40, read_s=60)])
    assert talked.status == 200
    assert room.client.egress_status().pid not in (0, killed)
    assert tunnel.line() == "closed"
    assert room.client.process_get(process=tunnel.process.id).state == "running"
    tunnel.close()

    def are_closed() -> bool:
        records = room.log(session)
        opened, closed = (
            {record.connection for record in records if record.kind == kind} for kind in ("open", "close")
        )
        return opened == closed

    wait_until(are_closed, "each connection has its end in the log")
    assert any("died" in record.reason for record in room.log(session) if record.kind == "close")
    assert room.daemon.ctl("audit", "verify").returncode == 0


def test_killed_coworkd_leaves_tunnels_flowing_and_new_ones_waiting(room: Room, tmp_path: Path) -> None:
    """What was open flows on while coworkd is away; who comes new waits, goes through once it is back, and is recorded."""
    policies = write_policies(tmp_path / "policies")
    name = "orphan"
    with (
        room.lab.running_daemon(tmp_path / "coworkd", "--policies", str(policies)) as first,
        client_of(first) as client,
    ):
        own = Room(lab=room.lab, daemon=first, client=client)
        client.session_ensure(name=name, profile=PROFILE, folders=own.folders())
        script = f"/sessions/{name}/mnt/{FOLDER}/ticker.py"
        process = client.start(name, ["/usr/bin/python3", "-I", script, INDEX]).id
        wait_until(lambda: seen_of(room, "/new-2"), "the ticker to run")
        first.child.kill()
        first.child.wait()
        killed_at = len(room.lab.seen())
        wait_until(lambda: len(ticks(room, killed_at, "/tick")) > 20, "ticks without coworkd")
        assert len(ticks(room, killed_at, "/new")) <= 1
    with (
        room.lab.running_daemon(tmp_path / "coworkd", "--policies", str(policies)) as second,
        client_of(second) as client,
    ):
        back_at = len(room.lab.seen())
        wait_until(lambda: len(ticks(room, back_at, "/new")) > 3, "new connections with coworkd back")
        client.process_signal(process=process, signal="TERM")
        ended = client.process_wait(process=process)
        assert ended.exit == exited(0)
        result = json.loads(client.attach(process, stdout=0).communicate().streams["stdout"])
        assert result["failed"] == []
        records = client.egress_log(session=name, limit=1000).records
        opened = {record.connection for record in records if record.kind == "open"}
        assert len(opened) >= result["connections"]
        assert second.ctl("audit", "verify").returncode == 0
        client.session_delete(session=name, force=True)


def test_policy_set_after_a_restart_holds_for_what_was_open_before(room: Room, tmp_path: Path) -> None:
    """The next coworkd knows the tunnels of the one before: what it forbids is closed, and refused from then on."""
    policies = write_policies(tmp_path / "policies")
    name = "heir"
    with (
        room.lab.running_daemon(tmp_path / "coworkd", "--policies", str(policies)) as first,
        client_of(first) as client,
    ):
        own = Room(lab=room.lab, daemon=first, client=client)
        client.session_ensure(name=name, profile=PROFILE, folders=own.folders())
        process = Tunnel(own, name).process.id
        first.child.kill()
        first.child.wait()
    with (
        room.lab.running_daemon(tmp_path / "coworkd", "--policies", str(policies)) as second,
        client_of(second) as client,
    ):
        own = Room(lab=room.lab, daemon=second, client=client)
        settings = compose_settings()
        settings["network"]["allowedDomains"] = [OTHER]
        assert client.session_set_policy(session=name, egress=settings).closed == 1
        output = client.attach(process, stdout=0)
        said = b""
        while not said.endswith(b"closed\n"):
            piece = output.read(timeout_s=60)
            assert piece is not None, said
            said += piece.data
        refused, allowed = own.talk(name, [saying(HEAD), saying(connect_head(OTHER, ECHO), b"x", enough=40)])
        assert (refused.status, allowed.status) == (403, 200)
        client.session_delete(session=name, force=True)


def test_policy_narrowed_while_coworkd_was_away_closes_what_it_forbids(room: Room, tmp_path: Path) -> None:
    """As a reload would: an admin who edits the files and starts coworkd anew has the same right to it."""
    policies = write_policies(tmp_path / "policies")
    name = "kept"
    with (
        room.lab.running_daemon(tmp_path / "coworkd", "--policies", str(policies)) as first,
        client_of(first) as client,
    ):
        own = Room(lab=room.lab, daemon=first, client=client)
        client.session_ensure(name=name, profile=PROFILE, folders=own.folders())
        cut, kept = Tunnel(own, name, INDEX).process.id, Tunnel(own, name, OTHER).process.id
        first.child.kill()
        first.child.wait()
    settings = compose_settings()
    settings["network"]["allowedDomains"] = [OTHER]
    (policies / "egress" / f"{PROFILE}.json").write_text(json.dumps(settings))
    with (
        room.lab.running_daemon(tmp_path / "coworkd", "--policies", str(policies)) as second,
        client_of(second) as client,
    ):
        output = client.attach(cut, stdout=0)
        said = b""
        while not said.endswith(b"closed\n"):
            piece = output.read(timeout_s=60)
            assert piece is not None, said
            said += piece.data
        assert client.process_get(process=kept).state == "running"

        def ends() -> list[str]:
            return [record.host for record in client.egress_log(session=name).records if record.kind == "close"]

        wait_until(ends, "the end is in the log")
        assert ends() == [INDEX]
        assert connections(Room(lab=room.lab, daemon=second, client=client), name) == 1
        client.session_delete(session=name, force=True)


def test_term_ends_every_tunnel_and_each_has_its_end_in_the_log(room: Room, tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies")
    with (
        room.lab.running_daemon(tmp_path / "coworkd", "--policies", str(policies)) as daemon,
        client_of(daemon) as client,
    ):
        own = Room(lab=room.lab, daemon=daemon, client=client)
        client.session_ensure(name="last", profile=PROFILE, folders=own.folders())
        for _ in range(5):
            Tunnel(own, "last")
        pid = client.egress_status().pid
        daemon.child.send_signal(signal.SIGTERM)
        assert daemon.child.wait(60) == 0
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of coworkd-egress")
    files = (tmp_path / "coworkd" / "state" / ".coworkd" / "audit").glob("audit-*")
    records = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    opened, closed = (
        sorted(record["connection"] for record in records if record["kind"] == kind)
        for kind in ("egress.decision", "egress.close")
    )
    assert opened == closed
    assert len(opened) == 5


def test_each_coworkd_egress_is_a_user_of_its_own(room: Room, tmp_path: Path) -> None:
    with room.lab.running_daemon(tmp_path / "coworkd") as other, client_of(other) as client:
        own = Room(lab=room.lab, daemon=other, client=client)
        uids = [
            next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
            for status in (Path(f"/proc/{asked.egress_pid()}/status").read_text() for asked in (room, own))
        ]
    assert len({*uids, "0"}) == 3


def seen_of(room: Room, path: str) -> bool:
    return bool(room.lab.seen(lambda entry: entry.get("request", "").startswith(f"GET {path} ")))


def ticks(room: Room, after: int, path: str) -> list[str]:
    return [
        request for entry in room.lab.seen()[after:] if (request := entry.get("request", "")).startswith(f"GET {path}")
    ]


def test_egress_killed_again_and_again_always_comes_back(room: Room, session: str) -> None:
    for _ in range(4):
        killed = room.egress_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: room.client.egress_status().pid not in (0, killed), "the next coworkd-egress")  # type: ignore[misc]
        (talked,) = room.talk(session, [saying(HEAD, b"x", enough=40, read_s=20)])
        assert talked.status == 200
