from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio

from host_stub.vz.backend import VzBackend
from host_stub.vz.host import Host
from host_stub.vz.running import VzMachine
from host_stub.words import Disk, Ended, MachineSpec
from tests.unit.host_stub.vz.fake_vz import ECHO_PORT, ORDER_PORT, Plan

MAC = Host(
    system="darwin", architecture="aarch64", macos=(14, 5), pyobjc=True, interpreter=Path(sys.executable), entitled=True
)
PATIENCE_S = 20.0
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
