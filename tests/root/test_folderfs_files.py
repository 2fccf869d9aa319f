"""A guarded folder in the kernel: whose files become whose, files of every kind, what a host does to them, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root.folder_mount import (
    OWNER_UID,
    SESSION_UID,
    Guarded,
    guarded,
    host_write,
    make_source,
    python,
    refused,
    start,
    wait_until_gone,
)

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("fuse"), pytest.mark.needs("mountns")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path)


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(source, journal=tmp_path / "journal") as mounted:
        yield mounted


# -- files --------------------------------------------------------------------------------------------------------


def test_what_is_written_belongs_to_the_owner_and_is_shown_as_the_sessions(folder: Guarded, source: Path) -> None:
    folder.ok("umask 027; echo > f; mkdir d; chown 58011:58011 f; chmod 640 f; touch -d @1000 f; cp -p letter g")
    assert (source / "f").stat().st_uid == (source / "d").stat().st_gid == OWNER_UID
    assert (source / "f").stat().st_mode & 0o7777 == 0o640
    assert (source / "d").stat().st_mode & 0o7777 == 0o750
    assert (source / "f").stat().st_mtime == 1000
    assert folder.outside.joinpath("letter").stat().st_uid == SESSION_UID
    assert (source / "g").stat().st_mtime_ns == (source / "letter").stat().st_mtime_ns


def test_nothing_is_given_away(folder: Guarded) -> None:
    refused(folder, "chown 1000 letter")
    with pytest.raises(PermissionError):
        os.chown(folder.outside / "letter", 0, 0)


def test_no_set_id_bits_and_no_devices(folder: Guarded, source: Path) -> None:
    folder.ok("cp /bin/true t; chmod 6755 t; install -m 4755 /bin/true u; mkdir -m 2755 d")
    for name in ("t", "u", "d"):
        assert (source / name).stat().st_mode & 0o6000 == 0, name
    with pytest.raises(PermissionError):
        os.mknod(folder.outside / "null", 0o20666, os.makedev(1, 3))


def test_where_the_owner_may_not_the_session_may_not(folder: Guarded, source: Path) -> None:
    (source / "roots").write_text("secret")
    (source / "roots").chmod(0o600)
    done = folder.sh("cat roots")
    assert "denied" in done.stderr
    assert folder.sh("echo > roots").returncode != 0


def test_another_user_may_what_the_bits_say(folder: Guarded, source: Path) -> None:
    (source / "letter").chmod(0o600)
    assert "denied" in folder.run("cat", "letter", uid=58_099).stderr


def test_symbolic_links_are_the_callers_to_follow(folder: Guarded, source: Path) -> None:
    (source / "out").symlink_to("/etc/hostname")
    (source / "up").symlink_to("../../../../../../etc")
    assert folder.ok("readlink out; readlink up") == "/etc/hostname\n../../../../../../etc\n"
    python(folder, "import os\nfor n in 'out', 'up': assert os.lstat(n).st_mode & 0o170000 == 0o120000")
    folder.ok("ln -sfn /etc/passwd mine; rm mine")


def test_names_of_any_bytes(folder: Guarded, source: Path) -> None:
    python(
        folder,
        r"""
import os
for name in b"a\nb", b"\xff\xfe", b" ", b"-rf", b"n" * 255, "é".encode(), b"\\x":
    open(name, "w").write("1"); assert name in os.listdir(b"."); os.rename(name, name[:250] + b"~"); os.unlink(name[:250] + b"~")
for name, number in ((b"n" * 256, 36),):
    try: open(name, "w")
    except OSError as error: assert error.errno == number, error
""",
    )
    assert len(list(source.iterdir())) == 4


def test_a_big_directory_is_listed_whole_and_stays_in_order(folder: Guarded, source: Path) -> None:
    for n in range(10_000):
        (source / "kept" / f"file-{n:05}").touch()
    assert folder.ok("ls -U kept | sort | uniq | wc -l").strip() == "10001"
    python(
        folder,
        """
import os
assert len(os.listdir("kept")) == 10001
for n in range(10000): os.mkdir("d") if n == 0 else None; open(f"d/{n}", "w").close()
""",
    )
    folder.ok("find kept -type f | wc -l; ls -l d > /dev/null; rm -rf d; test ! -e d")


def test_readdir_goes_back_to_where_it_was(folder: Guarded) -> None:
    python(
        folder,
        """
import ctypes, os
os.mkdir("d")
for n in range(3000): open(f"d/{n}", "w").close()
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long; libc.telldir.argtypes = libc.readdir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = libc.opendir(b"d")
seen = []
while True:
    at = libc.telldir(d); entry = libc.readdir(d)
    if not entry: break
    seen.append((at, ctypes.string_at(entry + 19)))
assert len({name for _, name in seen}) == 3002
for at, name in (seen[5], seen[2500], seen[1200], seen[0]):
    libc.seekdir(d, at); assert ctypes.string_at(libc.readdir(d) + 19) == name, (at, name)
""",
    )


def test_deep_trees_and_few_descriptors(source: Path, tmp_path: Path) -> None:
    with guarded(source, nofile=400) as folder:
        python(
            folder,
            """
import os
top = os.getcwd()
for n in range(300): os.mkdir("d"); os.chdir("d")
open("f", "w").write("deep"); assert os.stat("f").st_size == 4
os.chdir(top)
for n in range(400): os.mkdir(f"w{n}"); open(f"w{n}/f", "w").close()
for n in range(400): assert os.stat(f"w{n}/f").st_size == 0
held = []
try:
    for n in range(400): held.append(open(f"w{n}/f"))
except OSError as error: assert error.errno == 23, error
assert len(held) > 10
for each in held: each.close()
open("w0/f").close()
""",
        )
        folder.ok("rm -rf d w*")


def test_storms_of_renames(folder: Guarded, source: Path) -> None:
    script = """
import os, sys
base = sys.argv[1]
os.mkdir(base)
for n in range(1500):
    open(f"{base}/t", "w").write(str(n)); os.rename(f"{base}/t", f"{base}/{n % 7}")
    if n % 50 == 0: os.rename(base, base + "x"); os.rename(base + "x", base)
for name in os.listdir(base): os.unlink(f"{base}/{name}")
os.rmdir(base)
"""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(start(folder, "/usr/bin/python3", "-c", script, f"b{n}")) for n in range(4)]
        for child in children:
            _, said = child.communicate(timeout=60)
            assert child.returncode == 0, said
    assert len(list(source.iterdir())) == 4


def test_reads_and_writes_of_every_kind(folder: Guarded, source: Path) -> None:
    python(
        folder,
        """
import mmap, os, fcntl
data = os.urandom(5_000_000)
with open("f", "wb") as f: f.write(data)
assert open("f", "rb").read() == data
with open("f", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0); m[100:105] = b"hello"; m.flush(); m.close()
    f.seek(100); assert f.read(5) == b"hello"
    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.posix_fallocate(f.fileno(), 0, 6_000_000); assert os.fstat(f.fileno()).st_size == 6_000_000
    os.fsync(f.fileno()); os.fdatasync(f.fileno())
with open("f", "ab") as f: f.write(b"end")
assert os.stat("f").st_size == 6_000_003
with open("s", "wb") as f: f.truncate(1 << 20); f.seek(1 << 20); f.write(b"x")
fd = os.open("s", os.O_RDONLY); assert os.lseek(fd, 0, os.SEEK_DATA) >= 0; os.close(fd)
a, b = os.open("f", os.O_RDONLY), os.open("g", os.O_RDWR | os.O_CREAT)
assert os.copy_file_range(a, b, 6_000_003) > 0
d = os.open("d", os.O_CREAT | os.O_WRONLY | getattr(os, "O_DIRECT", 0)); os.close(d)
fd = os.open("u", os.O_RDWR | os.O_CREAT); os.unlink("u"); os.write(fd, b"12"); assert os.fstat(fd).st_size == 2
assert os.fstat(fd).st_nlink == 0; os.fchmod(fd, 0o600); os.ftruncate(fd, 1); assert os.pread(fd, 9, 0) == b"1"
os.setxattr("f", "user.note", b"v"); assert os.listxattr("f") == ["user.note"]; assert os.getxattr("f", "user.note") == b"v"
os.removexattr("f", "user.note")
os.setxattr(".", "user.dir", b"w"); assert os.getxattr(".", "user.dir") == b"w"; os.removexattr(".", "user.dir")
try: os.setxattr("f", "trusted.x", b"")
except OSError: pass
else: raise SystemExit("trusted")
for n in "fsgd": os.unlink(n)
os.statvfs(".")
""",
    )
    assert sorted(each.name for each in source.iterdir()) == ["empty", "kept", "letter", "pointer"]


@contextlib.contextmanager
def within(directory: Path) -> Iterator[None]:
    """Work in `directory`, and go back."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def test_fifos_and_sockets_stay_inside(folder: Guarded, source: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        with within(source):  # an address has room for 108 bytes
            listener.bind("host.sock")
        listener.listen()
        os.chmod(source / "host.sock", 0o777)
        python(
            folder,
            """
import os, socket
os.mkfifo("p")
if os.fork() == 0: open("p", "w").write("through"); os._exit(0)
assert open("p").read() == "through"
with socket.socket(socket.AF_UNIX) as s, socket.socket(socket.AF_UNIX) as c:
    s.bind("own.sock"); s.listen(); c.connect("own.sock"); c.sendall(b"1"); assert s.accept()[0].recv(9) == b"1"
with socket.socket(socket.AF_UNIX) as c:
    try: c.connect("host.sock")
    except ConnectionRefusedError: pass
    else: raise SystemExit("reached the host's socket")
os.unlink("p"); os.unlink("own.sock")
""",
        )


# -- a host that works in the same files ---------------------------------------------------------------------------


def test_a_hosts_edits_are_seen(folder: Guarded, source: Path) -> None:
    assert folder.ok("cat letter") == "Dear all,\n"
    for text in ("longer than it was before\n", "short\n", "again\n"):
        host_write(source / "letter", text)
        assert folder.ok("cat letter") == text
        assert folder.outside.joinpath("letter").read_text() == text
        time.sleep(1.1)
        assert folder.ok("stat -c %s letter").strip() == str(len(text))
    (source / "new").write_text("1")
    assert folder.ok("cat new; ls") == "1empty\nkept\nletter\nnew\npointer\n"
    (source / "new").unlink()
    time.sleep(1.1)
    assert folder.sh("cat new").returncode != 0


def test_a_source_that_vanishes_is_that_files_error(folder: Guarded, source: Path) -> None:
    held = os.open(folder.outside / "kept", os.O_PATH)
    try:
        (source / "kept" / "photo").unlink()
        (source / "kept").rmdir()
        time.sleep(1.1)
        with pytest.raises(OSError) as caught:
            os.stat(f"/proc/self/fd/{held}/photo")
        assert caught.value.errno in (errno.ENOENT, errno.ESTALE)
        assert folder.ok("cat letter") == "Dear all,\n"
        folder.ok("mkdir kept; echo > kept/photo; rm -r kept")
    finally:
        os.close(held)


def test_appending_beside_the_host_loses_nothing(folder: Guarded, source: Path) -> None:
    folder.ok("cat letter > /dev/null")
    with (source / "letter").open("a") as host:
        host.write("host\n")
    folder.ok("echo session >> letter")
    assert (source / "letter").read_text() == "Dear all,\nhost\nsession\n"


def test_a_full_disk_is_told_and_ends_nothing(tmp_path: Path, source: Path) -> None:
    small = source / "small"
    small.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=1M,uid={OWNER_UID},gid={OWNER_UID},mode=755", "none", str(small)],
        check=True,
    )
    try:
        with guarded(small) as folder:
            done = folder.sh("head -c 3M /dev/zero > big")
            assert "No space left" in done.stderr
            folder.ok("rm big; echo fits > small")
    finally:
        subprocess.run(["umount", str(small)], check=True)


# -- its life -----------------------------------------------------------------------------------------------------


def test_read_only_changes_nothing(source: Path) -> None:
    with guarded(source, read_only=True) as folder:
        assert folder.ok("cat letter; ls") != ""
        for script in (
            "echo > letter",
            "rm letter",
            "mkdir d",
            "mv letter x",
            "chmod 600 letter",
            "touch new",
            "ln letter l",
        ):
            assert "Read-only file system" in folder.sh(script).stderr, script


def test_it_ends_with_its_launcher(source: Path) -> None:
    with guarded(source) as folder:
        folder.control.close()
        assert folder.holder.poll() is None
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            done = folder.sh("cat /mnt/letter")
            if done.returncode:
                break
        assert "not connected" in done.stderr or "abort" in done.stderr


def test_it_ends_when_it_is_unmounted(source: Path) -> None:
    with guarded(source) as folder:
        subprocess.run(["nsenter", f"--mount=/proc/{folder.holder.pid}/ns/mnt", "umount", "/mnt"], check=True)
        deadline = time.monotonic() + 10
        while (
            time.monotonic() < deadline and b"Z" not in Path(f"/proc/{folder.server_pid}/stat").read_bytes().split()[2]
        ):
            time.sleep(0.02)
        assert Path(f"/proc/{folder.server_pid}/stat").read_bytes().split()[2] == b"Z"


def test_a_server_that_is_killed_leaves_an_error_and_no_hang(source: Path) -> None:
    with guarded(source) as folder:
        os.kill(folder.server_pid, signal.SIGKILL)
        done = folder.sh("cat /mnt/letter", timeout_s=60)
        assert done.returncode != 0
    wait_until_gone(folder.server_pid)


def test_no_descriptor_and_no_memory_stays(folder: Guarded) -> None:
    folder.ok("for n in {1..50}; do mkdir d$n; echo > d$n/f; done; rm -r d*")
    before = len(os.listdir(f"/proc/{folder.server_pid}/fd"))
    folder.ok(
        "for n in {1..300}; do echo > f; cat f > /dev/null; cat missing 2> /dev/null; ls > /dev/null; rm f; done || true"
    )
    assert len(os.listdir(f"/proc/{folder.server_pid}/fd")) <= before + 3
