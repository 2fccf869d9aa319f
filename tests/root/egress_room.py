"""What tests of egress with a real coworkd share: the policies, sessions in the lab, and conversations from inside a sandbox."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.calls import EgressRecord, ProcessRan
from coworkd.model.session import FolderGrant
from tests.root.conftest import Daemon
from tests.root.lab import Lab, open_lab
from tests.root.live import client_of, exited, session_of, wait_until
from tests.root.servers import dns

PROFILE = "lab"
HTTP_PORT, SOCKS_PORT = 3128, 1080
CLIENTS = Path(__file__).resolve().parent / "egress_clients"
FOLDER = "clients"
LITERALS = (
    *("127.0.0.1", "127.8.9.10", "169.254.169.254", "100.100.100.200", dns.GUEST, "10.0.0.2", "0.0.0.0"),
    *("255.255.255.255", "224.0.0.1", "[::1]", "[fd00:ec2::254]", f"[{dns.GUEST6}]", "[fe80::1]", "localhost"),
)
"""Addresses that the allowlist lets pass, so that only the guard stands between a session and them."""
ALLOWED = (
    *(f"{name}.{dns.DOMAIN}" for name in (*dns.GOOD, *dns.BAD, *dns.TURNING, dns.SILENT, dns.BROKEN, "missing")),
    *(dns.SERVER, f"[{dns.SERVER6}]", *LITERALS, "*.deep.example.test"),
)
NEVER_ALLOWED = (f"unlisted.{dns.DOMAIN}", f"temporary.{dns.DOMAIN}")
DENIED_REASON = "ask the lab's admin"
PROFILE_TEXT = """\
inherits = "default"
[egress]
settings = "lab"
allow_max_s = 3600
"""
CEILING_TEXT = """\
[egress]
allow_max_s = 3600
"""


def compose_settings(**more: Any) -> dict[str, Any]:
    """An srt-settings object for the lab; `more` is our own `coworkd` key."""
    settings: dict[str, Any] = {
        "network": {
            "allowedDomains": [name for name in ALLOWED if name not in NEVER_ALLOWED],
            "deniedDomains": [f"denied.{dns.DOMAIN}"],
            "deniedDomainReasons": {f"denied.{dns.DOMAIN}": DENIED_REASON},
        },
        "filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []},
    }
    return {**settings, "coworkd": more} if more else settings


def write_policies(directory: Path, **more: Any) -> Path:
    """An admin's policies with the profile `lab`."""
    for name in ("profiles", "egress"):
        (directory / name).mkdir(parents=True)
    (directory / "profiles" / f"{PROFILE}.toml").write_text(PROFILE_TEXT)
    (directory / "ceiling.toml").write_text(CEILING_TEXT)
    (directory / "egress" / f"{PROFILE}.json").write_text(json.dumps(compose_settings(**more)))
    return directory


class Room(Struct, frozen=True, kw_only=True):
    """A lab with a running coworkd and a client of it."""

    lab: Lab
    daemon: Daemon
    client: Client

    @contextlib.contextmanager
    def session(self, name: str, **fields: Any) -> Iterator[str]:
        """A session of the profile `lab` with the clients' folder."""
        folders = [*self.folders(), *fields.pop("folders", [])]
        with session_of(self.client, name, profile=fields.pop("profile", PROFILE), folders=folders, **fields):
            yield name

    def folders(self) -> list[FolderGrant]:
        return [FolderGrant(name=FOLDER, source=str(CLIENTS), mode="ro")]

    def run(self, session: str, *argv: str, timeout_s: float = 60.0, **fields: Any) -> ProcessRan:
        """A command of the session that has to end with 0."""
        ran = self.client.run(session, list(argv), timeout_s=timeout_s, **fields)
        assert ran.exit == exited(0), (argv, ran.exit, ran.stdout[-2000:], ran.stderr[-2000:])
        return ran

    def start_talk(self, session: str, conversations: Sequence[dict[str, Any]]) -> Process:
        """Begin the conversations (see `egress_clients/talk.py`) inside a sandbox of the session; `finish_talk` tells how they went."""
        script = f"/sessions/{session}/mnt/{FOLDER}/talk.py"
        process = self.client.start(session, ["/usr/bin/python3", "-I", script], stdin=True)
        process.write_stdin(json.dumps(conversations).encode())
        process.close_stdin()
        return process

    def talk(self, session: str, conversations: Sequence[dict[str, Any]]) -> list[Talked]:
        """Each conversation, all at once, to its end."""
        return finish_talk(self.start_talk(session, conversations))

    def log(self, session: str, *, refused_only: bool = False) -> tuple[EgressRecord, ...]:
        return self.client.egress_log(session=session, limit=1000, refused_only=refused_only).records

    def egress_pid(self) -> int:
        """coworkd-egress, once there is one: neither coworkd nor a new session waits for it."""
        wait_until(lambda: self.client.egress_status().pid, "a coworkd-egress")
        return self.client.egress_status().pid

    def refusals(self, session: str) -> int:
        """How many refusals the log has, repeats counted."""
        return sum(record.count for record in self.log(session, refused_only=True))

    def wait_for_refusals(self, session: str, count: int) -> None:
        """Refusals are told within moments, repeats within a second."""
        wait_until(
            lambda: self.refusals(session) >= count, f"{count} refusals of {session}, not {self.refusals(session)}"
        )


class Talked(Struct, frozen=True, kw_only=True):
    """What came back, and how it ended: `eof`, `more`, `timeout`, or the name of an error."""

    got: bytes
    end: str
    took_s: float

    @property
    def status(self) -> int:
        """The status of an HTTP answer; 0 where there is none."""
        words = self.got.split(b" ", 2)
        return int(words[1]) if self.got.startswith(b"HTTP/1.") and len(words) > 1 else 0


def finish_talk(process: Process) -> list[Talked]:
    """Wait for the conversations of `start_talk`, and forget their process."""
    with process:
        pieces = list(process)
    said = b"".join(piece.data for piece in pieces if piece.stream == "stdout")
    assert said, b"".join(piece.data for piece in pieces)
    return [Talked(got=bytes.fromhex(each["got"]), end=each["end"], took_s=each["took_s"]) for each in json.loads(said)]


@contextlib.contextmanager
def open_room(directory: Path, **more: Any) -> Iterator[Room]:
    """The lab, a coworkd on its guest side whose admin allows what `ALLOWED` says, and a client. `more`: see `compose_settings`."""
    policies = write_policies(directory / "policies", **more)
    with (
        open_lab(directory / "lab") as lab,
        lab.running_daemon(directory / "coworkd", "--policies", str(policies)) as daemon,
        client_of(daemon) as client,
    ):
        yield Room(lab=lab, daemon=daemon, client=client)


# -- what is said to a proxy ----------------------------------------------------------------------------------------


def saying(*pieces: bytes, to: Any = ("127.0.0.1", HTTP_PORT), **fields: Any) -> dict[str, Any]:
    return {"to": to if isinstance(to, str) else list(to), "send": [piece.hex() for piece in pieces], **fields}


def connect_head(host: str, port: int | str = 443) -> bytes:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode("latin-1")


def socks_request(host: bytes, port: int = 443, *, command: int = 1, kind: int = 3) -> bytes:
    """The whole of a client's side, sent at once; `host` is packed for kinds 1 and 4."""
    address = bytes([len(host)]) + host if kind == 3 else host
    return b"\x05\x01\x00" + bytes([5, command, 0, kind]) + address + port.to_bytes(2, "big")
