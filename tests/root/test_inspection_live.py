"""Inspection with everything real: tools in a session, coworkd-egress, servers in the lab. One name is looked into, and no other."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator

import pytest

from coworkd.model.session import FolderGrant
from tests.root.egress_room import FOLDER, Room, connect_head, open_room, saying
from tests.root.live import wait_until
from tests.root.servers import dns, packages
from tests.root.servers.web import pattern

pytestmark = pytest.mark.needs("netns", "mountns", "bubblewrap", "python3", "curl")

HOST = f"inspected.{dns.DOMAIN}"
HTTPS = f"https://{HOST}"
HELLO = f"hello from https, {HOST}\n".encode()
SESSION = "inspected"
PINNED = "pinned"
LIBRARIES = "libraries"
SCRIPTS = f"/sessions/{SESSION}/mnt/{FOLDER}"
TOKEN = "tok-1"
ISSUER = (
    "import socket, ssl, sys; c = socket.create_connection(('127.0.0.1', 3128));"
    "c.sendall(f'CONNECT {sys.argv[1]}:443 HTTP/1.1\\r\\nHost: {sys.argv[1]}:443\\r\\n\\r\\n'.encode()); c.recv(4096);"
    "t = ssl.create_default_context().wrap_socket(c, server_hostname=sys.argv[1]);"
    "print(dict(x[0] for x in t.getpeercert()['issuer'])['commonName'])"
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with open_room(tmp_path_factory.mktemp("inspection"), inspect={"domains": [HOST]}) as opened:
        yield opened


@pytest.fixture(scope="module")
def session(room: Room) -> Iterator[str]:
    """A session that was open before the lab's authority was installed."""
    libraries = FolderGrant(name=LIBRARIES, source=sysconfig.get_path("platlib"), mode="ro")
    with room.session(SESSION, folders=[libraries]) as name:
        refused = room.run(name, "/usr/bin/curl", "-sS", f"{HTTPS}/hello").stdout
        assert b"its certificate is not trusted" in refused, refused
        room.client.ca_install(name="lab", pem=room.lab.certificates.authority.read_text())
        yield name


def requests(room: Room, session: str) -> list[tuple[str, str, int]]:
    return [(each.method, each.path, each.status) for each in room.log(session) if each.kind == "request"]


def told(room: Room, session: str, *expected: tuple[str, str, int]) -> None:
    """These were the last."""
    wait_until(lambda: requests(room, session)[-len(expected) :] == list(expected), f"{expected} in the log")


def test_a_request_is_told_without_its_query(room: Room, session: str) -> None:
    assert room.run(session, "/usr/bin/curl", "-sS", f"{HTTPS}/hello?key=secret").stdout == HELLO
    told(room, session, ("GET", "/hello", 200))
    assert "secret" not in str(room.log(session))
    assert room.lab.seen(lambda entry: str(entry.get("request")).startswith("GET /hello?key=secret "))


def test_only_the_named_host_is_looked_into(room: Room, session: str) -> None:
    python = ["/usr/bin/python3", "-c", ISSUER]
    assert b"inspection" in room.run(session, *python, HOST).stdout
    assert b"inspection" not in room.run(session, *python, f"index.{dns.DOMAIN}").stdout


@pytest.mark.parametrize("path", ["bytes", "chunked", "until-close"])
def test_bodies_of_every_framing_arrive_whole(room: Room, session: str, path: str) -> None:
    script = f"curl -sS {HTTPS}/{path}/3000000 | sha256sum"
    said = room.run(session, "/bin/bash", "-o", "pipefail", "-c", script).stdout.split()[0]
    assert said == hashlib.sha256(pattern(3_000_000)).hexdigest().encode()


def test_uploads_arrive_whole_in_both_framings(room: Room, session: str) -> None:
    script = f"""
    head -c 1500000 /dev/urandom >/tmp/body
    curl -sS --data-binary @/tmp/body {HTTPS}/echo | cmp - /tmp/body
    curl -sS -H 'Transfer-Encoding: chunked' --data-binary @/tmp/body {HTTPS}/echo | cmp - /tmp/body
    curl -sS -H 'Expect: 100-continue' -T /tmp/body {HTTPS}/echo | cmp - /tmp/body
    """
    room.run(session, "/bin/bash", "-eo", "pipefail", "-c", script)
    told(room, session, ("POST", "/echo", 200), ("POST", "/echo", 200), ("PUT", "/echo", 200))


def test_requests_share_one_connection(room: Room, session: str) -> None:
    opened = len([each for each in room.log(session) if each.kind == "open"])
    room.run(session, "/usr/bin/curl", "-sS", *[f"{HTTPS}/status/204"] * 3)
    told(room, session, *[("GET", "/status/204", 204)] * 3)
    assert len([each for each in room.log(session) if each.kind == "open"]) == opened + 1


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["/usr/bin/wget", "-qO-"], marks=pytest.mark.needs("wget"), id="wget"),
        pytest.param(["/usr/bin/python3", f"{SCRIPTS}/with_requests.py"], id="requests"),
        pytest.param(["/usr/bin/python3", f"{SCRIPTS}/with_urllib.py"], id="urllib"),
        pytest.param(["/usr/bin/node", f"{SCRIPTS}/with_fetch.mjs"], marks=pytest.mark.needs("node"), id="node"),
        pytest.param(["/usr/bin/java", f"{SCRIPTS}/Fetch.java"], marks=pytest.mark.needs("java"), id="java"),
    ],
)
def test_tools_trust_the_inspection(room: Room, session: str, command: list[str]) -> None:
    environment = {"PYTHONPATH": f"/sessions/{SESSION}/mnt/{LIBRARIES}"}
    before = requests(room, session).count(("GET", "/hello", 200))
    said = room.run(session, *command, f"{HTTPS}/hello", env=environment, timeout_s=120).stdout
    assert HELLO.strip() in said
    wait_until(lambda: requests(room, session).count(("GET", "/hello", 200)) > before, "the request in the log")


@pytest.mark.needs("git")
def test_git_clones(room: Room, session: str) -> None:
    script = f"cd /tmp && rm -rf work && git clone -q {HTTPS}/git/{packages.REPOSITORY} work && ls work"
    assert room.run(session, "/bin/sh", "-ec", script).stdout


def test_no_way_around(room: Room, session: str) -> None:
    plain, bytes_in_tunnel = room.talk(
        session,
        [
            saying(f"GET http://{HOST}/hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()),
            saying(connect_head(HOST, 80) + b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"),
        ],
    )
    assert (plain.status, b"use https://" in plain.got) == (403, True)
    assert b"HTTP/1.1 400 " in bytes_in_tunnel.got


def test_a_session_can_be_pinned_to_a_token(room: Room, session: str) -> None:
    pinned = {"domains": [HOST], "token_sha256": [hashlib.sha256(TOKEN.encode()).hexdigest()]}
    settings = {
        "network": {"allowedDomains": [HOST], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []},
        "coworkd": {"inspect": pinned},
    }
    curl = ["/usr/bin/curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null"]
    with room.session(PINNED) as name:
        room.client.session_set_policy(session=name, egress=settings)
        said = [
            room.run(name, *curl, *fields, f"{HTTPS}/headers").stdout
            for fields in (
                [],
                ["-H", "X-Api-Key: tok-2"],
                ["-H", f"X-Api-Key: {TOKEN}"],
                ["-H", f"Authorization: Bearer {TOKEN}"],
                ["-H", f"Authorization: Bearer {TOKEN}", "-H", "X-Api-Key: tok-2"],
            )
        ]
        assert said == [b"401", b"401", b"200", b"200", b"401"]
        assert TOKEN not in str(room.log(name))
    assert room.lab.seen(lambda entry: ["X-Api-Key", "tok-2"] in entry.get("headers", [])) == []
