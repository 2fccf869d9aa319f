"""A guarded folder of one's own, mounted in a mount namespace of its own, without a launcher.

`guarded(source, …)` runs this file as a program below unshare(1). The program mounts, forks the server, which becomes the owner of the
source, tells the server's pid, and waits for the end of its stdin. Commands run in that namespace as the session's user; a test looks at
the source itself, as the host does, and reaches the mount through `/proc/PID/root`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from coworkd.folderfs import mount
from coworkd.folderfs.server import serve
from coworkd.model.folder import Asked, Changed, FolderChange, FromFolder, Rule, Ruled, ToFolder, Verdict
from coworkd.system import mounts, packet, prctl

SESSION_UID = 58_011
OWNER_UID = 58_012
WAIT_S = 60.0
_REPO = Path(__file__).resolve().parents[2]
_decoder: msgspec.msgpack.Decoder[FromFolder] = msgspec.msgpack.Decoder(FromFolder)


class Guarded:
    """A mounted folder. `path` is where it is in its namespace, `outside` the same from here, `source` what it shows."""

    def __init__(self, holder: subprocess.Popen[bytes], control: socket.socket, source: Path, server_pid: int) -> None:
        self.holder = holder
        self.control = control
        self.source = source
        self.server_pid = server_pid
        self.path = Path("/mnt")
        self.outside = Path(f"/proc/{holder.pid}/root/mnt")
        self.heard: list[FromFolder] = []
        self._ids = 0
        control.settimeout(WAIT_S)

    def command(self, *argv: str, cwd: str = "", uid: int = SESSION_UID) -> list[str]:
        """The argv that runs `argv` inside, as the session's user."""
        enter = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", f"--wd={self.outside / cwd}", "--"]
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
        return [*enter, *become, *argv]

    def run(
        self, *argv: str, cwd: str = "", uid: int = SESSION_UID, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end, output captured as text."""
        return subprocess.run(
            self.command(*argv, cwd=cwd, uid=uid),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            check=False,
            env=ENVIRONMENT,
        )

    def sh(self, script: str, *, cwd: str = "", timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return self.run("bash", "-euc", script, cwd=cwd, timeout_s=timeout_s)

    def ok(self, script: str, *, cwd: str = "", timeout_s: float = 120) -> str:
        """What the script printed; it must end with 0."""
        done = self.sh(script, cwd=cwd, timeout_s=timeout_s)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def tell(self, message: ToFolder) -> None:
        data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(message))
        self.control.sendmsg(data, ancillary)
        if memfd >= 0:
            os.close(memfd)

    def rule(self, deletes: Any, ask_timeout_s: float = 300.0) -> None:
        """Another rule, in force when this returns."""
        self._ids += 1
        self.tell(Rule(id=self._ids, deletes=deletes, ask_timeout_s=ask_timeout_s))
        while not (isinstance(said := self.hear(), Ruled) and said.id == self._ids):
            pass

    def hear(self) -> FromFolder:
        """The next thing it says; kept in `heard` as well."""
        data, ancillary, flags, _ = self.control.recvmsg(*packet.RECEIVE_ARGUMENTS)
        message, _ = packet.unpack(data, ancillary, flags)
        said = _decoder.decode(message)
        self.heard.append(said)
        return said

    def asked(self) -> Asked:
        """The next question."""
        while not isinstance(said := self.hear(), Asked):
            pass
        return said

    def answer(self, ask: int, *, allow: bool) -> None:
        self.tell(Verdict(ask=ask, allow=allow))

    def changes(self, until: bytes) -> list[FolderChange]:
        """All changes told so far, up to one of `until`."""
        while True:
            told = [each for said in self.heard if isinstance(said, Changed) for each in said.changes]
            if any(each.path == until for each in told):
                return told
            self.hear()


ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.test",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.test",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@contextlib.contextmanager
def guarded(
    source: Path,
    *,
    deletes: str = "deny",
    journal: Path | None = None,
    owner: int = OWNER_UID,
    read_only: bool = False,
    nofile: int = 0,
    binds: Sequence[Path] = (),
) -> Iterator[Guarded]:
    """Mount `source`, served as `owner`. The server is gone afterwards, and so is the mount."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = [
        str(source),
        deletes,
        str(journal or "-"),
        str(owner),
        str(int(read_only)),
        str(nofile),
        str(theirs.fileno()),
    ]
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-m",
        "tests.root.folder_mount",
        *options,
    ]
    with (
        ours,
        subprocess.Popen(
            [*command, *map(str, binds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_REPO,
            pass_fds=(theirs.fileno(),),
        ) as holder,
    ):
        theirs.close()
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            line = holder.stdout.readline()
            assert line.startswith(b"ready "), line
            yield Guarded(holder, ours, source, int(line.split()[1]))
        finally:
            holder.stdin.close()
            holder.wait(WAIT_S)


def wait_until_gone(pid: int) -> None:
    """Until a process that is no child of ours has ended."""
    deadline = time.monotonic() + WAIT_S
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


def make_source(directory: Path) -> Path:
    """What the user has: `letter`, `kept/photo`, `empty` and a `pointer`, below a `directory` that everybody may enter."""
    for each in (directory, *directory.parents):
        if each.stat().st_uid == os.getuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o055)
    place = directory / "source"
    (place / "kept").mkdir(parents=True)
    (place / "empty").mkdir()
    (place / "letter").write_text("Dear all,\n")
    (place / "kept" / "photo").write_bytes(b"\xff\xd8")
    (place / "pointer").symlink_to("letter")
    for each in (place, *place.rglob("*")):
        os.chown(each, OWNER_UID, OWNER_UID, follow_symlinks=False)
    return place


def refused(folder: Guarded, script: str) -> None:
    """The script fails with EPERM, and the user's files are there."""
    done = folder.sh(script)
    assert done.returncode != 0, script
    assert "not permitted" in done.stderr, done.stderr


def python(folder: Guarded, script: str, *arguments: str) -> str:
    done = folder.run("/usr/bin/python3", "-c", script, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def host_write(path: Path, text: str) -> None:
    path.write_text(text)
    os.chown(path, OWNER_UID, OWNER_UID)


@contextlib.contextmanager
def start(folder: Guarded, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A program that may wait for an answer. Where it still does at the end of the block it is killed."""
    with subprocess.Popen(
        folder.command(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def main() -> None:
    source, deletes, journal, owner, read_only, nofile, control_fd, *binds = sys.argv[1:]
    control = socket.socket(fileno=int(control_fd))
    # What the session's user must reach though its place is closed to it: this very Python, say.
    for each in binds:
        mounts.mount(each.encode(), each.encode(), b"", mounts.MS_BIND)
    source_fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    journal_fd = None if journal == "-" else os.open(journal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fuse_fd = os.open(mount.DEVICE, os.O_RDWR | os.O_CLOEXEC)
    options = mount.plan_options(fuse_fd=fuse_fd, root_mode=os.stat(source_fd).st_mode)
    words = [key if value is None else f"{key}={value}" for key, value in options if key not in ("source", "subtype")]
    flags = mounts.MS_NOSUID | mounts.MS_NODEV
    mounts.mount(b"coworkd-folder", b"/mnt", b"fuse.coworkd", flags, ",".join(words).encode())
    server = os.fork()
    if server == 0:
        os.close(0)
        try:
            _serve(fuse_fd, source_fd, control, journal_fd, deletes, int(owner), bool(int(read_only)), int(nofile))
        finally:
            os._exit(0)
    os.close(fuse_fd)
    control.close()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", server, flush=True)
    sys.stdin.buffer.read()
    os.kill(server, signal.SIGTERM)
    os.waitpid(server, 0)
    mounts.umount(b"/mnt", mounts.MNT_DETACH)


def _serve(
    fuse_fd: int,
    source_fd: int,
    control: socket.socket,
    journal_fd: int | None,
    deletes: Any,
    owner: int,
    read_only: bool,
    nofile: int,
) -> None:
    import resource

    if nofile:
        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    prctl.set_undumpable()
    if owner:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    serve(
        fuse_fd=fuse_fd,
        source_fd=source_fd,
        control=control,
        journal_fd=journal_fd,
        uid=SESSION_UID,
        gid=SESSION_UID,
        deletes=deletes,
        read_only=read_only,
    )


if __name__ == "__main__":
    main()
