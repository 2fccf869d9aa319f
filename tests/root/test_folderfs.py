"""A guarded folder in the kernel: what may go and what may not, whose files become whose, and what a host's changes do to it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.model.folder import Asked, ListBelow, Listed, Withdrawn
from tests.root.folder_mount import OWNER_UID, SESSION_UID, Guarded, guarded, wait_until_gone

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("fuse"), pytest.mark.needs("mountns")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the user has: `letter`, `kept/photo`, and a place to put more."""
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_uid == os.getuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o055)
    place = tmp_path / "source"
    (place / "kept").mkdir(parents=True)
    (place / "empty").mkdir()
    (place / "letter").write_text("Dear all,\n")
    (place / "kept" / "photo").write_bytes(b"\xff\xd8")
    (place / "pointer").symlink_to("letter")
    for each in (place, *place.rglob("*")):
        os.chown(each, OWNER_UID, OWNER_UID, follow_symlinks=False)
    return place


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(source, journal=tmp_path / "journal") as mounted:
        yield mounted


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


# -- deletes ------------------------------------------------------------------------------------------------------

ATTACKS = {
    "rm": "rm -f letter",
    "rm -rf": "rm -rf /mnt/*",
    "rmdir": "rmdir empty",
    "symbolic link": "rm pointer",
    "find": "find . -type f -delete",
    "out of the folder": "mv letter /tmp/folderfs-stolen-$$",
    "renamed, then deleted": "mv letter other; rm other",
    "renamed over an own one": "echo > own; mv letter own; rm own",
    "moved into an own directory": "mkdir d; mv letter d; rm -r d",
    "directory renamed": "mv kept k; rm -r k",
    "directory moved into an own one": "mkdir d; mv kept d; rm -rf d",
    "own one renamed over it": "echo > own; mv own letter; rm letter",
    "linked, and the user's name deleted": "ln letter own; rm own; ln letter own; rm letter",
    "linked over": "ln letter own; mv -f own letter 2>/dev/null || true; rm letter",
    "renamed twice and made anew elsewhere": "mv letter a; mv a b; echo > a; rm b",
    "made anew, then both deleted": "mv letter a; echo > letter; rm letter; rm a",
    "made anew as a directory": "mv letter a; mkdir letter; rm a",
    "emptied": ": > letter; rm letter",
    "mode": "chmod 777 letter; chmod 777 .; rm letter",
}


OVERWRITTEN = {"own one renamed over it"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_users_own_cannot_be_deleted(folder: Guarded, source: Path, attack: str) -> None:
    before = inodes_below(source)
    refused(folder, ATTACKS[attack])
    gone = before - inodes_below(source)
    assert len(gone) == (attack in OVERWRITTEN), gone


def inodes_below(place: Path) -> set[int]:
    return {each.lstat().st_ino for each in place.rglob("*")}


EXCHANGE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
open("own", "w").close()
assert libc.renameat2(-100, b"own", -100, b"letter", int(sys.argv[1])) == 0, os.strerror(ctypes.get_errno())
for name in "own", "letter":
    try: os.unlink(name)
    except PermissionError: pass
    else: raise SystemExit(name + " is gone")
"""


def test_an_exchange_makes_both_the_users(folder: Guarded, source: Path) -> None:
    python(folder, EXCHANGE, "2")
    assert (source / "own").read_text() == "Dear all,\n"


def test_a_rename_with_a_whiteout_is_refused(folder: Guarded, source: Path) -> None:
    done = folder.run("/usr/bin/python3", "-c", EXCHANGE, "4")
    assert "not permitted" in done.stderr or "Invalid" in done.stderr
    assert (source / "letter").exists()


def test_own_names_may_go(folder: Guarded) -> None:
    folder.ok(
        """
        echo > f; mkdir d; mkfifo p; ln -s letter l; ln letter h; ln f g; mv f d/f; mv d e; echo > e/x; mv e/x e/f
        rm e/f; rmdir e; rm p l h g; mkdir -p a/b/c; echo > a/b/c/f; mv a z; rm -r z
        """
    )


def test_a_file_without_a_name_gets_one_that_may_go(folder: Guarded, source: Path) -> None:
    python(
        folder,
        """
import os
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o644); os.write(fd, b"hello")
os.link(f"/proc/self/fd/{fd}", "named", dst_dir_fd=os.open(".", os.O_RDONLY), follow_symlinks=True); os.write(fd, b" again"); os.close(fd)
assert open("named").read() == "hello again"; os.unlink("named")
fd = os.open("letter", os.O_RDWR); os.ftruncate(fd, 3); assert os.fstat(fd).st_size == 3
""",
    )
    assert (source / "letter").read_text() == "Dea"


def test_what_the_host_replaced_is_the_users_again(folder: Guarded, source: Path) -> None:
    folder.ok("echo mine > own; echo mine > other")
    host_write(source / "new", "the user's")
    os.rename(source / "new", source / "own")
    (source / "other").unlink()
    host_write(source / "other", "the user's")
    time.sleep(1.1)  # what the kernel believes of a name
    refused(folder, "rm own")
    refused(folder, "rm other")
    assert (source / "own").read_text() == "the user's"


def test_a_link_of_the_users_is_the_last_name_after_the_host_deleted_the_first(folder: Guarded, source: Path) -> None:
    folder.ok("ln letter own")
    (source / "letter").unlink()
    time.sleep(1.1)
    refused(folder, "rm own")


def test_own_names_outlive_the_server(source: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with guarded(source, journal=journal) as folder:
        folder.ok("mkdir -p d/e; echo > d/e/f; mv d g; echo > x; mv x letter; echo > gone; rm gone")
    host_write(source / "gone", "")
    with guarded(source, journal=journal) as folder:
        refused(folder, "rm letter")
        refused(folder, "rm gone")
        folder.ok("rm -r g")
    with guarded(source, journal=journal) as folder:
        refused(folder, "rm kept/photo")


def test_a_journal_that_is_rubbish_makes_everything_the_users(source: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with guarded(source, journal=journal) as folder:
        folder.ok("echo > own")
    journal.write_bytes(os.urandom(5000))
    with guarded(source, journal=journal) as folder:
        refused(folder, "rm own")
        folder.ok("echo > next")
    with guarded(source, journal=journal) as folder:
        folder.ok("rm next")


def test_a_journal_without_room_refuses_nothing(source: Path, tmp_path: Path) -> None:
    with guarded(source, journal=Path("/dev/full")) as folder:
        folder.ok("for n in {1..300}; do echo > f$n; done; rm f*")
        refused(folder, "rm letter")


# -- rules and questions ------------------------------------------------------------------------------------------


def test_the_rule_changes_while_it_is_mounted(folder: Guarded, source: Path) -> None:
    refused(folder, "rm letter")
    folder.rule("allow")
    folder.ok("rm letter; rmdir empty")
    folder.rule("deny")
    refused(folder, "rm kept/photo")
    assert not (source / "letter").exists()


def start(folder: Guarded, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        folder.command(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("allow", [True, False])
def test_a_delete_waits_for_its_verdict(folder: Guarded, source: Path, allow: bool) -> None:
    folder.rule("ask")
    folder.ok("cat kept/photo > /dev/null")
    with start(folder, "rm", "-f", "letter") as child:
        asked = folder.asked()
        assert (asked.path, asked.action, asked.pid) == (
            b"letter",
            "delete",
            child.pid,
        )  # nsenter and setpriv become it
        # Others go on meanwhile, with all directories but this one, and here with the names that the kernel knows.
        assert folder.run("cat", "/mnt/kept/photo").returncode == 0
        folder.answer(asked.ask, allow=allow)
        _, said = child.communicate(timeout=20)
    assert (child.returncode == 0) is allow, said
    assert (source / "letter").exists() is not allow


def test_many_deletes_are_asked_one_by_one_and_listed_at_once(folder: Guarded, source: Path) -> None:
    folder.rule("ask")
    folder.tell(ListBelow(id=7, path=b"", limit=100))
    while not isinstance(listed := folder.hear(), Listed):
        pass
    assert set(listed.paths) == {b"letter", b"empty", b"kept", b"kept/photo", b"pointer"}
    assert listed.paths.index(b"kept/photo") < listed.paths.index(b"kept")
    assert not listed.more
    with start(folder, "rm", "-rf", "kept", "empty") as child:
        asked: list[Asked] = []
        while child.poll() is None and len(asked) < 3:
            asked.append(folder.asked())
            folder.answer(asked[-1].ask, allow=True)
        child.communicate(timeout=20)
    assert [each.path for each in asked] == [b"kept/photo", b"kept", b"empty"]
    assert not (source / "kept").exists()


def test_a_directory_that_is_not_empty_asks_nobody(folder: Guarded) -> None:
    folder.rule("ask")
    done = folder.sh("rmdir kept")
    assert "not empty" in done.stderr
    assert not [each for each in folder.heard if isinstance(each, Asked)]


def test_who_is_interrupted_asks_no_more(folder: Guarded, source: Path) -> None:
    folder.rule("ask")
    with start(folder, "rm", "-f", "letter") as child:
        asked = folder.asked()
        child.send_signal(signal.SIGKILL)
        while not isinstance(said := folder.hear(), Withdrawn):
            pass
        assert said.ask == asked.ask
        child.communicate(timeout=20)
    folder.answer(asked.ask, allow=True)  # too late
    folder.rule("deny")
    assert (source / "letter").exists()


def test_a_question_nobody_answers_is_refused(folder: Guarded, source: Path) -> None:
    folder.rule("ask", ask_timeout_s=0.3)
    refused(folder, "rm letter")
    assert (source / "letter").exists()


def test_a_verdict_is_not_for_another_file(folder: Guarded, source: Path) -> None:
    folder.rule("ask")
    with start(folder, "rm", "-f", "letter") as child:
        asked = folder.asked()
        host_write(source / "new", "another")
        os.rename(source / "new", source / "letter")
        folder.answer(asked.ask, allow=True)
        child.communicate(timeout=20)
    assert child.returncode != 0
    assert (source / "letter").read_text() == "another"


def test_another_rule_decides_what_waits(folder: Guarded, source: Path) -> None:
    folder.rule("ask")
    with start(folder, "rm", "-f", "letter") as child:
        folder.asked()
        folder.rule("allow")
        child.communicate(timeout=20)
    assert child.returncode == 0
    assert not (source / "letter").exists()


def test_who_listens_next_is_told_what_waits(folder: Guarded) -> None:
    folder.rule("ask")
    with start(folder, "rm", "-f", "letter") as child:
        asked = folder.asked()
        folder.rule("ask")
        assert folder.asked().ask == asked.ask
        folder.answer(asked.ask, allow=False)
        child.communicate(timeout=20)


# -- what is told -------------------------------------------------------------------------------------------------


def test_changes_are_told_in_order(folder: Guarded) -> None:
    folder.ok(
        "echo hi > a; mv a b; mkdir d; ln -s x s; ln b c; chmod 600 b; truncate -s 1 b; rm b c s; rmdir d; echo > end"
    )
    told = [(each.change, each.path, each.to, each.size) for each in folder.changes(b"end")]
    assert told[: told.index(("create", b"end", b"", -1))] == [
        ("create", b"a", b"", -1),
        ("write", b"a", b"", 3),
        ("rename", b"a", b"b", -1),
        ("mkdir", b"d", b"", -1),
        ("symlink", b"s", b"", -1),
        ("link", b"c", b"b", -1),
        ("attributes", b"b", b"", -1),
        ("write", b"b", b"", 1),
        ("delete", b"b", b"", -1),
        ("delete", b"c", b"", -1),
        ("delete", b"s", b"", -1),
        ("rmdir", b"d", b"", -1),
    ]


def test_nobody_who_listens_hinders_nobody(folder: Guarded) -> None:
    folder.ok("for n in {1..6000}; do echo > f; : > f; done; rm f; echo > end", timeout_s=300)
    changes = folder.changes(b"end")
    lost = sum(each.lost for each in folder.heard if hasattr(each, "lost"))
    assert lost > 0
    assert changes[-1].path == b"end"
    assert len(changes) + lost >= 24_000


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
    children = [start(folder, "/usr/bin/python3", "-c", script, f"b{n}") for n in range(4)]
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


def test_fifos_and_sockets_stay_inside(folder: Guarded, source: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(source)
        try:
            listener.bind("host.sock")
        finally:
            os.chdir("/")
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
    held = start(
        folder, "/usr/bin/python3", "-c", "import sys,time\nf=open('letter')\nprint(f.read(),flush=True)\ninput()"
    )
    held.kill()
    held.communicate()
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
        assert "not connected" in done.stderr or "aborted" in done.stderr


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
        done = folder.sh("cat /mnt/letter", timeout_s=20)
        assert done.returncode != 0
    wait_until_gone(folder.server_pid)


def test_no_descriptor_and_no_memory_stays(folder: Guarded) -> None:
    folder.ok("for n in {1..50}; do mkdir d$n; echo > d$n/f; done; rm -r d*")
    before = len(os.listdir(f"/proc/{folder.server_pid}/fd"))
    folder.ok(
        "for n in {1..300}; do echo > f; cat f > /dev/null; cat missing 2> /dev/null; ls > /dev/null; rm f; done || true"
    )
    assert len(os.listdir(f"/proc/{folder.server_pid}/fd")) <= before + 3
