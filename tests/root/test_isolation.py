"""What a command can see and do from inside: the corpus of probes/, run in real sandboxes beside a neighbour at work.

One command for each of three sessions runs all its probes, each in a child of its own; one test per probe judges the outcome. A probe
that says nothing, or breaks as a program, is a failed test. Nothing here attempts anything outside a sandbox.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError
from coworkd.model.policy import LimitsRequest
from coworkd.model.session import FolderGrant
from coworkd.sandbox.proxy_variables import PROXY_VARIABLES
from coworkd.seccomp import host_arch
from coworkd.seccomp.numbers import numbers
from tests.root.conftest import Daemon
from tests.root.live import children_of, client_of, exited, session_of
from tests.root.probes.corpus import ProgramProbe, SyscallProbe, copy_to, load_programs, load_syscalls

pytestmark = pytest.mark.needs("bubblewrap")

SYSCALLS = {entry.id: entry for entry in load_syscalls()}
PROGRAMS = {entry.id: entry for entry in load_programs()}
STRICT_PROGRAMS = {name: entry for name, entry in PROGRAMS.items() if entry.strict is not None}
MINE, BOB, SMALL, STRICT = "probe", "probe-bob", "probe-small", "probe-strict"
GIVEN, SHARED = "given", "shared"
RUN_TIMEOUT_S = 60
SET_ID = stat.S_ISUID | stat.S_ISGID
ENVIRONMENT = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "TERM", "LANG", "TZ", "TMPDIR", *PROXY_VARIABLES}
LIST_DESCRIPTORS = "n=0; while [ $n -lt 100 ]; do [ -e /proc/$$/fd/$n ] && echo $n; n=$((n+1)); done"
Outcomes = dict[str, str]


class Bench(msgspec.Struct, kw_only=True):
    """The place where all probes run: the sessions are there, the neighbour is at work, the traps are set."""

    client: Client
    daemon: Daemon
    given: Path
    shared: Path
    told: dict[str, Any]

    def run(self, session: str, syscalls: list[str], programs: list[str]) -> Outcomes:
        """Run probes in one command of `session`. Fails where the runner itself did not come to its end."""
        home = f"/sessions/{session}"
        folders = session == MINE
        asked = {
            "given": {
                **self.told,
                "home": home,
                "shared": f"{home}/mnt/{SHARED}" if folders else home,
                "uid": self.client.session_get(session=session).session.uid,
            },
            "syscalls": [SYSCALLS[name].asked() for name in syscalls],
            "programs": programs,
        }
        ran = self.client.run(
            session,
            ["/usr/bin/python3", "-B", "-m", "tests.root.probes.runner"],
            cwd=f"{home}/mnt/{GIVEN}",
            input=json.dumps(asked).encode(),
            timeout_s=RUN_TIMEOUT_S,
        )
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        assert lines, ran.stderr.decode()
        assert lines[-1] == {"done": len(syscalls) + len(programs)}, (lines[-1], ran.stderr.decode())
        assert ran.exit == exited(0)
        return {line["id"]: line["outcome"] for line in lines[:-1]}


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The read-only folder: the probes, and a file worth changing."""
    folder = tmp_path_factory.mktemp("given")
    copy_to(folder)
    (folder / "a-file").write_bytes(b"as it was".ljust(4096, b"."))
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that may be written: root's, with traps in it."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy("/usr/bin/id", folder / "planted-id")
    (folder / "planted-writable").write_text("x")
    for name in ("planted-id", "planted-writable"):
        (folder / name).chmod(0o4755)
    os.mknod(folder / "planted-device", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    return folder


@pytest.fixture(scope="module")
def bob(client: Client, given: Path) -> Iterator[tuple[Process, dict[str, Any]]]:
    """A neighbour who holds one thing of every kind while the probes run."""
    folder = FolderGrant(name=GIVEN, source=str(given), mode="ro")
    secret = f"/coworkd-probe-{secrets.token_hex(8)}".lstrip("/")
    victim = f"/sessions/{BOB}/mnt/{GIVEN}/tests/root/probes/victim.py"
    with session_of(client, BOB, folders=[folder], env={"SECRET": secret}):
        argv = ["/usr/bin/python3", "-B", victim, secret, str(numbers(host_arch())["mq_open"])]
        with client.start(BOB, argv, stdin=True) as process:
            said = b""
            while not said.endswith(b"\n"):
                piece = process.read(timeout_s=60)
                assert piece is not None, said
                said += piece.data
            yield process, json.loads(said)


@pytest.fixture(scope="module")
def host_listeners() -> Iterator[dict[str, Any]]:
    """What the guest itself listens on, and the addresses it has."""
    abstract = f"coworkd-probe-host-{os.getpid()}"
    with socket.create_server(("0.0.0.0", 0)) as port, socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + abstract)
        listener.listen()
        words = subprocess.run(("hostname", "-I"), capture_output=True, text=True, check=True).stdout.split()
        addresses = [word for word in words if ":" not in word] or ["192.0.2.7"]
        yield {"port": port.getsockname()[1], "abstract": abstract, "addresses": addresses}


@pytest.fixture(scope="module")
def bench(
    client: Client,
    daemon: Daemon,
    given: Path,
    shared: Path,
    bob: tuple[Process, dict[str, Any]],
    host_listeners: dict[str, Any],
) -> Iterator[Bench]:
    ro = FolderGrant(name=GIVEN, source=str(given), mode="ro")
    rwd = FolderGrant(name=SHARED, source=str(shared), mode="rwd")
    small = LimitsRequest(pids_max=64, tmp_max=1 << 20)
    with (
        session_of(client, MINE, folders=[ro, rwd]),
        session_of(client, SMALL, folders=[ro], limits=small),
        session_of(client, STRICT, folders=[ro], profile="strict"),
    ):
        launcher = client.info().launcher_pid
        mnt = f"/sessions/{MINE}/mnt"
        told = {
            "numbers": numbers(host_arch()),
            "bob": bob[1],
            "bob_uid": client.session_get(session=BOB).session.uid,
            "host": host_listeners,
            "state": str(daemon.state),
            "host_paths": sorted({str(daemon.state), *map(str, daemon.state.parent.rglob("*"))})[:200],
            "pids": [bob[0].pid, daemon.child.pid, launcher, *children_of(launcher), os.getpid()],
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
            "given_file": f"{mnt}/{GIVEN}/a-file",
            "shared_folder": f"{mnt}/{SHARED}",
            "planted_setuid": f"{mnt}/{SHARED}/planted-id",
            "planted_writable_setuid": f"{mnt}/{SHARED}/planted-writable",
            "planted_device": f"{mnt}/{SHARED}/planted-device",
            "nofile": client.policy_show(profile="default").limits.nofile,
        }
        yield Bench(client=client, daemon=daemon, given=given, shared=shared, told=told)


# -- the corpus ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes(bench: Bench) -> Outcomes:
    """Every probe of the default profile, in two commands."""
    mine = [name for name, entry in PROGRAMS.items() if entry.where == "default"]
    small = [name for name, entry in PROGRAMS.items() if entry.where == "small"]
    return bench.run(MINE, list(SYSCALLS), mine) | bench.run(SMALL, [], small)


@pytest.fixture(scope="module")
def strict_outcomes(bench: Bench) -> Outcomes:
    return bench.run(STRICT, list(SYSCALLS), list(STRICT_PROGRAMS))


def entry_of(name: str) -> SyscallProbe | ProgramProbe:
    return SYSCALLS[name] if name in SYSCALLS else PROGRAMS[name]


@pytest.mark.parametrize("name", [*SYSCALLS, *PROGRAMS])
def test_probe_finds_no_way(outcomes: Outcomes, name: str) -> None:
    entry = entry_of(name)
    assert outcomes[name] in entry.expect, f"{entry.attempts}: {outcomes[name]}, expected {entry.expect}"


@pytest.mark.parametrize("name", [*SYSCALLS, *STRICT_PROGRAMS])
def test_probe_finds_no_way_in_strict(strict_outcomes: Outcomes, name: str) -> None:
    entry = entry_of(name)
    expected = entry.expect if entry.strict is None else entry.strict
    assert strict_outcomes[name] in expected, f"{entry.attempts}: {strict_outcomes[name]}, expected {expected}"


def test_corpus_has_each_id_once_and_says_what_it_attempts() -> None:
    entries: list[SyscallProbe | ProgramProbe] = [*load_syscalls(), *load_programs()]
    assert len({entry.id for entry in entries}) == len(entries) >= 80
    assert all(entry.attempts and entry.expect for entry in entries)


# -- what the outside looks like afterwards -----------------------------------------------------------------------


def test_shared_folder_holds_no_set_id_file_of_the_sandbox(bench: Bench, outcomes: Outcomes) -> None:
    found = {path.name: path.lstat() for path in bench.shared.iterdir()}
    prepared = {name for name, entry in SYSCALLS.items() if entry.prepare}
    assert prepared | {"by-chmod", "by-cp", "by-copystat", "setid.mkdir"} <= set(found)
    assert {name for name, status in found.items() if status.st_mode & SET_ID} == {"planted-id"}
    assert {status.st_uid for status in found.values()} == {0}, "what a rwd folder gets belongs to its owner"
    assert outcomes["setid.fchmod"] == "EPERM"


def test_shared_folder_holds_no_new_device(bench: Bench, outcomes: Outcomes) -> None:
    kinds = {path.name for path in bench.shared.iterdir() if stat.S_ISCHR(path.lstat().st_mode)}
    assert kinds == {"planted-device"}
    assert outcomes["device.mknod-in-folder"] == "EPERM"


def test_read_only_folder_is_as_it_was(bench: Bench, outcomes: Outcomes) -> None:
    assert sorted(os.listdir(bench.given)) == ["a-file", "tests"]
    assert (bench.given / "a-file").read_bytes() == b"as it was".ljust(4096, b".")
    assert stat.S_IMODE((bench.given / "a-file").stat().st_mode) == 0o644
    assert outcomes["folder.ro-write"] == "EROFS"


def test_neighbour_and_daemon_are_unharmed(
    bench: Bench, outcomes: Outcomes, bob: tuple[Process, dict[str, Any]]
) -> None:
    assert bench.client.process_get(process=bob[0].id).state == "running"
    assert outcomes["neighbour.signal"] == "ESRCH"
    assert bench.client.audit_verify().ok


# -- commands of their own ----------------------------------------------------------------------------------------


def said_by(bench: Bench, *argv: str, session: str = MINE) -> str:
    ran = bench.client.run(session, list(argv), timeout_s=60)
    assert ran.exit == exited(0), ran.stderr
    return ran.stdout.decode()


def test_command_gets_exactly_the_documented_environment(bench: Bench) -> None:
    lines = said_by(bench, "/usr/bin/env", "-0").rstrip("\0").split("\0")
    environment = dict(line.split("=", 1) for line in lines)
    assert set(environment) == ENVIRONMENT | {"PWD"}
    assert environment["HOME"] == environment["PWD"] == f"/sessions/{MINE}"
    assert environment["TMPDIR"] == "/tmp"


def test_command_inherits_three_descriptors(bench: Bench) -> None:
    assert said_by(bench, "/bin/sh", "-c", LIST_DESCRIPTORS).split() == ["0", "1", "2"]


def test_command_with_a_terminal_inherits_three_descriptors(bench: Bench) -> None:
    argv = ["/bin/sh", "-c", f"{LIST_DESCRIPTORS}; tty"]
    with bench.client.start(MINE, argv, tty=(24, 80)) as process:
        said = b"".join(piece.data for piece in process).split()
    assert said == [b"0", b"1", b"2", b"/dev/pts/0"]


def clean_status(text: str) -> None:
    fields = dict(line.split(":", 1) for line in text.splitlines())
    assert {name: fields[name].strip() for name in ("SigBlk", "SigIgn", "SigCgt")} == dict.fromkeys(
        ("SigBlk", "SigIgn", "SigCgt"), "0" * 16
    )
    assert fields["Umask"].strip() == "0022"


def test_command_starts_with_default_signals_and_umask(bench: Bench) -> None:
    clean_status(said_by(bench, "/usr/bin/cat", "/proc/self/status"))


def test_command_starts_clean_under_a_daemon_that_did_not(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A daemon started by a careless parent: odd umask, ignored and blocked signals, secrets in its environment."""
    monkeypatch.setenv("COWORKD_PROBE_SECRET", "of the host")
    monkeypatch.setenv("LD_PRELOAD", "")
    umask, handler = os.umask(0o077), signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        daemon = request.getfixturevalue("fresh_daemon")
    finally:
        os.umask(umask)
        signal.signal(signal.SIGUSR1, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    with client_of(daemon) as client, session_of(client, "clean") as session:
        clean_status(client.run(session, ["/usr/bin/cat", "/proc/self/status"]).stdout.decode())
        assert b"SECRET" not in client.run(session, ["/usr/bin/env"]).stdout
        assert client.run(session, ["/bin/sh", "-c", "cd /etc && cat passwd && ls /usr /tmp"]).exit == exited(0)


def test_kill_of_everything_ends_nothing_outside(bench: Bench, bob: tuple[Process, dict[str, Any]]) -> None:
    with bench.client.start(MINE, ["/usr/bin/sleep", "60"]) as other:
        ran = bench.client.run(MINE, ["/bin/bash", "-c", "kill -9 1; kill -9 -1; echo alive"])
        assert (ran.exit, ran.stdout) == (exited(0), b"alive\n")
        assert bench.client.process_get(process=other.id).state == "running"
    assert bench.client.process_get(process=bob[0].id).state == "running"


# -- plants: CVE-2026-87766 ---------------------------------------------------------------------------------------

PLANT = r"""
cd ~; target=$1
for name in .local .config .ssh .cache a tmp dev etc proc oldroot newroot; do ln -s "/oldroot$target" "$name"; done
ln -s "/oldroot$target" /tmp/x; ln -s "/oldroot$target" /dev/shm/x; ln -s "$target" /tmp/.X11-unix
mv mnt moved 2>/dev/null && echo moved; rmdir mnt 2>/dev/null && echo removed; ln -sfn /etc mnt 2>/dev/null && echo linked
ls -A | sort | tr '\n' ' '
"""


def test_planted_links_lead_nowhere(bench: Bench, tmp_path: Path) -> None:
    """The next command, and the session opened anew with another folder named like a plant, behave, and nothing is made outside."""
    target = tmp_path / "outside"
    target.mkdir()
    with session_of(bench.client, "planter") as session:
        said = said_by(bench, "/bin/bash", "-c", PLANT, "plant", str(target), session=session)
        assert said.split()[-1] == "tmp"
        assert not {"moved", "removed", "linked"} & set(said.split())
        assert said_by(bench, "/bin/echo", "next", session=session) == "next\n"
        folder = FolderGrant(name="a", source=str(bench.given), mode="ro")
        bench.client.session_ensure(name=session, folders=[folder])
        assert "a-file" in said_by(bench, "/bin/ls", f"/sessions/{session}/mnt/a", session=session)
        assert said_by(bench, "/bin/sh", "-c", "readlink ~/a", session=session) == f"/oldroot{target}\n"
    assert list(target.iterdir()) == []


def test_mnt_replaced_by_a_link_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    """As if a session had got at its home's own mnt: the tree is built without following it, or not at all."""
    target = tmp_path / "outside"
    target.mkdir()
    folder = FolderGrant(name="a", source=str(bench.given), mode="ro")
    with session_of(bench.client, "replacer") as session:
        assert said_by(bench, "/bin/echo", "made", session=session) == "made\n"
        mnt = bench.daemon.state / session / "mnt"
        assert mnt.is_dir()
        mnt.rmdir()
        mnt.symlink_to(target)
        try:
            bench.client.session_ensure(name=session, folders=[folder])
            seen = said_by(bench, "/bin/ls", f"/sessions/{session}/mnt/a", session=session)
        except CoworkError as error:
            seen = error.message
        assert "a-file" in seen or "mnt" in seen
    assert list(target.iterdir()) == []


def test_home_links_are_not_followed_when_the_session_goes(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    target.mkdir()
    (target / "precious").write_text("kept")
    with session_of(bench.client, "leaver") as session:
        script = 'cd ~; ln -s "$1" d; ln -s "$1/precious" f; mkdir -p e; ln -s "$1" e/d'
        said_by(bench, "/bin/sh", "-c", script, "plant", str(target), session=session)
    assert (target / "precious").read_text() == "kept"
    assert not (bench.daemon.state / "leaver").exists()


def test_folder_whose_source_became_a_link_is_refused(bench: Bench, tmp_path: Path) -> None:
    """A session that may write a folder puts a link where the host thinks a directory is, and waits for it to be granted."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    for directory in (project / "sub", outside):
        directory.mkdir(parents=True)
    (outside / "precious").write_text("kept")
    with session_of(
        bench.client, "swapper", folders=[FolderGrant(name="p", source=str(project), mode="rwd")]
    ) as session:
        script = 'cd ~/mnt/p; mv sub away; ln -s "$1" sub'
        said_by(bench, "/bin/sh", "-c", script, "swap", str(outside), session=session)
        assert (project / "sub").is_symlink()
        granted = [FolderGrant(name="s", source=str(project / "sub"), mode="rwd")]
        with pytest.raises(CoworkError, match="sub"), session_of(bench.client, "granted", folders=granted):
            pytest.fail("the link was followed")
        assert "granted" not in {each.name for each in bench.client.session_list().sessions}
    assert (outside / "precious").read_text() == "kept"
