"""Attacks on the way out: bad input, addresses behind names, floods, and every way around the proxies.

Each is refused and logged, nothing of it reaches a server, and what others do goes on meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.root.egress_attacks import ATTACKS, INDEX, SOCKS_CHOSEN, Attack
from tests.root.egress_room import (
    FOLDER,
    HTTP_PORT,
    SOCKS_PORT,
    Room,
    Talked,
    compose_settings,
    connect_head,
    finish_talk,
    open_room,
    saying,
    socks_request,
)
from tests.root.live import busyness, wait_until
from tests.root.servers import dns
from tests.root.servers.plain import ECHO

pytestmark = pytest.mark.needs("netns", "mountns", "bubblewrap", "python3")

BATCH = 60
ATTACKER, NEIGHBOUR = "attacker", "neighbour"
GOOD_HEAD = connect_head(INDEX, ECHO)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with open_room(tmp_path_factory.mktemp("attacks")) as opened:
        yield opened


@pytest.fixture(scope="module")
def attacked(room: Room) -> Iterator[dict[str, Talked]]:
    """All of `ATTACKS`, from one session, some at once; what each was answered."""
    with room.session(ATTACKER) as session:
        answers: dict[str, Talked] = {}
        for attack in ATTACKS.values():
            answers[attack.name] = Talked(got=b"", end="", took_s=0)
        names = list(ATTACKS)
        for at in range(0, len(names), BATCH):
            batch = names[at : at + BATCH]
            talked = room.talk(session, [say(ATTACKS[name]) for name in batch])
            answers.update(zip(batch, talked, strict=True))
        yield answers


def say(attack: Attack) -> dict[str, Any]:
    port = SOCKS_PORT if attack.socks else HTTP_PORT
    return saying(*attack.pieces, to=("127.0.0.1", port), pause_s=attack.pause_s, shut=attack.cut, read_s=10)


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_answered_with_a_refusal(attacked: dict[str, Talked], name: str) -> None:
    attack, talked = ATTACKS[name], attacked[name]
    assert talked.end in ("eof", "ECONNRESET", "EPIPE"), talked
    if attack.cut and talked.got in (b"", SOCKS_CHOSEN):
        return
    if not attack.socks:
        assert talked.status in attack.answers, talked
        assert attack.mark in talked.got
        return
    got = talked.got.removeprefix(SOCKS_CHOSEN)
    assert len(got) > 1, talked
    assert got[1] in attack.answers, talked


def test_attacks_reach_no_server(room: Room, attacked: dict[str, Talked]) -> None:
    assert room.lab.seen() == []


def test_attacks_are_all_logged(room: Room, attacked: dict[str, Talked]) -> None:
    silent = sum(1 for name, attack in ATTACKS.items() if attack.cut and attacked[name].got in (b"", SOCKS_CHOSEN))
    room.wait_for_refusals(ATTACKER, len(ATTACKS) - silent)
    refused = room.log(ATTACKER, refused_only=True)
    assert all(record.reason for record in refused)
    assert not any("\n" in record.host or "\0" in record.host for record in refused)


def test_attacks_are_audited(room: Room, attacked: dict[str, Talked]) -> None:
    verified = room.daemon.ctl("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_attacks_break_nothing(room: Room, attacked: dict[str, Talked]) -> None:
    """The same coworkd-egress serves on, and the same session."""
    (talked,) = room.talk(ATTACKER, [saying(GOOD_HEAD, b"still here", enough=60)])
    assert talked.status == 200
    assert talked.got.endswith(b"still here")
    log = room.daemon.log.read_text()
    assert "Traceback" not in log, log


# -- what is odd and right ------------------------------------------------------------------------------------------

ODD = {
    "upper case": INDEX.upper(),
    "mixed case": "InDeX.eXaMpLe.TeSt",
    "trailing dot": f"{INDEX}.",
    "decimal": "3325256706",
    "hex": "0xc6336402",
    "octal": "0306.063.0144.02",
    "three parts": "198.51.25602",
    "mapped": f"[::ffff:{dns.SERVER}]",
    "mapped hex": "[::FFFF:c633:6402]",
    "long IPv6": "[2001:0db8:0000:0000:0000:0000:0000:0002]",
}
"""Spellings of what is allowed."""


@pytest.mark.parametrize("spelling", ODD)
def test_allowed_host_in_an_odd_spelling_is_the_same_host(room: Room, spelling: str) -> None:
    with room.session("odd") as session:
        (talked,) = room.talk(session, [saying(connect_head(ODD[spelling], ECHO), b"ping", enough=43)])
        assert talked.status == 200, talked
        assert {record.host for record in room.log(session)} <= {INDEX, dns.SERVER, dns.SERVER6}


def test_request_in_one_byte_pieces_is_served(room: Room) -> None:
    with room.session("pieces") as session:
        heads = [connect_head(INDEX, ECHO), socks_request(INDEX.encode(), ECHO)]
        conversations = [
            saying(*(bytes([byte]) for byte in head + b"ping"), to=("127.0.0.1", port), pause_s=0.001, enough=enough)
            for head, port, enough in zip(heads, (HTTP_PORT, SOCKS_PORT), (43, 16), strict=True)
        ]
        for talked in room.talk(session, conversations):
            assert talked.got.endswith(b"ping"), talked


def test_bytes_behind_the_request_are_kept(room: Room) -> None:
    with room.session("pipelined") as session:
        behind = os.urandom(40_000)
        conversations = [
            saying(connect_head(INDEX, ECHO) + behind, shut=True),
            saying(socks_request(INDEX.encode(), ECHO) + behind, to=("127.0.0.1", SOCKS_PORT), shut=True),
        ]
        for talked in room.talk(session, conversations):
            assert talked.got.endswith(behind)
            assert talked.end == "eof"


def test_denied_host_is_told_its_reason(room: Room) -> None:
    with room.session("denied") as session:
        (talked,) = room.talk(session, [saying(connect_head(f"denied.{dns.DOMAIN}"))])
        assert b"ask the lab's admin" in talked.got


# -- names that change, do not answer, or lie -----------------------------------------------------------------------


def test_rebinding_name_is_refused_once_it_is_bad(room: Room) -> None:
    """Good, then bad, each time it is asked: never a connection to the bad one, and the log tells both."""
    before = len(room.lab.seen(lambda entry: entry["server"] == "canary"))
    with room.session("rebind") as session:
        talked = [
            room.talk(session, [saying(connect_head(f"rebind.{dns.DOMAIN}", ECHO), b"x", enough=40)])[0]
            for _ in range(4)
        ]
        assert sorted(answer.status for answer in talked) == [200, 200, 403, 403]
        room.wait_for_refusals(session, 2)
    assert len(room.lab.seen(lambda entry: entry["server"] == "canary")) == before


@pytest.mark.parametrize(("name", "status", "reply"), [("missing", 502, 4), ("broken", 502, 4)])
def test_name_that_is_not_there_is_said(room: Room, name: str, status: int, reply: int) -> None:
    host = f"{name}.{dns.DOMAIN}"
    with room.session("names") as session:
        by_http, by_socks = room.talk(
            session,
            [
                saying(connect_head(host), read_s=20),
                saying(socks_request(host.encode()), to=("127.0.0.1", SOCKS_PORT), read_s=20),
            ],
        )
    assert by_http.status == status
    assert by_socks.got == SOCKS_CHOSEN + bytes([5, reply, 0, 1]) + bytes(6)


def test_slow_names_of_one_session_do_not_slow_another(room: Room) -> None:
    """Dozens of look-ups that are never answered, and a neighbour who asks for a name."""
    with room.session("slow") as slow, room.session(NEIGHBOUR) as neighbour:
        hanging = room.start_talk(slow, [saying(connect_head(f"{dns.SILENT}.{dns.DOMAIN}"), read_s=30)] * 40)
        wait_until(lambda: any(line.connections for line in counts(room, slow)), "the look-ups to be on their way")
        for _ in range(5):
            (talked,) = room.talk(neighbour, [saying(GOOD_HEAD, b"x", enough=40)])
            assert talked.status == 200
            assert talked.took_s < 2.0 * busyness()
        answers = finish_talk(hanging)
    assert {answer.status for answer in answers} <= {429, 502, 504}


def counts(room: Room, session: str) -> list[Any]:
    return [line for line in room.client.egress_status().sessions if line.session == session]


# -- around the proxies ---------------------------------------------------------------------------------------------

REACHED = frozenset({"ok", "resolved", "timeout"})
"""What no attempt may come to: even a packet that nobody answers has left."""


@pytest.fixture(scope="module")
def reached(room: Room) -> Iterator[dict[str, str]]:
    """Every way out but the proxies, tried from one session while another is served."""
    state = room.daemon.state
    control = [str(path) for path in (state / ".coworkd" / "run").iterdir() if path.is_socket()]
    assert len(control) >= 2, control
    addresses = [(host, port) for host in (dns.SERVER, dns.GUEST, "169.254.169.254", "10.0.0.2") for port in (80, 8080)]
    asked = {
        "tcp": [*addresses, (dns.RESOLVER, 53)],
        "tcp6": [(dns.SERVER6, 80), (dns.GUEST6, 80), ("::ffff:198.51.100.2", 80)],
        "udp": [(dns.RESOLVER, 53), (dns.SERVER, 9), (dns.SERVER6, 53)],
        "unix": [
            *control,
            str(room.daemon.socket_path),
            f"/tmp/claude-http-{NEIGHBOUR}.sock",
            f"/tmp/claude-socks-{NEIGHBOUR}.sock",
        ],
        "abstract": abstract_names(),
        "name": INDEX,
    }
    with room.session(ATTACKER) as session, room.session(NEIGHBOUR) as neighbour:
        room.run(neighbour, "/bin/true")
        before = len(room.lab.seen())
        script = f"/sessions/{session}/mnt/{FOLDER}/reach.py"
        ran = room.run(session, "/usr/bin/python3", "-I", script, input=json.dumps(asked).encode(), timeout_s=120)
        answers: dict[str, str] = json.loads(ran.stdout)
        answers["seen"] = str(len(room.lab.seen()) - before)
        yield answers


def abstract_names() -> list[str]:
    """The abstract sockets of this machine, and one of ours that surely listens."""
    rows = Path("/proc/net/unix").read_text().splitlines()[1:]
    return sorted({words[7][1:] for words in map(str.split, rows) if len(words) > 7 and words[7].startswith("@")})


def test_no_attempt_around_the_proxies_reaches_anything(reached: dict[str, str]) -> None:
    attempts = {name: answer for name, answer in reached.items() if name not in ("seen", "sockets")}
    assert {name: answer for name, answer in attempts.items() if answer in REACHED} == {}
    assert reached["seen"] == "0"


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("tcp", {"ENETUNREACH"}),
        ("tcp6", {"ENETUNREACH"}),
        ("udp", {"ENETUNREACH"}),
        ("unix", {"ENOENT"}),
        ("seqpacket", {"ENOENT"}),
        ("abstract", {"ECONNREFUSED"}),
        ("vsock", {"EAFNOSUPPORT"}),
        ("packet", {"EAFNOSUPPORT", "EPERM"}),
        ("raw", {"EPERM", "EPROTONOSUPPORT"}),
        ("raw6", {"EPERM", "EPROTONOSUPPORT"}),
    ],
)
def test_way_around_is_refused_by_the_kernel(reached: dict[str, str], kind: str, refused: set[str]) -> None:
    assert {answer for name, answer in reached.items() if name.partition(" ")[0].rstrip(",") == kind} <= refused


def test_sandbox_sees_its_own_sockets_only(reached: dict[str, str]) -> None:
    ours = {word for word in reached["sockets"].split() if word.startswith("claude-")}
    assert ours == {f"claude-http-{ATTACKER}.sock", f"claude-socks-{ATTACKER}.sock"}


def test_each_session_is_judged_by_its_own_policy(room: Room) -> None:
    """The same port of the same address in two sessions: two proxies, two policies, two logs."""
    with room.session(ATTACKER) as session, room.session(NEIGHBOUR) as neighbour:
        settings = compose_settings()
        settings["network"]["allowedDomains"] = [f"other.{dns.DOMAIN}"]
        room.client.session_set_policy(session=session, egress=settings)
        say_index = [saying(GOOD_HEAD, b"x", enough=40)]
        (mine,), (its) = room.talk(session, say_index), room.talk(neighbour, say_index)
        assert (mine.status, its[0].status) == (403, 200)
        assert [record.kind for record in room.log(neighbour, refused_only=True)] == []
        room.wait_for_refusals(session, 1)


def test_sandbox_cannot_replace_its_proxies_sockets(room: Room) -> None:
    with room.session(ATTACKER) as session:
        path = f"/tmp/claude-http-{session}.sock"
        script = f"rm -f {path}; mv {path} /tmp/other; ln -sf /tmp/other {path}; echo x >{path}; test -S {path}"
        room.run(session, "/bin/sh", "-c", script)
        (talked,) = room.talk(session, [saying(GOOD_HEAD, b"x", to=path, enough=40)])
        assert talked.status == 200
        # Nor can it take the ports: they are listened on already.
        binding = "import socket; socket.create_server(('127.0.0.1', 3128), reuse_port=True)"
        ran = room.client.run(session, ["/usr/bin/python3", "-c", binding])
        assert b"Address already in use" in ran.stderr
