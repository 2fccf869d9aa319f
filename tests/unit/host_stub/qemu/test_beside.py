from __future__ import annotations

import sys
from pathlib import Path

from host_stub.qemu.beside import carries, compose_virtiofsd, compose_vsock
from host_stub.qemu.tools import Virtiofsd
from host_stub.words import Share

C = Virtiofsd(path=Path("/usr/lib/qemu/virtiofsd"), kind="c")
RUST = Virtiofsd(path=Path("/usr/libexec/virtiofsd"), kind="rust", read_only=True)


def test_the_vsock_device_is_run_by_this_interpreter_in_isolation() -> None:
    argv = compose_vsock(7, 3, Path("/b/vsock.sock"))
    assert argv[:4] == [sys.executable, "-I", "-m", "host_stub.vsock"]
    assert argv[4:] == ["--listener", "7", "--cid", "3", "--hybrid", "/b/vsock.sock"]


def test_the_old_virtiofsd_is_asked_in_its_own_words() -> None:
    argv = compose_virtiofsd(C, Share(path=Path("/a,b\\c")), 9)
    assert argv[:2] == ["/usr/lib/qemu/virtiofsd", "--fd=9"]
    assert "source=/a\\,b\\\\c" in argv
    assert "timeout=0" in argv


def test_the_new_virtiofsd_is_asked_in_its_own_words() -> None:
    argv = compose_virtiofsd(RUST, Share(path=Path("/a,b"), read_only=True), 9)
    assert argv[1:3] == ["--fd=9", "--shared-dir=/a,b"]
    assert "--readonly" in argv


def test_a_share_that_may_not_be_written_needs_one_that_can_refuse() -> None:
    writable, shut = Share(path=Path("/a")), Share(path=Path("/a"), read_only=True)
    assert [carries(C, writable), carries(C, shut)] == [True, False]
    assert [carries(RUST, writable), carries(RUST, shut)] == [True, True]
    assert not carries(None, writable)
