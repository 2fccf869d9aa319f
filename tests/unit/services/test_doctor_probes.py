"""The probes of the real machine: right answers about things the test itself makes."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from coworkd.auditlog import RotationLimits
from coworkd.services.audit_files import AuditFiles
from coworkd.services.doctor import AuditFacts
from coworkd.services.doctor_probes import SystemProbes
from tests.unit.services.doctor_sources import sources


def probes(place: Path, **more: Any) -> SystemProbes:
    given: dict[str, Any] = {
        "state_dir": place,
        "audit_dir": place / "audit",
        "launcher_socket": place / "launcher.sock",
        "sockets": [],
        "network": sources(),
    }
    return SystemProbes(**{**given, **more})


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_interpreter_and_kernel_are_this_ones(tmp_path: Path) -> None:
    asked = probes(tmp_path)
    assert asked.python_version() == sys.version_info[:3]
    assert asked.uid() == os.geteuid()
    assert asked.kernel_release() == os.uname().release


def test_bwrap_is_asked_for_version_and_help(tmp_path: Path) -> None:
    fake = program(tmp_path / "bwrap", 'case $1 in --version) echo "bubblewrap 0.6.1";; *) echo "--args FD";; esac')
    assert probes(tmp_path, bwrap=fake).bwrap_help() == ("0.6.1", "--args FD\n")


def test_bwrap_gets_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    fake = program(tmp_path / "bwrap", "env")
    assert "SECRET_TOKEN" not in probes(tmp_path, bwrap=fake).bwrap_help()[1]


def test_missing_bwrap_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probes(tmp_path, bwrap="no-such-bwrap").bwrap_help()


@pytest.mark.parametrize(
    ("text", "told"), [("exit 0", ""), ("echo why >&2; exit 1", "why"), ("exit 3", "ended with 3")]
)
def test_try_bwrap_tells_why_not(text: str, told: str) -> None:
    # Below /tmp of the first test run's owner an ordinary user could not reach it, so the shell itself is the program.
    class Shell(SystemProbes):
        def _run(self, program: str, *arguments: str, uid: int | None = None) -> Any:
            return super()._run("sh", "-c", text, uid=uid)

    shell = Shell(state_dir=Path(), audit_dir=Path(), launcher_socket=None, sockets=[], network=sources())
    assert told in shell.try_bwrap()
    assert bool(shell.try_bwrap()) == bool(told)


def test_read_gives_text(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a\xff\n")
    assert probes(tmp_path).read(str(tmp_path / "f")) == "a\ufffd\n"


def test_seccomp_binding_is_one_of_ours(tmp_path: Path) -> None:
    assert probes(tmp_path).seccomp_binding() in ("seccomp", "pyseccomp")


def test_launcher_is_asked_or_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probes(tmp_path).launcher()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="not a socket"):
        probes(tmp_path, launcher_socket=tmp_path / "file").launcher()
    assert "starts its own" in probes(tmp_path, launcher_socket=None).launcher()
    assert probes(tmp_path, launcher=lambda: "pid 7").launcher() == "pid 7"


def test_state_directory_is_written_and_left_as_it_was(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    facts = probes(tmp_path).state_directory()
    assert (stat.S_IMODE(facts.mode), facts.uid) == (0o750, os.geteuid())
    assert facts.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_state_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probes(tmp_path / "none").state_directory()


def test_audit_end_is_that_of_the_newest_file(tmp_path: Path) -> None:
    files = AuditFiles(tmp_path / "audit", boot_id="b", limits=RotationLimits(reserve_bytes=0))
    files.start(at=1.0, version="0")
    head = files.head
    files.close()
    (path,) = (tmp_path / "audit").glob("audit-*")
    path.write_bytes(path.read_bytes() + b"torn")
    assert probes(tmp_path).audit_end() == AuditFacts(seq=head.seq, head=head.hash, torn_bytes=4, broken=None)


def test_audit_end_of_no_log_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    with pytest.raises(FileNotFoundError):
        probes(tmp_path).audit_end()


def test_a_running_log_answers_for_itself(tmp_path: Path) -> None:
    facts = AuditFacts(seq=1, head="a", torn_bytes=0, broken=None)
    assert probes(tmp_path, audit=lambda: facts).audit_end() == facts


def test_sockets_are_told_with_their_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        path.chmod(0o600)
        found = probes(tmp_path, sockets=[path, tmp_path / "none"]).sockets()
    facts = found[str(path)]
    assert facts is not None
    assert (facts.mode, facts.uid, stat.S_IMODE(facts.parent_mode)) == (0o600, os.geteuid(), 0o700)
    assert found[str(tmp_path / "none")] is None


def test_the_clock_is_the_wall_clock(tmp_path: Path) -> None:
    assert probes(tmp_path).now() > 1_700_000_000
