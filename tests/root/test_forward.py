"""`forward.open` and `coworkctl forward` for real: into a session's own ports, and nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.stream import Stream
from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState, LimitExceeded, NotFound, Unavailable
from coworkd.wire.connection import Connection
from tests.root.conftest import Daemon
from tests.root.live import client_of, session_of, took_at_most, wait_until, when_steady
from tests.root.socket_servers import COUNT, DEAF, ECHO, ENDLESS, serving

REPO = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
SESSION = "forward"

pytestmark = pytest.mark.needs("bubblewrap", "python3")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, SESSION) as name:
        yield name


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.child.pid}/fd"))


@contextlib.contextmanager
def no_descriptor_left(daemon: Daemon) -> Iterator[None]:
    before = when_steady(lambda: descriptors(daemon))
    yield
    wait_until(lambda: descriptors(daemon) <= before, "coworkd holds no descriptor more than before")


def receive_all(stream: Stream) -> bytes:
    data = b""
    while piece := stream.receive():
        data += piece
    return data


def receive_exactly(stream: Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.receive(timeout_s=60)
        assert piece, f"only {len(data)} of {count} bytes"
        data += piece
    return data


# -- bytes ---------------------------------------------------------------------------------------------------------


def test_20_mib_go_both_ways_at_once(client: Client, daemon: Daemon) -> None:
    data = os.urandom(20 * MIB)
    with no_descriptor_left(daemon), serving(client, SESSION, ECHO, 8001), client.forward(SESSION, 8001) as stream:

        def send() -> None:
            stream.send(data)
            stream.close_write()

        sender = threading.Thread(target=send)
        sender.start()
        got = hashlib.sha256(receive_all(stream)).digest()
        sender.join()
        assert got == hashlib.sha256(data).digest()


def test_the_hosts_end_is_the_servers_and_its_answer_still_comes(client: Client) -> None:
    with serving(client, SESSION, COUNT, 8002), client.forward(SESSION, 8002) as stream:
        stream.send(bytes(12345))
        stream.close_write()
        assert receive_all(stream) == b"12345"


def test_a_server_on_the_ipv6_loopback_alone_is_found(client: Client) -> None:
    with serving(client, SESSION, ECHO, 8003, "::1"), client.forward(SESSION, 8003) as stream:
        stream.send(b"six")
        assert receive_exactly(stream, 3) == b"six"


# -- where it leads, and where not ---------------------------------------------------------------------------------


def test_nobody_listening_is_said_at_once(client: Client) -> None:
    with took_at_most(5), pytest.raises(InvalidState, match="start a server there") as caught:
        client.forward(SESSION, 8004)
    assert caught.value.details["stage"] == "connect"


def test_a_port_of_the_guest_itself_is_not_the_sessions(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(InvalidState):
        client.forward(SESSION, listener.getsockname()[1])


def test_a_port_of_another_session_is_not_this_ones(client: Client) -> None:
    with (
        session_of(client, "other") as other,
        serving(client, other, ECHO, 8005),
        pytest.raises(InvalidState),
    ):
        client.forward(SESSION, 8005)


@pytest.mark.parametrize("port", [0, -1, 65_536, 2**40])
def test_what_is_no_port_is_refused(client: Client, port: int) -> None:
    with pytest.raises(InvalidParams) as caught:
        client.forward(SESSION, port)
    assert caught.value.details["key"] == "port"


def test_an_unknown_session_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.forward("nobody-here", 80)


def test_both_ends_are_in_the_audit_log(client: Client) -> None:
    with serving(client, SESSION, COUNT, 8006):
        with client.forward(SESSION, 8006) as stream:
            stream.send(bytes(1000))
            stream.close_write()
            assert receive_all(stream) == b"1000"

        def closed() -> list[dict[str, object]]:
            records = client.audit_tail(limit=50, session=SESSION).records
            return [each for each in records if each.get("stream") == stream.name and each["kind"] == "forward.close"]

        wait_until(closed, "the end is recorded")
    (record,) = closed()
    assert (record["port"], record["sent_bytes"], record["received_bytes"]) == (8006, 1000, 4)
    assert client.audit_verify().ok


# -- whose it is, and how many -------------------------------------------------------------------------------------


def test_another_links_stream_is_not_there(client: Client, daemon: Daemon) -> None:
    with serving(client, SESSION, ECHO, 8007), client.forward(SESSION, 8007) as stream, client_of(daemon) as other:
        for call in (
            lambda: other.stream_write(stream=stream.name, offset=0, data=b"x"),
            lambda: other.stream_close_write(stream=stream.name),
            lambda: other.stream_ack(stream=stream.name, offset=0),
            lambda: other.stream_close(stream=stream.name),
        ):
            with pytest.raises(NotFound):
                call()
        stream.send(b"mine")
        assert receive_exactly(stream, 4) == b"mine"


def test_300_streams_of_one_link_are_refused_past_256_and_leave_nothing(client: Client, daemon: Daemon) -> None:
    with no_descriptor_left(daemon), serving(client, SESSION, ECHO, 8008), client_of(daemon) as link:
        streams = []
        refused = 0
        for _ in range(300):
            try:
                streams.append(link.forward(SESSION, 8008))
            except LimitExceeded:
                refused += 1
        assert (len(streams), refused) == (256, 44)
        for stream in streams:
            stream.send(stream.name.encode())
        for stream in streams:
            assert receive_exactly(stream, len(stream.name)) == stream.name.encode()
        streams[0].close()
        link.ping()
        link.forward(SESSION, 8008).close()


# -- what does not read slows nobody -------------------------------------------------------------------------------


def test_a_server_that_never_reads_slows_no_other_stream(client: Client) -> None:
    with (
        serving(client, SESSION, DEAF, 8009),
        serving(client, SESSION, ECHO, 8010),
        client.forward(SESSION, 8009) as deaf,
    ):
        stuck = threading.Thread(target=lambda: fill(deaf))
        stuck.start()
        with client.forward(SESSION, 8010) as stream, took_at_most(10):
            for _ in range(50):
                stream.send(b"ping")
                assert receive_exactly(stream, 4) == b"ping"
        deaf.close()
        stuck.join(60)
        assert not stuck.is_alive()


def fill(stream: Stream) -> None:
    with contextlib.suppress(CoworkError):
        stream.send(bytes(64 * MIB))


def test_a_stream_that_is_not_read_holds_up_no_other_of_its_link(client: Client) -> None:
    with (
        serving(client, SESSION, ENDLESS, 8011),
        serving(client, SESSION, ECHO, 8012),
        client.forward(SESSION, 8011) as endless,
        client.forward(SESSION, 8012) as stream,
        took_at_most(5),
    ):
        for _ in range(50):
            stream.send(b"ping")
            assert receive_exactly(stream, 4) == b"ping"
        assert endless.receive()


def test_a_link_that_is_not_read_holds_up_no_other(client: Client, daemon: Daemon) -> None:
    with serving(client, SESSION, ENDLESS, 8013), client_of(daemon) as silent:
        silent.call("forward.open", {"session": SESSION, "port": 8013})  # without a window
        with took_at_most(10):
            for _ in range(50):
                client.ping()


# -- ends ----------------------------------------------------------------------------------------------------------


def test_a_session_that_is_deleted_takes_its_streams_along_and_the_link_lives(client: Client, daemon: Daemon) -> None:
    with no_descriptor_left(daemon), client_of(daemon) as link:
        with session_of(link, "doomed") as name:
            server = link.start(name, ["/usr/bin/python3", "-I", "-c", _SLEEPY_SERVER, "8014"])
            assert server.read() is not None
            stream = link.forward(name, 8014)
            link.session_delete(session=name, force=True)
            with took_at_most(10):
                # The kernel ends the connection with the server, or coworkd resets it with the session: whichever is first.
                with contextlib.suppress(Unavailable):
                    assert receive_all(stream) == b""
                with pytest.raises(InvalidState):
                    stream.send(bytes(MIB))
            stream.close()
            server.forget()
        link.ping()


_SLEEPY_SERVER = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
made, _ = listener.accept()
time.sleep(1000)
"""


def test_a_link_cut_at_any_byte_resets_the_server_and_leaves_nothing(client: Client, daemon: Daemon) -> None:
    with no_descriptor_left(daemon), serving(client, SESSION, ECHO, 8015) as server:
        frame = Connection("host").send_request("stream.write", {"stream": "s0", "offset": 0, "data": b"abcdef"})[1]
        for cut in range(len(frame) + 1):
            with RawLink(daemon) as link:
                stream = link.call("forward.open", {"session": SESSION, "port": 8015})["stream"]
                whole = link.frame("stream.write", {"stream": stream, "offset": 0, "data": b"abcdef"})
                link.send(whole[: max(0, len(whole) - cut)])
            said = server.line()
            assert re.fullmatch(r"broken (104|32)", said), said


class RawLink:
    """A link whose bytes are ours to cut."""

    def __init__(self, daemon: Daemon) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(daemon.socket_path))
        self._connection = Connection("host")
        self.call("hello", {"client": "raw", "protocol": {"min": 1, "max": 1}})
        self._connection.greeted()

    def __enter__(self) -> RawLink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def frame(self, method: str, params: dict[str, object]) -> bytes:
        return self._connection.send_request(method, params)[1]

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def call(self, method: str, params: dict[str, object]) -> dict[str, str]:
        self.send(self.frame(method, params))
        while (event := self._connection.next_event()) is None:
            self._connection.receive_data(self._socket.recv(65536))
        result: dict[str, str] = event.result  # type: ignore[union-attr,assignment]
        return result


# -- coworkctl forward ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forwarding(daemon: Daemon, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A `coworkctl forward` that runs, and its local port."""
    command = [sys.executable, "-m", "coworkd.cli.control", "--to", daemon.uri, "forward", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPO) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            found = re.match(r"127\.0\.0\.1:(\d+) ", line)
            assert found, (line, child.stderr.read() if child.stderr else "")
            yield child, int(found[1])
        finally:
            if child.poll() is None:
                child.kill()


def ask(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as made:
        made.sendall(data)
        made.shutdown(socket.SHUT_WR)
        said = b""
        while piece := made.recv(65536):
            said += piece
        return said


def test_coworkctl_forwards_many_at_once_and_ends_cleanly(client: Client, daemon: Daemon) -> None:
    with no_descriptor_left(daemon), serving(client, SESSION, COUNT, 8016):
        with forwarding(daemon, SESSION, "8016", "0") as (child, port):
            said: dict[int, bytes] = {}
            threads = [
                threading.Thread(target=lambda n=n: said.__setitem__(n, ask(port, bytes(n * 10_000))))
                for n in range(60)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert said == {n: b"%d" % (n * 10_000) for n in range(60)}
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
            assert (child.returncode, out, err) == (130, "", "")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_coworkctl_tells_a_failure_in_one_line_and_goes_on(client: Client, daemon: Daemon) -> None:
    with forwarding(daemon, SESSION, "8017", "0") as (child, port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as made, pytest.raises(ConnectionResetError):
            made.recv(1)
        with serving(client, SESSION, COUNT, 8017):
            assert ask(port, b"abc") == b"3"
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 143
        (line,) = err.splitlines()
        assert "listened on by nobody" in line


def test_coworkctl_ends_at_once_with_a_connection_that_does_not(client: Client, daemon: Daemon) -> None:
    with (
        serving(client, SESSION, ENDLESS, 8018),
        forwarding(daemon, SESSION, "8018", "0") as (child, port),
        socket.create_connection(("127.0.0.1", port)) as made,
    ):
        assert made.recv(10)
        time.sleep(0.3)  # until everything on the way is full
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        assert child.returncode == 130


def test_coworkctl_ends_when_its_coworkd_does(fresh_daemon: Daemon) -> None:
    with client_of(fresh_daemon) as made:
        made.session_ensure(name=SESSION)
        with forwarding(fresh_daemon, SESSION, "8019", "0") as (child, _):
            fresh_daemon.child.send_signal(signal.SIGTERM)
            _, err = child.communicate(timeout=60)
            assert child.returncode == 1
            assert "coworkd is stopping" in err


def test_coworkctl_says_what_is_wrong_at_once(daemon: Daemon) -> None:
    assert b"no session" in daemon.ctl("forward", "nobody-here", "80", "0").stderr
    assert daemon.ctl("forward", SESSION, "0").returncode == 1
    assert daemon.ctl("forward", SESSION, "http").returncode == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = daemon.ctl("forward", SESSION, "80", str(taken.getsockname()[1]))
    assert (done.returncode, b"LOCAL_PORT" in done.stderr) == (1, True)
