from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from msgspec import structs

from host_stub.vz import backend as module
from host_stub.vz import running
from host_stub.vz.backend import VzBackend
from host_stub.vz.host import Host
from host_stub.vz.running import VzMachine
from host_stub.words import Backend, Disk, Ended, MachineSpec, Share, Trouble
from tests.unit.host_stub.vz.fake_vz import ECHO_PORT, ORDER_PORT, Plan

MAC = Host(
    system="darwin", architecture="aarch64", macos=(14, 5), pyobjc=True, interpreter=Path(sys.executable), entitled=True
)
PATIENCE_S = 30.0
IMAGE = bytes(56) + b"ARM\x64" + bytes(512)


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    (tmp_path / "kernel").write_bytes(IMAGE)
    for name in ("root", "sessions"):
        (tmp_path / name).write_bytes(bytes(512))
    return MachineSpec(
        architecture="aarch64",
        kernel=tmp_path / "kernel",
        disks=(
            Disk(path=tmp_path / "root", serial="cowork-root", read_only=True),
            Disk(path=tmp_path / "sessions", serial="cowork-sessions"),
        ),
        vsock=tmp_path / "v.sock",
        serial_log=tmp_path / "serial.log",
        console=tmp_path / "c.sock",
        state_dir=tmp_path / "state",
    )


def backend(plan: Plan | None = None, on_wake: Callable[[], None] | None = None) -> VzBackend:
    text = msgspec.json.encode(plan or Plan()).decode()
    command = (sys.executable, "-m", "tests.unit.host_stub.vz.fake_process", text)
    return VzBackend(command=command, host=lambda: MAC, on_wake=on_wake)


def drive(
    body: Callable[[VzMachine, trio.Nursery], Awaitable[None]], spec: MachineSpec, plan: Plan | None = None
) -> Ended:
    """Start a machine, do `body`, end it if it still runs; how it ended."""

    async def main() -> Ended:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                machine = await backend(plan).start(spec, nursery)
                assert isinstance(machine, VzMachine)
                await body(machine, nursery)
                return await machine.wait()
        raise AssertionError

    return trio.run(main)


async def dial(spec: MachineSpec, port: int) -> trio.SocketStream:
    stream = await trio.open_unix_socket(str(spec.vsock))
    await stream.send_all(b"CONNECT %d\n" % port)
    return stream


async def read_until(stream: trio.abc.ReceiveStream, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        piece = await stream.receive_some(4096)
        assert piece, f"ended after {data!r}"
        data += piece
    return data


async def order(spec: MachineSpec, line: str) -> trio.SocketStream:
    stream = await dial(spec, ORDER_PORT)
    await read_until(stream, b"OK ")
    await stream.send_all(f"{line}\n".encode())
    return stream


def test_machine_starts_is_reached_and_powers_off(spec: MachineSpec) -> None:
    async def body(machine: VzMachine, _nursery: trio.Nursery) -> None:
        async with await dial(spec, ECHO_PORT) as stream:
            assert await read_until(stream, b"\n") == b"OK %d\n" % (1024 + ECHO_PORT)
            await stream.send_all(b"hello")
            assert await read_until(stream, b"hello") == b"hello"
            await stream.send_eof()
            assert await stream.receive_some(1) == b""
        await machine.request_stop()

    ended = drive(body, spec)
    assert ended == Ended(how="powered_off", message="the guest powered itself off", exit_status=0)
    assert b"Linux version" in spec.serial_log.read_bytes()
    assert not spec.vsock.exists()
    assert not (spec.console or spec.vsock).exists()


def test_guest_dials_the_host_and_its_console_is_shared(spec: MachineSpec) -> None:
    async def body(machine: VzMachine, nursery: trio.Nursery) -> None:
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(f"{spec.vsock}_5006")
        listener.listen()
        order_stream = await order(spec, "dial 5006")
        connection, _ = await listener.accept()
        async with order_stream, trio.SocketStream(connection) as far:
            await read_until(order_stream, b"accepted\n")
            await far.send_all(b"down")
            await read_until(order_stream, b"down")
            await order_stream.send_all(b"up")
            await read_until(far, b"up")
        listener.close()
        async with await trio.open_unix_socket(str(spec.console)) as console:
            await console.send_all(b"ls\n")
            await read_until(console, b"> ls\n")
        await machine.pause()
        with pytest.raises(Trouble):
            await machine.pause()
        await machine.resume()
        await machine.set_memory(1 << 30)
        await machine.kill()
        await machine.kill()

    ended = drive(body, spec)
    assert (ended.how, ended.exit_status) == ("killed", 0)


def test_sockets_are_for_us_alone(spec: MachineSpec) -> None:
    async def body(machine: VzMachine, _nursery: trio.Nursery) -> None:
        assert spec.console is not None
        for path in (spec.vsock, spec.console):
            assert path.stat().st_mode & 0o777 == 0o600
        assert spec.state_dir.stat().st_mode & 0o777 == 0o700
        await machine.kill()

    drive(body, spec)


def test_sleep_of_the_mac_is_told(spec: MachineSpec) -> None:
    async def main() -> None:
        woken = trio.Event()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                machine = await backend(on_wake=woken.set).start(spec, nursery)
                await (await order(spec, "wake")).aclose()
                await woken.wait()
                await machine.kill()

    trio.run(main)


@pytest.mark.parametrize(
    ("line", "how", "message"),
    [
        ("crash it broke", "failed", "it broke (VZErrorDomain 1)"),
        ("panic", "panicked", "the guest's kernel panicked"),
        ("poweroff", "powered_off", "the guest powered itself off"),
    ],
)
def test_how_it_ended(spec: MachineSpec, line: str, how: str, message: str) -> None:
    async def body(_machine: VzMachine, _nursery: trio.Nursery) -> None:
        await (await order(spec, line)).aclose()

    ended = drive(body, spec)
    assert (ended.how, ended.message) == (how, message)


def test_a_process_that_is_killed_is_a_failure_and_its_connections_end(spec: MachineSpec) -> None:
    async def body(machine: VzMachine, _nursery: trio.Nursery) -> None:
        async with await dial(spec, ECHO_PORT) as stream:
            await read_until(stream, b"\n")
            os.kill(machine.pid, signal.SIGKILL)
            assert await stream.receive_some(1) == b""

    ended = drive(body, spec)
    assert (ended.how, ended.exit_status) == ("failed", -signal.SIGKILL)


def test_kill_does_not_wait_for_a_vz_that_does_not_stop(spec: MachineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EXIT_S", 0.2)

    async def body(machine: VzMachine, _nursery: trio.Nursery) -> None:
        await machine.kill()

    ended = drive(body, spec, Plan(stop_hangs=True))
    assert (ended.how, ended.exit_status) == ("killed", -signal.SIGKILL)


def test_cancelled_it_leaves_nothing(spec: MachineSpec) -> None:
    pids: list[int] = []

    async def main() -> None:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                machine = await backend().start(spec, nursery)
                pids.append(machine.pid)
                nursery.cancel_scope.cancel()

    trio.run(main)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert not spec.vsock.exists()


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (Plan(start_error=1), "vz_internal"),
        (Plan(entitled=False), "no_entitlement"),
        (Plan(bug_on_start=True), "vz_process_ended"),
        (Plan(start_hangs=True), "vz_slow"),
    ],
)
def test_a_start_that_fails_is_told_and_leaves_nothing(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch, plan: Plan, code: str
) -> None:
    if plan.start_hangs:
        monkeypatch.setattr(module, "START_S", 0.5)

    async def main() -> Trouble:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                with pytest.raises(Trouble) as caught:
                    await backend(plan).start(spec, nursery)
                assert not nursery.child_tasks
                return caught.value
        raise AssertionError

    trouble = trio.run(main)
    assert trouble.code == code
    assert (code == "vz_process_ended") == ("a bug in a callback" in trouble.message)
    assert not spec.vsock.exists()


def test_a_second_machine_on_the_same_sockets_is_refused_and_the_first_lives(spec: MachineSpec) -> None:
    async def body(machine: VzMachine, nursery: trio.Nursery) -> None:
        with pytest.raises(Trouble) as caught:
            await backend().start(spec, nursery)
        assert caught.value.code == "socket_taken"
        async with await dial(spec, ECHO_PORT) as stream:
            await read_until(stream, b"OK")
        await machine.request_stop()

    assert drive(body, spec).how == "powered_off"


def test_a_command_that_is_not_there_is_told(spec: MachineSpec) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(Trouble) as caught:
                await VzBackend(command=("/none",), host=lambda: MAC).start(spec, nursery)
            assert caught.value.code == "cannot_start"

    trio.run(main)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kernel": None}, "no_kernel"),
        ({"kernel": Path("/none")}, "missing_file"),
        ({"initrd": Path("/none")}, "missing_file"),
        ({"disks": (Disk(path=Path("/none"), serial="x"),)}, "missing_file"),
        ({"shares": (Share(path=Path("/none")),)}, "no_share"),
        ({"architecture": "x86_64"}, "wrong_architecture"),
        ({"vsock": Path("/" + "v" * 110)}, "path_too_long"),
    ],
)
def test_check_tells_what_is_missing(spec: MachineSpec, change: dict[str, Any], code: str) -> None:
    with pytest.raises(Trouble) as caught:
        backend().check(structs.replace(spec, **change))
    assert caught.value.code == code


def test_the_host_is_looked_at_once(spec: MachineSpec) -> None:
    looks: list[Host] = []

    def look() -> Host:
        looks.append(MAC)
        return MAC

    kind = VzBackend(host=look)
    for _ in range(2):
        kind.check(spec)
    assert looks == [MAC]


def test_it_is_a_backend() -> None:
    kind: Backend = VzBackend()
    assert kind.name == "vz"
