from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from host_stub.vz import virtual_machine, words
from host_stub.vz.configuration import compose_configuration
from host_stub.vz.virtual_machine import VirtualMachine
from host_stub.vz.wake import observe_wake
from host_stub.words import Disk, MachineSpec, Share
from tests.unit.host_stub.vz.fake_objc import CLASSES
from tests.unit.host_stub.vz.fake_vz import ECHO_PORT, ORDER_PORT, SILENT_PORT, FakeMac, Plan
from tests.unit.host_stub.vz.test_backend import IMAGE
from tests.unit.host_stub.vz.used_names import used_selectors

HOST_PORT = 5006


class Desk:
    """Stands where the back end would: sends requests, reads answers, and does the main thread's work meanwhile."""

    def __init__(self, directory: Path, plan: Plan | None = None) -> None:
        self.mac = FakeMac(plan)
        self.sent: list[tuple[words.Message, tuple[int, ...]]] = []
        self.ended = 0
        self.machine = VirtualMachine(
            self.mac.framework, self._take, guard=lambda work, failing=None: work, on_end=self._end
        )
        (directory / "kernel").write_bytes(IMAGE)
        (directory / "root").write_bytes(bytes(512))
        self.spec = MachineSpec(
            architecture="aarch64",
            kernel=directory / "kernel",
            initrd=directory / "root",
            disks=(Disk(path=directory / "root", serial="cowork-root"),),
            vsock=directory / "v",
            serial_log=directory / "l",
            state_dir=directory / "state",
        )
        self.typed, self.shown = -1, -1

    def _take(self, message: words.Message, fds: tuple[int, ...] = ()) -> None:
        self.sent.append((message, tuple(os.dup(fd) for fd in fds)))

    def _end(self) -> None:
        self.ended += 1

    def until(self, kind: type[words.Message]) -> tuple[Any, tuple[int, ...]]:
        for _ in range(100):
            for index, (message, fds) in enumerate(self.sent):
                if isinstance(message, kind):
                    del self.sent[index]
                    return message, fds
            assert self.mac.run_main(5.0), f"no {kind.__name__}, only {self.sent}"
        raise AssertionError

    def ask(self, request: words.Message, kind: type[words.Message]) -> tuple[Any, tuple[int, ...]]:
        self.machine.handle(request, [])
        return self.until(kind)

    def start(self, kind: type[words.Message] = words.Done) -> Any:
        typed_read, self.typed = os.pipe()
        self.shown, shown_write = os.pipe()
        request = words.Start(id=1, spec=self.spec, guest_ports=(HOST_PORT,))
        self.machine.handle(request, [typed_read, shown_write])
        return self.until(kind)[0]

    def connect(self, port: int) -> tuple[Any, socket.socket]:
        answer, fds = self.ask(words.Connect(id=9, port=port), words.Connected)
        return answer, socket.socket(fileno=fds[0])

    def order(self, line: str) -> socket.socket:
        connection = self.connect(ORDER_PORT)[1]
        connection.sendall(f"{line}\n".encode())
        connection.settimeout(60)
        return connection


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(plan: Plan | None = None) -> Desk:
        made.append(Desk(tmp_path, plan))
        return made[-1]

    yield make
    for one in made:
        for fd in (one.typed, one.shown):
            if fd >= 0:
                os.close(fd)


def test_machine_starts_and_its_console_speaks(desk: Callable[..., Desk]) -> None:
    one = desk()
    assert one.start() == words.Done(id=1, notes=())
    assert b"Linux version" in os.read(one.shown, 4096)
    os.write(one.typed, b"ls\n")
    assert os.read(one.shown, 4096) == b"> ls\n"


def test_notes_come_with_the_start(desk: Callable[..., Desk]) -> None:
    one = desk(Plan(cpus=(1, 1)))
    assert "instead of 2" in one.start().notes[0]


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (Plan(supported=False), "no_hypervisor"),
        (Plan(entitled=False), "no_entitlement"),
        (Plan(start_error=1), "vz_internal"),
        (Plan(start_error=6), "too_many_machines"),
    ],
)
def test_a_start_that_fails_is_told(desk: Callable[..., Desk], plan: Plan, code: str) -> None:
    one = desk(plan)
    assert one.start(words.Failed).code == code
    assert one.ended == (plan.start_error > 0)


def test_a_start_without_its_files_is_told_and_closes_the_console(desk: Callable[..., Desk], tmp_path: Path) -> None:
    one = desk()
    one.spec = structs.replace(one.spec, state_dir=tmp_path / "root" / "below-a-file")
    assert one.start(words.Failed).code == "host_failed"
    assert os.read(one.shown, 1) == b""


def test_a_second_start_is_refused(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    before = one.typed, one.shown
    assert one.start(words.Failed).code == "already_running"
    for fd in before:
        os.close(fd)


@pytest.mark.parametrize(
    "request_", [words.Kill(id=2), words.Connect(id=2, port=1), words.Pause(id=2), words.RequestStop(id=2)]
)
def test_nothing_is_done_before_the_start(desk: Callable[..., Desk], request_: words.Message) -> None:
    answer, _ = desk().ask(request_, words.Failed)
    assert answer.code == "not_running"
    assert answer.id == 2


def test_connection_to_the_guest(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    answer, connection = one.connect(ECHO_PORT)
    assert answer.local_port == 1024 + ECHO_PORT
    with connection:
        connection.settimeout(60)
        connection.sendall(b"there")
        gc.collect()
        assert connection.recv(10) == b"there"
        one.machine.handle(words.Release(connection=answer.connection), [])
        assert connection.recv(10) == b""
    one.machine.handle(words.Release(connection=answer.connection), [])


def test_a_port_nobody_listens_on_is_told(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    assert "port 9 does not answer" in one.ask(words.Connect(id=2, port=9), words.Failed)[0].message


def test_a_late_connection_is_sent_all_the_same(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    _, connection = one.connect(SILENT_PORT)
    connection.close()


def test_connections_are_bounded_both_ways(desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_machine, "CONNECTIONS", 2)
    one = desk()
    one.start()
    order, other = one.connect(ORDER_PORT)[1], one.connect(ECHO_PORT)[1]
    with order, other, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{one.spec.vsock}_{HOST_PORT}")
        listener.listen()
        assert one.ask(words.Connect(id=2, port=ECHO_PORT), words.Failed)[0].code == "too_many_connections"
        order.sendall(b"dial %d\n" % HOST_PORT)
        order.settimeout(60)
        one.mac.run_main(5.0)
        assert order.recv(100) == b""


def test_guest_reaches_who_listens_on_the_host(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{one.spec.vsock}_{HOST_PORT}")
        listener.listen()
        order = one.order(f"dial {HOST_PORT}")
        incoming, fds = one.until(words.Incoming)
        assert incoming.port == HOST_PORT
        far = listener.accept()[0]
        guest, host = (socket.socket(fileno=fd) for fd in fds)
        with order, far, guest, host:
            assert order.recv(100) == b"accepted\n"
            order.sendall(b"up")
            guest.settimeout(60)
            assert guest.recv(10) == b"up"
            host.sendall(b"to the listener")
            assert far.recv(100) == b"to the listener"


@pytest.mark.parametrize("port", [HOST_PORT, 4])
def test_guest_is_refused_where_nobody_listens(desk: Callable[..., Desk], port: int) -> None:
    one = desk()
    one.start()
    with one.order(f"dial {port}") as order:
        one.mac.run_main(5.0)
        assert order.recv(100) == b""


def test_pause_and_resume_are_vzs_to_allow(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    assert one.ask(words.Resume(id=2), words.Failed)[0].code == "vz_failed"
    one.ask(words.Pause(id=3), words.Done)
    assert one.ask(words.RequestStop(id=4), words.Failed)[0].id == 4
    one.ask(words.Resume(id=5), words.Done)


def test_memory_is_asked_of_the_balloon_in_whole_mib(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    one.ask(words.SetMemory(id=2, target_bytes=(512 << 20) + 7), words.Done)
    assert one.mac.machine is not None
    machine: Any = one.mac.machine()
    assert machine.memoryBalloonDevices()[0].targetVirtualMachineMemorySize() == 512 << 20


def test_power_button(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    one.ask(words.RequestStop(id=2), words.Done)
    assert one.until(words.Stopped)[0].error == ""
    assert one.ended == 1
    assert one.ask(words.Kill(id=3), words.Failed)[0].code == "not_running"


def test_a_crash_is_told_in_apples_words(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    one.order("crash it broke").close()
    assert one.until(words.Stopped)[0].error == "it broke (VZErrorDomain 1)"
    assert one.ended == 1


def test_kill(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.start()
    one.ask(words.Kill(id=2), words.Done)
    assert one.ended == 1


def test_a_kill_that_vz_refuses_is_told_and_the_machine_stays(desk: Callable[..., Desk]) -> None:
    one = desk(Plan(stop_error=4))
    one.start()
    assert one.ask(words.Kill(id=2), words.Failed)[0].id == 2
    assert one.ended == 0


@pytest.mark.parametrize("started", [False, True])
def test_an_orphan_ends(desk: Callable[..., Desk], started: bool) -> None:
    one = desk()
    if started:
        one.start()
    one.machine.orphaned()
    while one.mac.run_main():
        pass
    assert one.ended == 1


def test_every_selector_that_is_used_was_called(desk: Callable[..., Desk], tmp_path: Path) -> None:
    """Through the strict fake, in this one life; what VZ calls of ours is called in the other tests."""
    one = desk()
    one.spec = structs.replace(one.spec, network="nat", shares=(Share(path=tmp_path),))
    observe_wake(one.mac.framework, lambda: None)
    one.start()
    for request in (words.Pause(id=2), words.Resume(id=3), words.SetMemory(id=4, target_bytes=1 << 30)):
        one.ask(request, words.Done)
    answer, connection = one.connect(ECHO_PORT)
    connection.close()
    one.machine.handle(words.Release(connection=answer.connection), [])
    one.order(f"dial {HOST_PORT}").close()
    one.mac.run_main(5.0)
    one.ask(words.RequestStop(id=5), words.Done)
    one.machine.orphaned()
    for bus in ("nvme", "usb"):
        disks = (structs.replace(one.spec.disks[0], bus=bus),)
        efi = structs.replace(one.spec, boot="efi", disks=disks)
        compose_configuration(one.mac.framework, efi, kernel=None, console=os.pipe())
    ours = {selector[1:] for name in CLASSES for selector in CLASSES[name]["methods"] if name.endswith("Delegate")}
    elsewhere = {"addOperationWithBlock:", "currentRunLoop", "runMode:beforeDate:", "mainQueue", "woke:"}
    elsewhere |= {"dateWithTimeIntervalSinceNow:", "localizedDescription", "localizedFailureReason"}
    assert used_selectors() - one.mac.called - ours - elsewhere == set()
