"""The vectors of docs/protocol.md through both ends, and every rule's proof.

What bytes mean is told by the msgpack library, not by `coworkd.wire`.
"""

from __future__ import annotations

import ast
import re
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.wire.connection import Connection, Event, Notification, Request, Response
from coworkd.wire.hybrid import HybridAccept, HybridDial, compose_ok
from coworkd.wire.limits import RemoteProtocolError, Role
from coworkd.wire.resync import GuestResync, HostResync
from coworkd.wire.stream import StreamEvents
from tests.conformance.rpc_house import serve

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "vectors"
INDEX: list[dict[str, Any]] = tomllib.loads((FOLDER / "vectors.toml").read_text())["vector"]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
RULE = re.compile(r"^\| ([A-Z]-\d+) \|", re.MULTILINE)
HELLO = msgpack.packb([0, 900, "hello", [{"client": "c", "protocol": {"min": 1, "max": 1}}]])


def vectors(kind: str, encode: bool | None = None) -> pytest.MarkDecorator:
    chosen = [vector for vector in INDEX if vector["expect"] == kind and encode in (None, vector["encode"])]
    return pytest.mark.parametrize("vector", chosen, ids=[vector["name"] for vector in chosen])


def bytes_of(vector: dict[str, Any]) -> bytes:
    file: str = vector["file"]
    return (FOLDER / file).read_bytes()


def receivers(vector: dict[str, Any]) -> list[Role]:
    roles: dict[str, list[Role]] = {"host": ["guest"], "guest": ["host"], "both": ["guest", "host"]}
    return roles[vector["from"]]


def receiver(vector: dict[str, Any], role: Role) -> Connection:
    """The receiving end; a host has a request of id 0 waiting for its answer."""
    connection = Connection(role)
    if role == "host":
        connection.send_request("ping", {})
    if vector["after_hello"]:
        connection.greeted()
    return connection


def feed(connection: Connection, data: bytes, piece: int) -> list[Event]:
    events: list[Event] = []
    for start in range(0, len(data), piece):
        connection.receive_data(data[start : start + piece])
        events.extend(iter(connection.next_event, None))
    return events


def meant(data: bytes) -> list[Event]:
    """The events of accepted bytes, by the msgpack library and W-2, W-4 and W-5."""
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=len(data))
    unpacker.feed(data)
    events: list[Event] = []
    for message in unpacker:
        if message[0] == 1:
            events.append(Response(id=message[1], error=message[2], result=message[3]))
            continue
        method = message[-2].decode() if isinstance(message[-2], bytes) else message[-2]
        params = message[-1][0] if message[-1] else {}
        if message[0] == 0:
            events.append(Request(id=message[1], method=method, params=params))
        else:
            events.append(Notification(method=method, params=params))
    return events


@vectors("event")
def test_the_receiving_end_reads_what_is_meant(vector: dict[str, Any]) -> None:
    data = bytes_of(vector)
    for role in receivers(vector):
        assert feed(receiver(vector, role), data, len(data)) == meant(data)


@vectors("event")
def test_the_same_bytes_in_pieces_mean_the_same(vector: dict[str, Any]) -> None:
    data = bytes_of(vector)
    for role in receivers(vector):
        assert feed(receiver(vector, role), data, 1 if len(data) < 32_768 else 4093) == meant(data)


@vectors("event", encode=True)
def test_the_sending_end_sends_these_very_bytes(vector: dict[str, Any]) -> None:
    data = bytes_of(vector)
    (event,) = meant(data)
    if isinstance(event, Request):
        sent = Connection("host").send_request(event.method, event.params)
        assert sent == (event.id, data)
        return
    guest = Connection("guest")
    if isinstance(event, Notification):
        assert guest.send_notification(event.method, event.params) == data
        return
    guest.receive_data(msgpack.packb([0, event.id, "ping", [{}]]))
    guest.next_event()
    sent_back = guest.send_error(event.id, event.error) if event.error else guest.send_response(event.id, event.result)
    assert sent_back == data


@pytest.mark.parametrize("name", ["output", "output-eof", "stream-data", "stream-eof"])
def test_what_is_sent_without_copying_means_the_same(name: str) -> None:
    (event,) = meant((FOLDER / f"{name}.bin").read_bytes())
    assert isinstance(event, Notification)
    params = dict(event.params)
    data, offset, eof = params.pop("data"), params.pop("offset"), params.pop("eof", False)
    frame = b"".join(StreamEvents(event.method, params).frame(offset, data, eof=eof))
    assert meant(frame) == [event]


def test_a_hybrid_socket_is_asked_and_answers_in_these_bytes() -> None:
    asked, answer = ((FOLDER / f"hybrid-{name}.bin").read_bytes() for name in ("connect", "ok"))
    dial = HybridDial(5005)
    assert dial.request == asked
    assert HybridAccept().feed(asked) == (5005, b"")
    assert dial.feed(answer + b"\x94") == b"\x94"
    assert compose_ok(1073741824) == answer


def test_a_virtio_serial_link_begins_with_these_bytes() -> None:
    mark, answer = ((FOLDER / f"resync-{name}.bin").read_bytes() for name in ("mark", "answer"))
    host = HostResync(bytes(range(16)))
    assert host.mark == mark
    assert host.feed(answer + b"\x94") == b"\x94"
    assert GuestResync().feed(b"\x94\x00 an old half" + mark) == (mark, b"")


@vectors("breach")
def test_a_breach_is_refused_for_good(vector: dict[str, Any]) -> None:
    data = bytes_of(vector)
    for role in receivers(vector):
        for piece in (len(data), 1 if len(data) < 32_768 else 4093):
            connection = receiver(vector, role)
            with pytest.raises(RemoteProtocolError) as caught:
                feed(connection, data, piece)
            assert caught.value.rule == vector["rule"]
            with pytest.raises(RemoteProtocolError):
                connection.next_event()


@vectors("more")
def test_the_receiving_end_waits_for_the_rest(vector: dict[str, Any]) -> None:
    for role in receivers(vector):
        assert feed(receiver(vector, role), bytes_of(vector), 1) == []


class Peer:
    """A host of raw bytes."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._unpacker = msgpack.Unpacker(max_buffer_size=8 * 2**20)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> Any:
        """The next message, None at the end of the link."""
        while True:
            for message in self._unpacker:
                return message
            data = self._socket.recv(65536)
            if not data:
                return None
            self._unpacker.feed(data)

    def answers(self, count: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < count:
            message = self.receive()
            assert message is not None, f"the link ended after {found}"
            if message[0] == 1:
                found.append(message)
        return found


def code_of(answer: Any) -> str:
    return "OK" if answer[2] is None else answer[2]["code"]


@vectors("code")
def test_a_guest_answers(vector: dict[str, Any], tmp_path: Path) -> None:
    data = bytes_of(vector)
    requests = [] if "V-1" in vector["rules"] else [event for event in meant(data) if isinstance(event, Request)]
    with serve(tmp_path, token="right" if "H-4" in vector["rules"] else None) as path, Peer(path) as peer:
        if vector["after_hello"]:
            peer.send(HELLO)
            assert code_of(peer.answers(1)[0]) == "OK"
        peer.send(data)
        told = peer.answers(len(requests)) if requests else [[1, 0, peer.receive()[2][0], None]]
        assert {code_of(answer) for answer in told} == {vector["code"]}
        if vector["closes"]:
            assert peer.receive() is None
        else:
            peer.send(HELLO if not vector["after_hello"] else msgpack.packb([0, 901, "ping", [{}]]))
            assert peer.answers(1)[0][1] in (900, 901)


def test_the_same_request_id_gives_the_very_same_answer(tmp_path: Path) -> None:
    with serve(tmp_path) as path, Peer(path) as peer:
        peer.send(HELLO + (FOLDER / "request-id-twice.bin").read_bytes())
        _, first, second = peer.answers(3)
        assert first[3] == second[3]
        assert first[3]["stderr"] == b"run 1"


def test_the_nearest_spelling_is_named(tmp_path: Path) -> None:
    with serve(tmp_path) as path, Peer(path) as peer:
        peer.send(HELLO + (FOLDER / "unknown-method.bin").read_bytes())
        assert "process.run" in peer.answers(2)[1][2]["message"]
        peer.send((FOLDER / "unknown-param.bin").read_bytes())
        error = peer.answers(1)[0][2]
        assert "timeout_s" in error["message"]
        assert error["details"]["key"] == "timeout"


def test_the_script_makes_the_vectors_that_are_here() -> None:
    script = runpy.run_path(str(FOLDER / "make_vectors.py"))
    made = script["vectors"]()
    assert {vector.name for vector in made} == {path.stem for path in FOLDER.glob("*.bin")}
    assert [vector.name for vector in made if (FOLDER / f"{vector.name}.bin").read_bytes() != vector.data] == []
    assert script["index_of"](made) == (FOLDER / "vectors.toml").read_text()


def rules() -> list[str]:
    return RULE.findall(PROTOCOL.partition("## Rules shown by tests")[0])


def behaviours() -> dict[str, list[str]]:
    """Rule → the tests that show it, from the table at the end of the page."""
    section = PROTOCOL.partition("## Rules shown by tests")[2]
    rows = re.findall(r"^\| ((?:[A-Z]-\d+ ?)+) \| (.*) \|$", section, re.MULTILINE)
    return {rule: re.findall(r"`([^`]+)`", tests) for names, tests in rows for rule in names.split()}


def test_no_rule_has_two_meanings() -> None:
    assert len(rules()) == len(set(rules()))


def test_every_rule_has_a_vector_or_a_test() -> None:
    shown = {rule for vector in INDEX for rule in vector["rules"]} | set(behaviours())
    assert [rule for rule in rules() if rule not in shown] == []


def test_every_vector_shows_rules_that_exist() -> None:
    assert {rule for vector in INDEX for rule in vector["rules"]} <= set(rules())
    assert set(behaviours()) <= set(rules())


def test_every_test_that_a_rule_names_exists() -> None:
    missing = []
    for rule, tests in behaviours().items():
        assert tests, f"{rule} names no test"
        for named in tests:
            path, _, name = named.partition("::")
            source = ROOT / "tests" / path
            tree = ast.parse(source.read_text()) if source.is_file() else ast.parse("")
            functions = {
                node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            if name not in functions:
                missing.append(f"{rule}: {named}")
    assert missing == []
