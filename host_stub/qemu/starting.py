"""Start QEMU and own it: the control link, `cont`, and everything that must end when it does.

`own_machine` runs a machine's whole life in a nursery of its own; `start_qemu` is the middle of it. Whatever fails on the way is told as
Trouble with QEMU's last words, and nothing is left running.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Sequence

import trio

from host_stub.qemu.command import Parts, compose_command
from host_stub.qemu.processes import Child, start_child
from host_stub.qemu.qmp_client import QmpClient
from host_stub.qemu.running import QemuMachine
from host_stub.words import MachineSpec, Trouble

_LAST_WORDS_S = 5.0
_TROUBLES: tuple[tuple[str, str, str], ...] = (
    (r"get .?(shared )?\"?(write|consistent read)\"? lock", "disk_in_use", "end the machine that uses this disk"),
    (
        r"[Cc]annot allocate memory|cannot set up guest memory",
        "no_memory",
        "give the machine less memory, or end what uses it",
    ),
    (r"KVM|kvm.*(denied|failed)", "no_accelerator", "start it with the accelerator tcg"),
    (r"Address already in use", "socket_taken", "end the machine that uses this socket"),
    (r"No space left", "no_space", "make room on the disk"),
    (r"Could not open|No such file", "missing_file", "verify the bundle"),
)


async def own_machine(
    bring_up: Callable[[trio.Nursery], Awaitable[QemuMachine]], *, task_status: trio.TaskStatus[QemuMachine]
) -> None:
    """Bring it up, tell that it runs, and return when it has ended and all beside it too. Cancelled, it kills the machine.

    Raises the Trouble of `bring_up`, as itself and not in a group.
    """
    trouble: Trouble | None = None
    machine: QemuMachine | None = None
    cancelled = True
    try:
        async with trio.open_nursery() as nursery:
            try:
                machine = await bring_up(nursery)
            except Trouble as error:
                trouble = error
            else:
                task_status.started(machine)
                await machine.until_ended()
            cancelled = False
            nursery.cancel_scope.cancel()
    finally:
        if machine is not None:
            machine.finish(cancelled=cancelled)
    if trouble is not None:
        raise trouble


async def start_qemu(
    spec: MachineSpec,
    compose_parts: Callable[[int], Parts],
    nursery: trio.Nursery,
    *,
    watched: Sequence[Child] = (),
    missed: Sequence[Child] = (),
    pass_fds: Sequence[int] = (),
    go: bool = True,
) -> QemuMachine:
    """QEMU for `spec` with the parts that `compose_parts` gives for its control link's descriptor; stopped, unless `go`.

    When one of `watched` ends, the machine ends; when one of `missed` does, that is told. Raises Trouble.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            argv = compose_command(spec, compose_parts(theirs.fileno()))
            qemu = start_child("QEMU", argv, pass_fds=(theirs.fileno(), *pass_fds))
        except BaseException:
            ours.close()
            raise
    nursery.start_soon(qemu.run)
    client = QmpClient(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), lambda event: machine.see(event))
    machine = QemuMachine(qemu, client, watched, spec.serial_log, spec.disks, missed=missed)
    nursery.start_soon(client.run)
    try:
        await client.greet()
        if go:
            await client.execute("cont")
    except Trouble as error:
        raise await _why(qemu, error) from error
    return machine


def trouble_of(said: str, fallback: Trouble) -> Trouble:
    """What QEMU's last words mean; pure."""
    for pattern, code, remedy in _TROUBLES:
        if re.search(pattern, said):
            return Trouble(code, f"QEMU does not start: {said.splitlines()[-1]}", remedy=remedy, details={"said": said})
    if not said:
        return fallback
    return Trouble(
        "qemu_failed", f"QEMU does not start: {said.splitlines()[-1]}", remedy="see its words", details={"said": said}
    )


async def _why(qemu: Child, error: Trouble) -> Trouble:
    """QEMU closes its link a moment before it has ended and said why."""
    with trio.move_on_after(_LAST_WORDS_S):
        await qemu.wait()
    return trouble_of(qemu.last_lines(), error)
