"""A guarded folder in the kernel: what may go and what may not, who is asked, and what is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.model.folder import Asked, Changed, ListBelow, Listed, Withdrawn
from tests.root.folder_mount import (
    Guarded,
    guarded,
    host_write,
    make_source,
    python,
    refused,
    start,
)

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("fuse"), pytest.mark.needs("mountns")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path)


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(source, journal=tmp_path / "journal") as mounted:
        yield mounted


# -- deletes ------------------------------------------------------------------------------------------------------

ATTACKS = {
    "rm": "rm -f letter",
    "rm -rf": "rm -rf /mnt/*",
    "rmdir": "rmdir empty",
    "symbolic link": "rm pointer",
    "find": "find . -type f -delete",
    "out of the folder": "mv letter /tmp/folderfs-stolen-$$ || { rm -f /tmp/folderfs-stolen-$$; exit 1; }",
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


def test_what_was_put_at_a_name_is_told_before_its_delete_asks(folder: Guarded) -> None:
    folder.rule("ask")
    with start(folder, "sh", "-c", "mv -f letter kept/photo; rm -f kept/photo") as child:
        asked = folder.asked()
        assert (asked.path, asked.was) == (b"kept/photo", b"letter")
        told = [each for said in folder.heard if isinstance(said, Changed) for each in said.changes]
        assert [(each.change, each.path, each.to) for each in told] == [("rename", b"letter", b"kept/photo")]
        folder.answer(asked.ask, allow=False)
        child.communicate(timeout=60)


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
        _, said = child.communicate(timeout=60)
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
        child.communicate(timeout=60)
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
        child.communicate(timeout=60)
    folder.answer(asked.ask, allow=True)  # too late
    folder.rule("deny")
    assert (source / "letter").exists()


SIGNALLED = """
import os, signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
os.unlink("/mnt/letter")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_that_ends_nothing_is_no_end_of_the_question(folder: Guarded, source: Path, number: int) -> None:
    folder.rule("ask")
    with start(folder, "/usr/bin/python3", "-c", SIGNALLED) as child:
        asked = folder.asked()
        time.sleep(0.5)
        folder.answer(asked.ask, allow=True)
        assert child.communicate(timeout=60) == ("", "")
    assert not (source / "letter").exists()
    with start(folder, "rmdir", "/mnt/empty") as child:
        asked = folder.asked()
        child.send_signal(signal.SIGSTOP)
        child.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        child.send_signal(number)
        while not isinstance(folder.hear(), Withdrawn):
            pass
        child.communicate(timeout=60)
        assert child.returncode == -number
    assert (source / "empty").exists()


def test_a_question_nobody_answers_is_refused(folder: Guarded, source: Path) -> None:
    folder.rule("ask", ask_timeout_s=0.3)
    refused(folder, "rm letter")
    assert (source / "letter").exists()


@pytest.mark.parametrize("renamed", [True, False])
def test_a_verdict_is_not_for_another_file(folder: Guarded, source: Path, renamed: bool) -> None:
    folder.rule("ask")
    with start(folder, "rm", "-f", "letter") as child:
        asked = folder.asked()
        if not renamed:  # the number of its inode is free then
            (source / "letter").unlink()
        host_write(source / "new", "another")
        os.rename(source / "new", source / "letter")
        folder.answer(asked.ask, allow=True)
        child.communicate(timeout=60)
    assert child.returncode != 0
    assert (source / "letter").read_text() == "another"


def test_another_rule_decides_what_waits(folder: Guarded, source: Path) -> None:
    folder.rule("ask")
    with start(folder, "rm", "-f", "letter") as child:
        folder.asked()
        folder.rule("allow")
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert not (source / "letter").exists()


def test_who_listens_next_is_told_what_waits(folder: Guarded) -> None:
    folder.rule("ask")
    with start(folder, "rm", "-f", "letter") as child:
        asked = folder.asked()
        folder.rule("ask")
        assert folder.asked().ask == asked.ask
        folder.answer(asked.ask, allow=False)
        child.communicate(timeout=60)


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
