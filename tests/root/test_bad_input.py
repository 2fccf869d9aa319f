"""What cannot be meant, sent to a real coworkd: a typed error within a second, and nothing else changes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.client.sync import Client, connect
from coworkd.model.errors import (
    CoworkError,
    InvalidParams,
    LimitExceeded,
    NotFound,
    StartFailed,
    Unavailable,
    Unimplemented,
)
from tests.root.conftest import Daemon
from tests.root.live import client_of, exited, fresh_mark, living, session_of, took_at_most, wait_until

HELLO_S = 10.0
HELLO = {"client": "raw", "protocol": {"min": 1, "max": 1}}

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host folder with things in it that are no commands."""
    place = tmp_path_factory.mktemp("folder")
    place.chmod(0o755)
    machine = 183 if os.uname().machine == "x86_64" else 62
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9) + struct.pack("<HHI", 2, machine, 1) + bytes(40)
    files = {
        "foreign": header + bytes(64),
        "script": b"#!/no/such/interpreter\n",
        "plain": b"true\n",
        "noise": bytes(range(256)),
    }
    for name, data in files.items():
        (place / name).write_bytes(data)
        (place / name).chmod(0o755 if name != "plain" else 0o644)
    (place / "closed").mkdir(mode=0o700)
    os.chown(place / "closed", 50_000, 50_000)
    (place / "sub").mkdir()
    (place / "dangling").symlink_to("/nowhere")
    return place


@pytest.fixture(scope="module", autouse=True)
def session(client: Client, folder: Path) -> Iterator[str]:
    with session_of(client, "bad", folders=[{"name": "f", "source": str(folder), "mode": "ro"}]) as name:
        yield name


@pytest.fixture(scope="module", autouse=True)
def slow_hosts(daemon: Daemon) -> Iterator[dict[str, float]]:
    """Three hosts that never finish their hello, begun before all tests; how long each was borne with."""
    borne: dict[str, float] = {}
    hello = msgpack.packb([0, 1, "hello", [HELLO]])

    def drip(name: str, data: bytes, pause_s: float) -> None:
        with raw_link(daemon) as link:
            start = time.monotonic()
            place = 0
            link.settimeout(pause_s)
            while time.monotonic() - start < 2 * HELLO_S:
                try:
                    link.sendall(data[place : place + 1])
                    if link.recv(4096) == b"":
                        break
                except TimeoutError:
                    place += 1
                except OSError:
                    break
            borne[name] = time.monotonic() - start

    slow = {"silent": (b"", 1.0), "drip": (hello, 0.5), "half": (hello[:1], 1.0)}
    threads = [threading.Thread(target=drip, args=(name, *each)) for name, each in slow.items()]
    for thread in threads:
        thread.start()
    yield borne
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def raw_link(daemon: Daemon) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(daemon.socket_path))
        link.settimeout(5)
        yield link


def last_words(link: socket.socket) -> list[Any]:
    """Every message up to the end of the link."""
    unpacker = msgpack.Unpacker()
    while data := link.recv(65_536):
        unpacker.feed(data)
    return list(unpacker)


def known(client: Client) -> set[str]:
    """Every process coworkd knows of."""
    return {process.process for process in client.process_list().processes}


def greet(link: socket.socket) -> None:
    link.sendall(msgpack.packb([0, 1, "hello", [HELLO]]))
    unpacker = msgpack.Unpacker()
    while True:
        unpacker.feed(link.recv(65_536))
        for message in unpacker:
            assert message[:3] == [1, 1, None]
            return


# -- commands that cannot start ------------------------------------------------------------------------------------

UNSTARTABLE = [
    (["no-such-command"], "not_found"),
    (["/no/such/command"], "not_found"),
    (["/etc/passwd/x"], "not_found"),
    (["./mnt/f/plain"], "not_executable"),
    (["./mnt/f/foreign"], "not_executable"),
    (["./mnt/f/script"], "not_found"),
    (["./mnt/f/noise"], "not_executable"),
    (["/usr"], "not_executable"),
    (["."], "not_executable"),
    (["./mnt/f/dangling"], "not_found"),
    (["x" * 300], "not_executable"),
    ([""], None),
    ([], None),
    (["true", "x" * 131_072], "too_big"),
    (["true", *["x" * 100_000] * 9, "y" * 131_073], "too_big"),
    (["true\0"], None),
    (["true", "a\0b"], None),
]


@pytest.mark.parametrize("verb", ["run", "start"])
@pytest.mark.parametrize(("argv", "stage"), UNSTARTABLE, ids=lambda value: str(value)[:24])
def test_command_that_cannot_start_is_typed(
    client: Client, session: str, verb: str, argv: list[str], stage: str | None
) -> None:
    call = client.run if verb == "run" else client.start
    before = known(client)
    with took_at_most(5), pytest.raises(InvalidParams if stage is None else StartFailed) as failed:
        call(session, argv)
    if stage is not None:
        assert failed.value.details["stage"] == stage, failed.value.message
        assert failed.value.details["errno"] > 0
    assert known(client) == before


def test_sum_of_arguments_over_the_limit_is_too_big(client: Client) -> None:
    # One message is at most 1 MiB: only with what the session has already can the sum pass the kernel's 2 MiB.
    words = ["x" * 104_000] * 10
    with session_of(client, "bad-sum", env={f"V{number}": word for number, word in enumerate(words)}) as large:
        with took_at_most(5), pytest.raises(StartFailed) as failed:
            client.run(large, ["true", *words])
        assert (failed.value.details["stage"], failed.value.details["errno"]) == ("too_big", errno.E2BIG)
        ran = client.run(large, ["sh", "-c", "echo $#", "sh", *words[:9]])
        assert (ran.exit, ran.stdout) == (exited(0), b"9\n")
    with pytest.raises(LimitExceeded) as refused:
        client.run("bad", ["true", *words, "x" * 104_000])
    assert refused.value.details["stage"] == "too_big"


@pytest.mark.parametrize(
    "cwd", ["/nowhere", "/root", "/sessions/bad/mnt/f/closed", "/sessions/bad/mnt/f/plain", "/sessions/other"]
)
def test_cwd_that_cannot_be_is_typed(client: Client, session: str, cwd: str) -> None:
    for tty in (None, (24, 80)):
        with took_at_most(5), pytest.raises(StartFailed) as failed:
            client.start(session, ["true"], cwd=cwd, tty=tty)
        assert failed.value.details["stage"] == "bad_cwd", failed.value.message
        assert cwd in failed.value.message


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"cwd": b"relative"}, "cwd"),
    ({"cwd": b"/a\0b"}, "cwd"),
    ({"env": {"A\0": "x"}}, "env"),
    ({"env": {"A": "x\0"}}, "env"),
    ({"env": {"A=B": "x"}}, "env"),
    ({"env": {"": "x"}}, "env"),
    ({"timeout_s": 0}, "timeout_s"),
    ({"timeout_s": -1}, "timeout_s"),
    ({"timeout_s": float("nan")}, "timeout_s"),
    ({"id": "../x"}, "id"),
    ({"id": "a\0b"}, "id"),
    ({"id": "run.mine"}, "id"),
    ({"tty": {"rows": -1, "cols": 80}}, "rows"),
    ({"tty": {"rows": 70000, "cols": 80}}, "rows"),
    ({"stdin": "file"}, "stdin"),
    ({"argv": "true"}, "argv"),
    ({"argv": [1]}, "argv"),
    ({"argv": [True]}, "argv"),
    ({"env": {"A": 1}}, "env"),
    ({"limits": {"pids_max": True}}, "pids_max"),
    ({"limits": {"memory_max": "1G"}}, "memory_max"),
    ({"timeout_s": True}, "timeout_s"),
    ({"session": "bad\0"}, "session"),
    ({"session": "../bad"}, "session"),
    ({"session": 7}, "session"),
    ({"on_full": "explode"}, "on_full"),
    ({"attach": 1}, "attach"),
]


@pytest.mark.parametrize(("fields", "key"), BAD_FIELDS, ids=lambda value: str(value)[:40])
def test_field_that_cannot_be_meant_is_refused_by_name(
    client: Client, session: str, fields: dict[str, Any], key: str
) -> None:
    params = {"session": session, "argv": [b"true"], **fields}
    before = known(client)
    with took_at_most(5), pytest.raises(InvalidParams) as refused:
        client.call("process.start", params)
    assert key in refused.value.message + str(refused.value.details.get("key"))
    assert known(client) == before


@pytest.mark.parametrize(
    ("method", "params", "hint"),
    [
        ("process.run", {"session": "bad", "argv": [b"true"], "timout_s": 1}, "timeout_s"),
        ("process.start", {"session": "bad", "argv": [b"true"], "ttty": None}, "tty"),
        ("session.ensure", {"name": "x", "folder": []}, "folders"),
        ("session.ensure", {"name": "x", "limits": {"memory": 1}}, "memory_max"),
        ("session.get", {"sesion": "bad"}, "session"),
    ],
)
def test_unknown_parameter_is_refused_with_the_right_spelling(
    client: Client, method: str, params: dict[str, Any], hint: str
) -> None:
    with took_at_most(5), pytest.raises(InvalidParams) as refused:
        client.call(method, params)
    assert hint in refused.value.message


@pytest.mark.parametrize("method", ["process.rum", "", "nothing", "session", "folder.mounts", "\0", "__init__"])
def test_unknown_method_is_unimplemented(client: Client, method: str) -> None:
    with took_at_most(5), pytest.raises(Unimplemented):
        client.call(method, {})


def test_unknown_process_and_session_are_not_found(client: Client, session: str) -> None:
    for method in ("attach", "wait", "get", "kill", "forget", "detach", "close_stdin"):
        with pytest.raises(NotFound):
            client.call(f"process.{method}", {"process": "nobody"})
    with pytest.raises(NotFound):
        client.run("never-made", ["true"])


def test_signals_that_are_none_are_refused(client: Client, session: str) -> None:
    with client.start(session, ["sleep", "30"]) as process:
        for wrong in (0, -1, 65, 999, "NOPE", "", "SIG", True, 15.0):
            with pytest.raises(InvalidParams):
                client.call("process.signal", {"process": process.id, "signal": wrong})
        assert client.process_get(process=process.id).state == "running"


# -- links ---------------------------------------------------------------------------------------------------------

BREACHES = {
    "garbage": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)),
    "never-used": b"\xc1",
    "4-gib-text": b"\x94\x00\x01\xdb\xff\xff\xff\xff",
    "4-gib-bin": b"\xc6\xff\xff\xff\xff",
    "4-gib-array": b"\xdd\xff\xff\xff\xff",
    "4-gib-map": b"\xdf\xff\xff\xff\xff",
    "deep-arrays": b"\x91" * 100_000,
    "deep-maps": b"\x81\xa1a" * 50_000,
    "no-array": msgpack.packb({"method": "hello"}),
    "params-not-in-a-map": msgpack.packb([0, 1, "hello", ["x"]]),
    "too-much-before-hello": msgpack.packb([0, 1, "hello", [{**HELLO, "client": "x" * 20_000}]]),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_ends_its_link_and_no_other(daemon: Daemon, client: Client, session: str, name: str) -> None:
    with took_at_most(5), raw_link(daemon) as link:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            link.sendall(BREACHES[name])
        with contextlib.suppress(ConnectionResetError):
            (told,) = last_words(link)
            assert told[:2] == [2, "link.error"]
            assert told[2][0]["code"] in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
    assert client.run(session, ["echo", "well"]).stdout == b"well\n"


@pytest.mark.parametrize("name", [name for name in BREACHES if name != "too-much-before-hello"])
def test_breach_after_hello_ends_its_link_and_no_other(daemon: Daemon, client: Client, session: str, name: str) -> None:
    with took_at_most(5), raw_link(daemon) as link:
        greet(link)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            link.sendall(BREACHES[name])
        with contextlib.suppress(ConnectionResetError):
            (told,) = last_words(link)
            assert told[:2] == [2, "link.error"]
    assert client.run(session, ["echo", "well"]).stdout == b"well\n"


def test_call_before_hello_is_refused(daemon: Daemon) -> None:
    with raw_link(daemon) as link:
        link.sendall(msgpack.packb([0, 7, "process.run", [{"session": "bad", "argv": ["true"]}]]))
        answer = msgpack.unpackb(link.recv(65_536))
        assert (answer[:2], answer[2]["code"], answer[3]) == ([1, 7], "UNAUTHENTICATED", None)


def test_hello_of_another_version_is_refused(daemon: Daemon) -> None:
    with raw_link(daemon) as link:
        link.sendall(msgpack.packb([0, 1, "hello", [{"client": "x", "protocol": {"min": 2, "max": 9}}]]))
        told = last_words(link)
        assert told[0][2]["code"] == "FAILED_PRECONDITION"


def test_truncated_message_ends_with_its_link(daemon: Daemon, client: Client, session: str) -> None:
    whole = msgpack.packb([0, 2, "session.ensure", [{"name": "truncated"}]])
    for cut in range(1, len(whole)):
        with raw_link(daemon) as link:
            greet(link)
            link.sendall(whole[:cut])
    with pytest.raises(NotFound):
        client.session_get(session="truncated")


def test_200_silent_links_do_not_delay_the_next(daemon: Daemon) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(200):
            silent.enter_context(raw_link(daemon))
        with took_at_most(5), connect(daemon.uri) as next_one:
            assert next_one.ping().time > 0


def test_client_that_vanishes_ends_its_run_and_not_its_start(daemon: Daemon, client: Client, session: str) -> None:
    one_shot, started = fresh_mark(), fresh_mark()
    before = known(client)
    with connect(daemon.uri) as vanishing:
        process = vanishing.start(session, ["sleep", started])
        runner = threading.Thread(target=_run_and_lose, args=(vanishing, session, one_shot))
        runner.start()
        wait_until(lambda: living(one_shot), "the one-shot runs")
    runner.join(60)
    wait_until(lambda: not living(one_shot), "the one-shot ends with its caller")
    assert living(started)
    assert client.process_get(process=process.id).state == "running"
    client.process_kill(process=process.id, grace_s=0)
    client.process_wait(process=process.id, timeout_s=60)
    client.process_forget(process=process.id)
    wait_until(lambda: known(client) == before, "nothing is kept of either")


def _run_and_lose(client: Client, session: str, mark: str) -> None:
    with pytest.raises(Unavailable):
        client.run(session, ["sleep", mark])


def test_client_that_stops_reading_is_only_its_own_problem(daemon: Daemon, client: Client, session: str) -> None:
    with raw_link(daemon) as link:
        greet(link)
        for number in range(60):
            request = [
                0,
                number + 2,
                "process.run",
                [{"session": session, "argv": ["head", "-c", "1000000", "/dev/zero"]}],
            ]
            with contextlib.suppress(TimeoutError):
                link.settimeout(0.1)
                link.sendall(msgpack.packb(request))
        with took_at_most(10):
            assert client.run(session, ["echo", "well"]).exit == exited(0)


def test_slow_hello_ends_at_its_deadline(slow_hosts: dict[str, float]) -> None:
    wait_until(lambda: len(slow_hosts) == 3, "slow hosts are hung up on", 3 * HELLO_S)
    for name, borne_s in slow_hosts.items():
        assert HELLO_S - 0.5 <= borne_s < 2 * HELLO_S, name


# -- sessions that cannot be ---------------------------------------------------------------------------------------

BAD_NAMES = [
    "root", "daemon", "www-data", "nobody", "coworkd", "../x", "x/y", "", ".", "a" * 33, "Upper", "1st", "a_b", "ä",
    "a b", "a\n", "a\0", "-a", "systemd-network",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_session_name_that_cannot_be_is_refused(client: Client, daemon: Daemon, name: str) -> None:
    before = sorted(os.listdir(daemon.state))
    for method, key in (("session.ensure", "name"), ("session.get", "session"), ("session.delete", "session")):
        with took_at_most(5), pytest.raises(InvalidParams):
            client.call(method, {key: name})
    assert sorted(os.listdir(daemon.state)) == before


def test_session_name_of_any_account_is_refused(client: Client) -> None:
    known = {line.split(":")[0] for line in Path("/etc/passwd").read_text().splitlines()}
    for name in known:
        with pytest.raises(CoworkError) as refused:
            client.session_ensure(name=name)
        assert refused.value.code in ("INVALID_ARGUMENT", "PERMISSION_DENIED")
    assert {each.name for each in client.session_list().sessions} & known == set()


def test_socket_is_for_root_only(daemon: Daemon) -> None:
    status = os.stat(daemon.socket_path)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)
