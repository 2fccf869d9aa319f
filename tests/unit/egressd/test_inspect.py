from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coworkd.egressd.inspect import Inspecting
from coworkd.egressd.inspect_ca import InspectionCa
from coworkd.egressd.inspect_pump import InspectedPump
from coworkd.egressd.pump import Inspector, Pump
from coworkd.model.egress import EgressLimits, EgressSettings, Inspection, SessionEgress
from tests.unit.certificates import make, make_authority
from tests.unit.egressd.egress_house import Client, House, open_house
from tests.unit.egressd.inspected_room import Peer, trusting


def nothing(method: str, path: str, status: int, reason: str) -> bool:
    raise AssertionError("nothing was asked")


def test_the_authority_is_made_once_and_when_it_is_asked_for() -> None:
    made: list[InspectionCa] = []

    def make_ca() -> InspectionCa:
        made.append(InspectionCa())
        return made[-1]

    inspector: Inspector = Inspecting(make_ca)
    assert made == []
    assert inspector.ca_pem() == made[0].pem
    inspector.inspect("a.example", 443, Inspection(domains=("a.example",)), nothing)
    assert len(made) == 1


def test_each_connection_has_a_pump_that_speaks_first_to_the_server() -> None:
    pump: Pump = Inspecting().inspect("a.example", 443, Inspection(), nothing)
    assert isinstance(pump, InspectedPump)
    hello = pump.start()
    assert hello.client == b""
    assert hello.upstream[:1] == b"\x16"
    assert b"a.example" in hello.upstream


def test_a_name_that_tls_cannot_ask_for_is_no_fault_of_ours() -> None:
    pump = Inspecting().inspect(f"{'a' * 64}.example", 443, Inspection(), nothing)
    assert pump.start() == (b"", b"")
    assert not pump.ended


def trusted(ca: InspectionCa) -> list[str]:
    """The common names beside the system's."""
    ours = ca.client_context().get_ca_certs()
    system = InspectionCa().client_context().get_ca_certs()
    return [str(one["subject"]) for one in ours if one not in system]


def test_what_a_host_installed_is_trusted_of_servers() -> None:
    ca = InspectionCa()
    inspecting = Inspecting(lambda: ca)
    inspecting.trust(make_authority().pem)
    assert trusted(ca) == []  # nothing is loaded before inspection is used
    inspecting.ca_pem()
    assert "Acme Root" in trusted(ca)[0]
    inspecting.trust(make_authority("Other Root").pem)
    assert ["Other Root" in name for name in trusted(ca)] == [True]
    inspecting.trust("")
    assert trusted(ca) == []


def test_it_costs_nothing_until_it_is_used() -> None:
    script = (
        "import sys; import coworkd.egressd.inspect; "
        "print([name for name in ('ssl', 'h11', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- through a whole coworkd-egress, by sockets -------------------------------------------------------------------

HOST = "server.example"
ROOT = make_authority()
SERVER = make(HOST, by=ROOT, hosts=(HOST,)).server_context()
APPROVED = hashlib.sha256(b"one").hexdigest()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    inspecting = Inspecting()
    inspecting.trust(ROOT.pem)
    with open_house(str(tmp_path), monkeypatch, inspector=inspecting) as opened:
        opened.begin()
        yield opened


def inspected(*tokens: str, limits: EgressLimits | None = None) -> SessionEgress:
    inspection = Inspection(domains=(HOST,), token_sha256=tokens)
    settings = EgressSettings(source="test.json", allowed=(HOST,), inspect=inspection)
    return SessionEgress(settings=(settings,), limits=limits or EgressLimits())


class Talk:
    """A client that spoke TLS through the proxy, and its server; every byte goes through real sockets."""

    def __init__(self, house: House, *tokens: str, limits: EgressLimits | None = None) -> None:
        self.house = house
        server = house.server()
        self.port = server.port
        self._client = house.client(house.serve(inspected(*tokens, limits=limits)))
        assert b" 200 " in self._client.connect(f"{HOST}:{server.port}")
        self._server = server.accept()
        self.client = Peer(trusting(house.egress.state.inspector.ca_pem()), server_hostname=HOST)
        self.server = Peer(SERVER, server_side=True)
        self._unsent = {self._client: b"", self._server: b""}
        self.client.say(b"")

    def until(self, condition: Callable[[], object]) -> None:
        def so() -> object:
            self._move()
            return condition()

        self.house.until(so)

    def ask(self, *lines: str, body: bytes = b"") -> None:
        head = "\r\n".join([*lines, f"Host: {HOST}:{self.port}", "", ""])
        self.client.say(head.encode() + body)

    def exchange(self, path: str, body: bytes, count: int) -> None:
        """A request and its answer, the `count`th of that body."""
        self.ask(f"GET {path} HTTP/1.1")
        self.until(lambda: f"GET {path} ".encode() in self.server.heard)
        self.server.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self.until(lambda: self.client.heard.count(body) == count)

    def requests(self) -> list[tuple[str, str, int]]:
        return [(one.method, one.path, one.status) for one in self.house.events if one.kind == "request"]

    def _move(self) -> None:
        for peer, connection in ((self.client, self._client), (self.server, self._server)):
            self._send(connection, peer.outgoing.read())
            self._take(peer, connection)

    def _send(self, connection: Client, data: bytes) -> None:
        data = self._unsent[connection] + data
        while data:
            try:
                data = data[connection.socket.send(data) :]
            except BlockingIOError:
                break
        self._unsent[connection] = data

    def _take(self, peer: Peer, connection: Client) -> None:
        try:
            while not connection.ended:
                data = connection.socket.recv(65536)
                connection.ended = not data
                if data:
                    peer.receive(data)
        except BlockingIOError:
            return


def test_requests_are_passed_judged_and_told(house: House) -> None:
    talk = Talk(house, APPROVED)
    talk.ask("GET /a?key=1 HTTP/1.1", "X-Api-Key: one")
    talk.until(lambda: b"\r\n\r\n" in talk.server.heard)
    assert b"GET /a?key=1 HTTP/1.1\r\n" in talk.server.heard
    talk.server.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    talk.until(lambda: talk.client.heard.endswith(b"ok"))
    talk.ask("GET /b HTTP/1.1", "X-Api-Key: two")
    talk.until(lambda: talk.client.ended)
    assert b" 401 " in talk.client.heard
    assert not talk.client.torn
    talk.until(lambda: "close" in house.kinds())
    assert talk.requests() == [("GET", "/a", 200), ("GET", "/b", 401)]
    assert house.kinds() == ["open", "request", "request", "close"]
    assert b"/b" not in talk.server.heard


def test_requests_count_for_the_sessions_rate(house: House) -> None:
    """Each is a record: who keeps one connection open fills the log no faster than others do."""
    talk = Talk(house, limits=EgressLimits(rate_per_s=1, burst=2))
    for number, path in enumerate(("/0", "/1", "/2"), 1):
        talk.exchange(path, b"ok", number)
    talk.until(lambda: talk.client.ended)
    assert not talk.client.torn
    assert [path for _, path, _ in talk.requests()] == ["/0", "/1", "/2"]


def test_large_bodies_arrive_whole_both_ways(house: House) -> None:
    talk = Talk(house)
    up, down = bytes(range(256)) * 8192, bytes(range(255, -1, -1)) * 16384
    talk.ask("PUT /a HTTP/1.1", f"Content-Length: {len(up)}", body=up)
    talk.until(lambda: talk.server.heard.endswith(up))
    talk.server.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(down)}\r\n\r\n".encode() + down)
    talk.until(lambda: talk.client.heard.endswith(down))
    assert talk.requests() == [("PUT", "/a", 200)]


def test_a_refused_upload_still_gets_its_answer(house: House) -> None:
    talk = Talk(house, APPROVED)
    talk.ask("PUT /a HTTP/1.1", "Content-Length: 200000", body=bytes(200000))
    talk.until(lambda: talk.client.ended)
    assert talk.client.heard.startswith(b"HTTP/1.1 401 ")
    assert talk.server.heard == b""


def test_no_way_around_by_plain_http(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(inspected(APPROVED)))
    client.say(f"GET http://{HOST}:{server.port}/a HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode())
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 403 ")
    assert not server.is_asked


def test_no_way_around_by_plain_bytes_in_a_tunnel(house: House) -> None:
    server = house.server()
    client = house.client(house.serve(inspected(APPROVED)))
    client.connect(f"{HOST}:{server.port}")
    client.say(b"GET /a HTTP/1.1\r\n\r\n")
    assert client.hear().startswith(b"HTTP/1.1 400 ")
    house.until(lambda: "close" in house.kinds())
    assert [event.kind for event in house.events] == ["open", "request", "close"]
    assert "TLS is expected" in house.events[1].reason
