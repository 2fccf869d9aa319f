"""The ways on from coworkd-egress, with real clients: an HTTP parent, a SOCKS5 parent, the host, and what goes past a parent."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.root.egress_room import PROFILE, Room, compose_settings, connect_head, saying, write_policies
from tests.root.lab import open_lab
from tests.root.live import client_of
from tests.root.servers import dns
from tests.root.servers.parents import HOST_SOCKET, HTTP_PORT, REFUSED_BY_HOST, SECRET, SOCKS_PORT, USER
from tests.root.servers.plain import ECHO

pytestmark = pytest.mark.needs("netns", "mountns", "bubblewrap", "python3", "curl")

INDEX = f"index.{dns.DOMAIN}"
CREDENTIALS = f"{USER}:{SECRET}"
HTTP_PARENT = f"http://{CREDENTIALS}@{dns.SERVER}:{HTTP_PORT}"
UPSTREAMS = {
    "by-http": f"http://{dns.SERVER}:{HTTP_PORT}",
    "by-socks": f"socks5h://{dns.SERVER}:{SOCKS_PORT}",
    "by-host": "host",
}
SEEN_BY = {"by-settings": "http parent", "by-socks": "socks parent", "by-host": "the host"}


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    """Below a directory that coworkd-egress, an ordinary user, may pass through to the host's socket."""
    directory = Path(tempfile.mkdtemp(prefix="coworkd-lab-"))
    directory.chmod(0o711)
    try:
        policies = write_upstream_policies(directory / "policies")
        uri = f"unix://{directory / 'lab' / HOST_SOCKET}"
        with open_lab(directory / "lab") as lab:
            (directory / "lab").chmod(0o711)
            through = [*lab.guest.entering(), sys.executable, "-m", "tests.root.hosted_local", uri]
            with (
                lab.running_daemon(directory / "coworkd", "--policies", str(policies), through=through) as daemon,
                client_of(daemon) as client,
            ):
                client.ca_install(name="lab", pem=lab.certificates.authority.read_text())
                yield Room(lab=lab, daemon=daemon, client=client)
    finally:
        shutil.rmtree(directory)


def write_upstream_policies(directory: Path) -> Path:
    """A profile for each upstream; `by-settings` has its parent, with NO_PROXY rules, from the settings file."""
    write_policies(directory)
    settings = compose_settings()
    settings["network"]["allowedDomains"].append(REFUSED_BY_HOST)
    (directory / "egress" / f"{PROFILE}.json").write_text(json.dumps(settings))
    for name, upstream in UPSTREAMS.items():
        write_profile(directory, name, PROFILE, f'upstream = "{upstream}"\n')
    settings["network"]["parentProxy"] = {"http": HTTP_PARENT, "noProxy": f"other.{dns.DOMAIN}"}
    (directory / "egress" / "by-settings.json").write_text(json.dumps(settings))
    write_profile(directory, "by-settings", "by-settings", "")
    return directory


def write_profile(directory: Path, name: str, settings: str, more: str) -> None:
    text = f'inherits = "default"\n[egress]\nsettings = "{settings}"\n{more}'
    (directory / "profiles" / f"{name}.toml").write_text(text)


def asked(room: Room, parent: str) -> list[dict[str, Any]]:
    return room.lab.seen(lambda entry: entry["server"] == parent)


@pytest.mark.parametrize("profile", SEEN_BY)
@pytest.mark.parametrize("url", [f"https://{INDEX}/hello", f"http://{INDEX}/hello", f"ftp://{INDEX}/hello.txt"])
def test_curl_goes_through_the_upstream(room: Room, profile: str, url: str) -> None:
    parent = SEEN_BY[profile]
    with room.session("through", profile=profile) as session:
        before = len(asked(room, parent))
        assert room.run(session, "/usr/bin/curl", "-sS", url).stdout.startswith(b"hello from")
        requests = asked(room, parent)[before:]
        assert requests
        assert all(INDEX in entry["request"] for entry in requests)
        opened = [record for record in room.log(session) if record.kind == "open"]
        assert opened
        assert all(record.upstream not in ("", "direct") for record in opened)
        assert not any(SECRET in repr(record) for record in opened)


def test_host_is_told_whose_connection_it_is(room: Room) -> None:
    with room.session("whose", profile="by-host") as session:
        room.run(session, "/usr/bin/curl", "-sS", f"https://{INDEX}/hello")
        assert asked(room, "the host")[-1]["session"] == session


def test_refusal_of_the_host_is_a_refusal_here(room: Room) -> None:
    with room.session("refused", profile="by-host") as session:
        (talked,) = room.talk(session, [saying(connect_head(REFUSED_BY_HOST))])
        assert talked.status == 403
        room.wait_for_refusals(session, 1)


@pytest.mark.parametrize("profile", SEEN_BY)
def test_allowlist_and_literals_are_judged_before_any_upstream(room: Room, profile: str) -> None:
    with room.session("judged", profile=profile) as session:
        before = len(asked(room, SEEN_BY[profile]))
        refused = (f"unlisted.{dns.DOMAIN}", f"denied.{dns.DOMAIN}", "127.0.0.1", "169.254.169.254", "0x7f000001")
        talked = room.talk(session, [saying(connect_head(host, 80)) for host in refused])
        assert [answer.status for answer in talked] == [403] * len(refused)
        assert len(asked(room, SEEN_BY[profile])) == before


def test_parent_without_its_credentials_is_said(room: Room) -> None:
    with room.session("unknown", profile="by-http") as session:
        (talked,) = room.talk(session, [saying(connect_head(INDEX))])
        assert talked.status == 502
        assert b"credentials" in talked.got.lower()


def test_no_proxy_goes_past_the_parent(room: Room) -> None:
    with room.session("past", profile="by-settings") as session:
        before = len(asked(room, "http parent"))
        (talked,) = room.talk(session, [saying(connect_head(f"other.{dns.DOMAIN}", ECHO), b"x", enough=40)])
        assert talked.status == 200
        assert len(asked(room, "http parent")) == before
        assert room.log(session)[0].upstream == "direct"
