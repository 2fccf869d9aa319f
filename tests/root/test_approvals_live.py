"""Deletes that ask a person: real tools in real sandboxes, answers in time and too late, and what dies on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, InvalidState
from tests.root.approval_lab import (
    Listener,
    asking_daemon,
    contents,
    ensure_with,
    open_approvals,
    session_with,
    tree,
    wait_for_approval,
)
from tests.root.conftest import Daemon
from tests.root.live import client_of, exited, links_of, took_at_most, wait_until

pytestmark = [pytest.mark.needs("bubblewrap"), pytest.mark.needs("fuse")]


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with asking_daemon(tmp_path_factory.mktemp("asking")) as daemon:
        yield daemon


@pytest.fixture
def client(asking: Daemon) -> Iterator[Client]:
    with client_of(asking) as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tree(tmp_path / "source", "a", "b", "d/x", "d/y", "d/e/z")


def _sh(client: Client, session: str, script: str) -> Process:
    return client.start(session, ["sh", "-c", f"cd mnt/f; {script}"])


def _end(process: Process) -> tuple[int | None, bytes]:
    """Status and output."""
    said = b""
    while (piece := process.read(timeout_s=60)) is not None:
        said += piece.data
    return process.wait(timeout_s=60).exit.code, said


# -- tools ----------------------------------------------------------------------------------------------------------


def test_rm_asks_once_for_all_that_it_deletes(client: Client, source: Path) -> None:
    with session_with(client, "tools", (source, "rw")) as session, _sh(client, session, "rm -r a d; ls") as process:
        asked = wait_for_approval(client, session)
        assert (asked.process, asked.folder) == (process.id, "f")
        assert set(asked.paths) == {b"a", b"d", b"d/x", b"d/y", b"d/e", b"d/e/z"}
        assert asked.command == (b"rm", b"-r", b"a", b"d")
        assert contents(source) == ["a", "b", "d", "d/e", "d/e/z", "d/x", "d/y"]
        client.approval_answer(approval=asked.approval, answer="once", revision=asked.revision)
        assert _end(process) == (0, b"b\n")
        assert contents(source) == ["b"]
        kinds = [record["kind"] for record in client.audit_tail(session=session, limit=50).records]
        assert kinds.index("approval.request") < kinds.index("approval.answer")


def test_what_is_refused_stays_and_the_tool_says_so(client: Client, source: Path) -> None:
    with session_with(client, "tools", (source, "rw")) as session, _sh(client, session, "rm a b 2>&1") as process:
        asked = wait_for_approval(client, session)
        client.approval_answer(approval=asked.approval, answer="deny")
        status, said = _end(process)
        assert status == 1
        assert said.count(b"Operation not permitted") == 2
        assert contents(source) == ["a", "b", "d", "d/e", "d/e/z", "d/x", "d/y"]
        assert open_approvals(client, session) == ()


def test_what_the_session_made_itself_asks_nobody(client: Client, source: Path) -> None:
    script = "echo x > new; mkdir n; echo y > n/m; rm -r new n && echo x > a && mv a c && echo done"
    with session_with(client, "tools", (source, "rw")) as session, _sh(client, session, script) as process:
        assert _end(process) == (0, b"done\n")
        assert open_approvals(client, session) == ()


def test_an_answer_for_the_session_holds_for_other_commands(client: Client, source: Path) -> None:
    remover = "import shutil; shutil.rmtree('d')"
    with session_with(client, "tools", (source, "rw")) as session:
        with client.start(session, ["python3", "-c", remover], cwd=f"/sessions/{session}/mnt/f") as process:
            asked = wait_for_approval(client, session)
            assert asked.count == 1
            client.approval_answer(approval=asked.approval, answer="session")
            assert _end(process) == (0, b"")
        with _sh(client, session, "rm a b; ls") as process:
            assert _end(process) == (0, b"")
        assert contents(source) == []


@pytest.mark.needs("git")
def test_git_works_and_git_clean_asks(client: Client, source: Path) -> None:
    script = (
        "git init -q . && git config user.email a@b && git config user.name n && git add a && git commit -qm one"
        " && git rm -q --cached a && git reset -q && git gc -q && git status --short | wc -l; git clean -fdq b; ls"
    )
    with session_with(client, "tools", (source, "rw")) as session, _sh(client, session, script) as process:
        asked = wait_for_approval(client, session)
        assert asked.paths == (b"b",)
        client.approval_answer(approval=asked.approval, answer="once")
        status, said = _end(process)
        assert status == 0
        assert said.endswith(b"a\nd\n")


def test_names_that_would_drive_a_terminal_are_bytes(client: Client, source: Path) -> None:
    name = b"x\n\x1b[2J\xff"
    (source / os.fsdecode(name)).touch()
    with session_with(client, "tools", (source, "rw")) as session:
        with client.start(session, [b"rm", name], cwd=f"/sessions/{session}/mnt/f") as process:
            asked = wait_for_approval(client, session)
            assert asked.paths == (name,)
            client.approval_answer(approval=asked.approval, answer="once")
            assert _end(process) == (0, b"")
        assert not (source / os.fsdecode(name)).exists()


# -- answers --------------------------------------------------------------------------------------------------------


def test_of_two_answers_at_once_one_counts(client: Client, asking: Daemon, source: Path) -> None:
    with session_with(client, "answers", (source, "rw")) as session, _sh(client, session, "rm a") as process:
        asked = wait_for_approval(client, session)
        outcomes: list[str] = []

        def answer(word: str) -> None:
            with client_of(asking) as own:
                try:
                    own.approval_answer(approval=asked.approval, answer=word)  # type: ignore[arg-type]  # one of the three
                    outcomes.append(word)
                except InvalidState:
                    outcomes.append("late")

        threads = [threading.Thread(target=answer, args=(word,)) for word in ("once", "deny")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status, _ = _end(process)
        assert sorted(outcomes) in (["deny", "late"], ["late", "once"])
        assert (status == 0) is ("once" in outcomes) is not (source / "a").exists()


def test_who_asked_is_killed_and_nothing_is_deleted(client: Client, source: Path) -> None:
    with session_with(client, "answers", (source, "rw")) as session, _sh(client, session, "rm a") as process:
        asked = wait_for_approval(client, session)
        process.kill(0)
        process.wait(timeout_s=60)
        wait_until(lambda: open_approvals(client, session) == (), "it is withdrawn")
        with pytest.raises(InvalidState, match="does not wait any more"):
            client.approval_answer(approval=asked.approval, answer="once")
        assert (source / "a").exists()


def test_a_file_that_was_put_in_the_place_of_another_meanwhile_is_not_deleted(client: Client, source: Path) -> None:
    with session_with(client, "answers", (source, "rw")) as session, _sh(client, session, "rm a") as process:
        asked = wait_for_approval(client, session)
        (source / "other").write_text("precious")
        (source / "other").rename(source / "a")
        client.approval_answer(approval=asked.approval, answer="once")
        assert _end(process)[0] == 1
        assert (source / "a").read_text() == "precious"


def test_a_directory_that_was_moved_away_meanwhile_hides_nothing(client: Client, source: Path, tmp_path: Path) -> None:
    """The path that was asked about leads elsewhere when the answer comes: what it leads to now stays."""
    tree(tmp_path / "elsewhere", "x")
    with session_with(client, "answers", (source, "rw")) as session, _sh(client, session, "rm d/x") as process:
        asked = wait_for_approval(client, session)
        (source / "d").rename(source / "was")
        (source / "d").symlink_to(tmp_path / "elsewhere")
        client.approval_answer(approval=asked.approval, answer="once")
        _end(process)
        assert (tmp_path / "elsewhere" / "x").exists()


def test_unmounting_refuses_what_waits(client: Client, source: Path) -> None:
    with session_with(client, "answers", (source, "rw")) as session, _sh(client, session, "rm a 2>&1") as process:
        wait_for_approval(client, session)
        client.folder_unmount(session=session, name="f")
        status, _ = _end(process)
        assert status == 1
        assert (source / "a").exists()
        assert open_approvals(client, session) == ()


def test_another_mode_decides_what_waits(client: Client, source: Path) -> None:
    with session_with(client, "answers", (source, "rw")) as session, _sh(client, session, "rm a") as process:
        wait_for_approval(client, session)
        client.folder_set_mode(session=session, name="f", mode="rwd")
        assert _end(process)[0] == 0
        assert not (source / "a").exists()
        assert open_approvals(client, session) == ()


LIAR = """
import os, time
os.unlink("a")
os.rename("d/x", "b")
os.unlink("b")
"""


def test_a_command_that_was_allowed_a_name_is_not_allowed_what_it_puts_there(client: Client, source: Path) -> None:
    (source.parent / "liar.py").write_text(LIAR)
    shutil.copy(source.parent / "liar.py", source / "liar.py")
    script = "exec 2>&1; exec -a rm /usr/bin/python3 liar.py a b"
    with session_with(client, "liars", (source, "rw")) as session:
        with client.start(session, ["bash", "-c", f"cd mnt/f; {script}"]) as process:
            asked = wait_for_approval(client, session)
            assert {b"a", b"b"} <= set(asked.paths)
            client.approval_answer(approval=asked.approval, answer="once", revision=asked.revision)
            again = wait_for_approval(client, session, lambda each: each.approval != asked.approval)
            assert again.waiting == 1
            client.approval_answer(approval=again.approval, answer="deny")
            status, said = _end(process)
            assert status == 1
            assert b"not permitted" in said
        assert (source / "b").read_text() == "d/x\n"
        assert not (source / "a").exists()


def test_a_session_is_deleted_while_its_deletes_wait(client: Client, asking: Daemon, source: Path) -> None:
    session = ensure_with(client, "gone", (source, "rw"))
    for name in ("a", "d/x", "d/e/z"):
        client.start(session, ["sh", "-c", f"cd mnt/f; rm {name}"])
    wait_for_approval(client, session)
    with took_at_most(10):
        client.session_delete(session=session, force=True)
    assert contents(source) == ["a", "b", "d", "d/e", "d/e/z", "d/x", "d/y"]
    assert client.approval_list().approvals == ()
    wait_until(lambda: not _file_systems_of(asking), "its file system has ended")


# -- storms and deaths ------------------------------------------------------------------------------------------------


def test_thousands_of_deletes_at_once_are_bounded_questions(client: Client, asking: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "many"
    for directory in range(50):
        tree(source, *(f"{directory}/{number}" for number in range(40)))
    with contextlib.closing(Listener(asking)) as listener:
        script = "find . -type f -print0 | xargs -0 -n 10 -P 64 rm -f 2>/dev/null; find . -type f | wc -l"
        with session_with(client, "storm", (source, "rw")) as session, _sh(client, session, script) as process:
            asked = wait_for_approval(client, session, lambda each: each.waiting >= 10)
            client.ping()
            while client.process_get(process=process.id).exit is None:
                for each in open_approvals(client, session):
                    with contextlib.suppress(CoworkError):
                        client.approval_answer(approval=each.approval, answer="deny")
                time.sleep(0.02)
            assert _end(process) == (0, b"2000\n")
            assert asked.waiting <= 64
            assert len(listener.of("approval.requested")) < 500


def test_a_session_that_asks_in_a_loop_is_refused_and_that_is_said(
    client: Client, asking: Daemon, source: Path
) -> None:
    loop = "i=0; while [ $i -lt 400 ]; do rm -f a 2>/dev/null; i=$((i+1)); done; echo done"
    done = threading.Event()

    def refuse() -> None:
        with client_of(asking) as own:
            while not done.is_set():
                for each in open_approvals(own, "loop"):
                    with contextlib.suppress(CoworkError):
                        own.approval_answer(approval=each.approval, answer="deny")
                time.sleep(0.002)

    refuser = threading.Thread(target=refuse)
    refuser.start()
    try:
        with (
            contextlib.closing(Listener(asking)) as listener,
            session_with(client, "loop", (source, "rw")) as session,
            _sh(client, session, loop) as process,
        ):
            assert _end(process) == (0, b"done\n")
            listener.wait(lambda: listener.of("approval.refused", session=session), "it is told")
            assert "too often" in listener.of("approval.refused", session=session)[0]["reason"]
            assert (source / "a").exists()
    finally:
        done.set()
        refuser.join()


def test_a_file_system_that_is_killed_refuses_and_is_told(client: Client, asking: Daemon, source: Path) -> None:
    with (
        contextlib.closing(Listener(asking)) as listener,
        session_with(client, "deaths", (source, "rw")) as session,
        _sh(client, session, "rm a 2>&1") as process,
    ):

        def is_mended() -> bool:
            names = [each.name for each in list(listener.events) if each.params.get("session") == session]
            return "folder.mounted" in names[names.index("folder.failed") :]

        wait_for_approval(client, session)
        served = _file_system_of(asking)
        os.kill(served, signal.SIGKILL)
        assert _end(process)[0] == 1
        assert (source / "a").exists()
        failed = listener.wait(lambda: listener.of("folder.failed", session=session), "its end is told")
        assert failed[0]["name"] == "f"
        assert open_approvals(client, session) == ()
        state = client.folder_list(session=session).folders[0].state
        assert state == "failed" or listener.wait(is_mended, "it was mounted again by itself")
        # The next command has the folder again: it is required.
        assert client.run(session, ["cat", "mnt/f/a"]).stdout == b"a\n"


def test_a_file_system_that_stands_still_keeps_nobody(client: Client, asking: Daemon, source: Path) -> None:
    with session_with(client, "still", (source, "rw")) as session, _sh(client, session, "rm a") as process:
        asked = wait_for_approval(client, session)
        served = _file_system_of(asking)
        os.kill(served, signal.SIGSTOP)
        try:
            client.approval_answer(approval=asked.approval, answer="deny")
            assert client.folder_list(session=session).folders[0].name == "f"
            client.process_kill(process=process.id, grace_s=0)
            assert process.wait(timeout_s=60).exit.code is None
        finally:
            os.kill(served, signal.SIGCONT)
        assert (source / "a").exists()


def _file_system_of(daemon: Daemon) -> int:
    """The only one, once those of the tests before have ended."""
    wait_until(lambda: len(_file_systems_of(daemon)) == 1, "one file system serves")
    (served,) = _file_systems_of(daemon)
    return served


def _file_systems_of(daemon: Daemon) -> list[int]:
    every = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in every if _is_file_system_of(pid, daemon.child.pid)]


def _is_file_system_of(pid: int, coworkd: int) -> bool:
    """Whether it serves /dev/fuse below that coworkd's launcher."""
    if "/dev/fuse" not in links_of(pid):
        return False
    with contextlib.suppress(OSError):
        while pid > 1:
            if pid == coworkd:
                return True
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_a_killed_coworkd_leaves_what_waits_to_the_next(tmp_path: Path, source: Path) -> None:
    with asking_daemon(tmp_path / "k") as daemon:
        with client_of(daemon) as client:
            session = ensure_with(client, "again", (source, "rw"))
            process = client.start(session, ["sh", "-c", "cd mnt/f; rm a; echo $?; ls"])
            before = wait_for_approval(client, session)
            daemon.child.kill()
            daemon.child.wait()
        assert (source / "a").exists()
        with asking_daemon(tmp_path / "k") as second, client_of(second) as client:
            asked = wait_for_approval(client, session)
            assert (asked.paths, asked.process) == ((b"a",), process.id)
            assert asked.approval != before.approval
            assert asked.expires_at == pytest.approx(before.expires_at, abs=0.5)
            assert (source / "a").exists()
            client.approval_answer(approval=asked.approval, answer="once")
            assert exited(0) == client.process_wait(process=process.id, timeout_s=60).exit
            assert not (source / "a").exists()
            client.session_delete(session=session, force=True)
