from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from host_stub.vz import words
from host_stub.vz.control import ControlSocket, rights
from host_stub.vz.entitlement import parse_entitlements
from host_stub.vz.main_loop import EXIT_BUG
from host_stub.vz.process import EXIT_NO_FRAMEWORK, EXIT_WORDS
from host_stub.words import Disk, MachineSpec
from tests.unit.host_stub.vz.fake_vz import Plan
from tests.unit.host_stub.vz.test_kernel import IMAGE

PATIENCE_S = 20


class Child:
    """The process, and the back end's end of its control socket."""

    def __init__(self, plan: Plan) -> None:
        self.ours, theirs = socket.socketpair()
        text = msgspec.json.encode(plan).decode()
        with theirs:
            command = [sys.executable, "-m", "tests.unit.host_stub.vz.fake_process", text]
            self.process = subprocess.Popen(
                [*command, "--control", str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
            )
        self.control = ControlSocket(self.ours, words.FromProcess)

    def start(self, directory: Path) -> words.Message:
        """Start a machine; its console is this child's and nobody else's."""
        (directory / "kernel").write_bytes(IMAGE)
        (directory / "root").write_bytes(bytes(512))
        spec = MachineSpec(
            architecture="aarch64",
            kernel=directory / "kernel",
            disks=(Disk(path=directory / "root", serial="cowork-root"),),
            vsock=directory / "v",
            serial_log=directory / "l",
            state_dir=directory / "state",
        )
        self.typed, write = os.pipe()
        self.shown, shown = os.pipe()
        self.ours.sendmsg([words.encode(words.Start(id=1, spec=spec, guest_ports=()))], rights((self.typed, shown)))
        for fd in (self.typed, shown):
            os.close(fd)
        self.typed = write
        received = self.control.receive()
        assert received is not None
        message: words.Message = received[0]
        return message

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said."""
        _, said = self.process.communicate(timeout=PATIENCE_S)
        for fd in (self.typed, self.shown):
            os.close(fd)
        self.control.close()
        return self.process.returncode, said.decode()


@pytest.mark.parametrize("plan", [Plan(), Plan(stop_error=4)])
def test_a_process_whose_back_end_goes_ends_and_its_guest_with_it(tmp_path: Path, plan: Plan) -> None:
    child = Child(plan)
    assert child.start(tmp_path) == words.Done(id=1)
    assert os.read(child.shown, 4096)
    child.ours.shutdown(socket.SHUT_RDWR)
    assert child.end() == (0, "")


def test_an_orphan_ends_even_where_vz_does_not_answer(tmp_path: Path) -> None:
    child = Child(Plan(stop_hangs=True))
    assert child.start(tmp_path) == words.Done(id=1)
    child.ours.shutdown(socket.SHUT_RDWR)
    assert child.end() == (0, "")


def test_broken_words_end_it_with_a_reason(tmp_path: Path) -> None:
    child = Child(Plan())
    assert child.start(tmp_path) == words.Done(id=1)
    child.ours.sendall(b"\xff\xff\xff\xff")
    status, said = child.end()
    assert status == EXIT_WORDS
    assert "broke the words: a frame of 4294967295 bytes" in said


def test_a_bug_ends_it_with_a_traceback(tmp_path: Path) -> None:
    child = Child(Plan(bug_on_start=True))
    with pytest.raises(AssertionError):
        child.start(tmp_path)
    status, said = child.end()
    assert status == EXIT_BUG
    assert "RuntimeError: a bug in a callback" in said


def test_without_a_framework_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "host_stub.vz", "--control", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if sys.platform != "darwin":
        assert done.returncode == EXIT_NO_FRAMEWORK
        assert b"cannot be reached from this Python" in done.stderr


def test_it_writes_the_entitlements_and_says_how_to_sign(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "host_stub.vz", "--entitlements"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])},
        capture_output=True,
        check=True,
    )
    assert parse_entitlements((tmp_path / "cowork-vm.entitlements").read_bytes())
    assert b"codesign --force --sign - --entitlements cowork-vm.entitlements" in done.stdout
