"""Bridges for real: into sessions, out of one where an admin said so, and nowhere that nobody said."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.bridge import BridgeInfo
from coworkd.model.errors import AlreadyExists, InvalidParams, InvalidState, NotFound, PolicyDenied
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, exited, links_of, session_of, took_at_most, wait_until, when_steady
from tests.root.socket_servers import COUNT, DEAF, ECHO, PYTHON, serving

MIB = 1024 * 1024
SESSION = "bridged"
WAY_OUT = 7000

pytestmark = pytest.mark.needs("bubblewrap", "python3")

ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60) as made:
    made.sendall(b"hello from " + sys.argv[2].encode())
    made.shutdown(socket.SHUT_WR)
    print(made.makefile().read(), end="")
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A unix socket of the guest's whose server gives back what it is told, upper case."""
    path = tmp_path_factory.mktemp("outside") / "server.sock"

    def serve(made: socket.socket) -> None:
        with made, contextlib.suppress(OSError):
            said = b""
            while piece := made.recv(65536):
                said += piece
            made.sendall(said.upper())

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                made, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(made,), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


def through(*bridges: dict[str, str]) -> tuple[str, ...]:
    """What makes a coworkd one with these bridges in its configuration."""
    return (sys.executable, "-m", "tests.root.bridged_local", json.dumps(bridges))


@pytest.fixture(scope="module")
def bridged(outside: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A coworkd whose configuration leads port 7000 of the session out to `outside`."""
    bridges = [{"name": "out", "listen": f"session://{SESSION}:{WAY_OUT}", "connect": f"unix://{outside}"}]
    with running_daemon(tmp_path_factory.mktemp("coworkd"), through=through(*bridges)) as running:
        yield running


@pytest.fixture(scope="module")
def client(bridged: Daemon) -> Iterator[Client]:
    with client_of(bridged) as made:
        yield made


@pytest.fixture
def session(client: Client) -> Iterator[str]:
    """The session, with the bridge that the configuration gives it."""
    with session_of(client, SESSION) as name:
        wait_until(lambda: bridge(client, "out").state == "listening", "the bridge listens in the new session")
        yield name


@pytest.fixture
def opened(client: Client) -> Iterator[Callable[[str, str], BridgeInfo]]:
    """Opens a bridge `b`, which is closed at the end."""
    yield lambda listen, connect: client.bridge_open(name="b", listen=listen, connect=connect).bridge
    with contextlib.suppress(NotFound):
        client.bridge_close(name="b")


def bridge(client: Client, name: str) -> BridgeInfo:
    (found,) = (each for each in client.bridge_list().bridges if each.name == name)
    return found


def degraded(daemon: Daemon) -> dict[str, str]:
    """What a host is told that comes now."""
    with client_of(daemon) as made:
        return dict(made.hello.degraded)


def connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(60)
    made.connect(str(path))
    return made


def read_all(made: socket.socket) -> bytes:
    said = b""
    while piece := made.recv(MIB):
        said += piece
    return said


@contextlib.contextmanager
def no_descriptor_left(daemon: Daemon) -> Iterator[None]:
    """But the pipes that are kept for the next connection."""

    def held() -> int:
        return sum(not link.startswith("pipe:") for link in links_of(daemon.child.pid))

    before = when_steady(held)
    yield
    wait_until(lambda: held() <= before, "coworkd holds no descriptor more than before")


# -- into a session ------------------------------------------------------------------------------------------------


def test_20_mib_go_both_ways_at_once_and_are_counted(
    client: Client, bridged: Daemon, session: str, opened: Callable[[str, str], BridgeInfo], tmp_path: Path
) -> None:
    data = os.urandom(20 * MIB)
    with no_descriptor_left(bridged), serving(client, session, ECHO, 8000):
        assert opened(f"unix://{tmp_path}/in", f"session://{session}:8000").state == "listening"
        with connect(tmp_path / "in") as made:

            def send() -> None:
                made.sendall(data)
                made.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            got = hashlib.sha256(read_all(made)).digest()
            sender.join()
        assert got == hashlib.sha256(data).digest()
        wait_until(lambda: bridge(client, "b").connections == 0, "the connection is over")
        info = bridge(client, "b")
        assert (info.sent_bytes, info.received_bytes, info.connections_total) == (len(data), len(data), 1)
        client.bridge_close(name="b")
    assert not (tmp_path / "in").exists()


def test_100_connections_at_once(
    client: Client, bridged: Daemon, session: str, opened: Callable[[str, str], BridgeInfo], tmp_path: Path
) -> None:
    with no_descriptor_left(bridged), serving(client, session, COUNT, 8001):
        opened(f"unix://{tmp_path}/in", f"session://{session}:8001")
        made = [connect(tmp_path / "in") for _ in range(100)]
        for number, each in enumerate(made):
            each.sendall(bytes(number))
        for each in made:
            each.shutdown(socket.SHUT_WR)
        assert [read_all(each) for each in made] == [b"%d" % number for number in range(100)]
        for each in made:
            each.close()
        client.bridge_close(name="b")


def test_a_server_that_never_reads_slows_nothing_else(
    client: Client, session: str, opened: Callable[[str, str], BridgeInfo], tmp_path: Path
) -> None:
    with serving(client, session, DEAF, 8002), contextlib.ExitStack() as stack:
        opened(f"unix://{tmp_path}/in", f"session://{session}:8002")
        for _ in range(20):
            stuck = stack.enter_context(connect(tmp_path / "in"))
            stuck.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    stuck.send(bytes(MIB))
        with took_at_most(10):
            for _ in range(50):
                client.ping()


def test_nobody_at_the_other_end_is_an_end_and_a_last_error(
    client: Client, session: str, opened: Callable[[str, str], BridgeInfo], tmp_path: Path
) -> None:
    opened(f"unix://{tmp_path}/in", f"session://{session}:8003")
    with connect(tmp_path / "in") as made:
        assert made.recv(1) == b""
    info = bridge(client, "b")
    assert info.failed_total == 1
    assert "listened on by nobody" in (info.last_error or "")


def test_it_is_recorded(client: Client, session: str, opened: Callable[[str, str], BridgeInfo], tmp_path: Path) -> None:
    opened(f"unix://{tmp_path}/in", f"session://{session}:8004")
    client.bridge_close(name="b")
    begun, ended = client.audit_tail(limit=2).records
    assert (begun["kind"], ended["kind"], ended["reason"]) == ("bridge.open", "bridge.close", "asked for")
    assert begun["listen"] == ended["listen"] == f"unix://{tmp_path}/in"


# -- out of one ----------------------------------------------------------------------------------------------------


def test_the_configurations_way_out_works_from_inside_and_only_there(
    client: Client, session: str, outside: Path
) -> None:
    ran = client.run(session, [PYTHON, "-I", "-c", ASK, str(WAY_OUT), session])
    assert (ran.stdout, ran.exit) == (b"HELLO FROM BRIDGED", exited(0))
    with session_of(client, "neighbour") as neighbour:
        refused = client.run(neighbour, [PYTHON, "-I", "-c", ASK, str(WAY_OUT), neighbour])
        assert b"ConnectionRefusedError" in refused.stderr
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", WAY_OUT))


def test_a_session_that_goes_takes_its_bridge_along_and_the_next_one_gets_it(client: Client, bridged: Daemon) -> None:
    with no_descriptor_left(bridged):
        for _ in range(3):
            with session_of(client, SESSION) as name:
                wait_until(lambda: bridge(client, "out").state == "listening", "the bridge is there")
                ran = client.run(name, [PYTHON, "-I", "-c", ASK, str(WAY_OUT), name])
                assert ran.stdout == b"HELLO FROM BRIDGED"
            wait_until(lambda: bridge(client, "out").state == "waiting", "the bridge is gone with its session")
    with client_of(bridged) as later:
        assert "bridge out" not in later.hello.degraded  # a session that is not there is no trouble


def test_over_a_link_no_way_out_is_opened(client: Client, session: str, outside: Path) -> None:
    with pytest.raises(PolicyDenied, match="allow_bridges"):
        client.bridge_open(name="b", listen=f"session://{session}:7001", connect=f"unix://{outside}")
    assert [each.name for each in client.bridge_list().bridges] == ["out"]


# -- what must not be ----------------------------------------------------------------------------------------------


def test_our_own_socket_and_a_sessions_directory_are_refused(
    client: Client, bridged: Daemon, session: str, outside: Path, tmp_path: Path
) -> None:
    for path in (bridged.socket_path, bridged.state / ".coworkd" / "run" / "launcher.sock"):
        with pytest.raises(PolicyDenied, match="own"):
            client.bridge_open(name="b", listen=f"unix://{path}", connect=f"unix://{outside}")
    inside = bridged.state / session / "x.sock"
    with pytest.raises(PolicyDenied, match="others can change"):
        client.bridge_open(name="b", listen=f"unix://{inside}", connect=f"unix://{outside}")
    assert not inside.exists()


@pytest.mark.parametrize(
    ("listen", "connect_to", "error"),
    [
        ("tcp://127.0.0.1:0", "unix:///x", InvalidParams),
        ("tcp://127.0.0.1:65536", "unix:///x", InvalidParams),
        ("exec:///bin/sh", "unix:///x", InvalidParams),
        ("unix:///nowhere/at/all.sock", "unix:///x", InvalidState),
        ("tcp://192.0.2.77:80", "unix:///x", InvalidState),
    ],
)
def test_what_cannot_be_leaves_none(client: Client, listen: str, connect_to: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        client.bridge_open(name="b", listen=listen, connect=connect_to)
    assert [each.name for each in client.bridge_list().bridges] == ["out"]


def test_a_path_that_is_taken_is_left_alone(client: Client, outside: Path, tmp_path: Path) -> None:
    with pytest.raises(AlreadyExists):
        client.bridge_open(name="b", listen=f"unix://{outside}", connect=f"unix://{tmp_path}/x")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AlreadyExists):
        client.bridge_open(name="b", listen=f"unix://{tmp_path}/file", connect=f"unix://{tmp_path}/x")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_listener_that_cannot_be_made_is_told_as_degraded(outside: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        bridges = [{"name": "taken", "listen": listen, "connect": f"unix://{outside}"}]
        with (
            running_daemon(tmp_path / "d", through=through(*bridges)) as daemon,
            client_of(daemon) as made,
        ):
            wait_until(lambda: "in use" in degraded(daemon).get("bridge taken", ""), "it is told")
            taken.close()
            wait_until(lambda: bridge(made, "taken").state == "listening", "it listens by itself once it can")
            assert "bridge taken" not in degraded(daemon)
