import errno
import os
import struct
from pathlib import Path

import pytest

from coworkd.folderfs.fuse_words import HEADER, INIT_OUT, ROOT_NODE, Op
from coworkd.model.folder import Asked, Changed, Rule, Ruled, Verdict
from tests.unit.folderfs.folder_room import Served, compose_request, parse_entry


def test_a_conversation(served: Served, source: Path) -> None:
    error, payload = served.ask(Op.INIT, 0, (7, 45, 65536, 0xFFFFFFFF))
    assert error == 0
    assert INIT_OUT.unpack(payload)[0] == 7
    error, payload = served.ask(Op.LOOKUP, ROOT_NODE, (), b"letter")
    node = parse_entry(payload).node
    error, payload = served.ask(Op.OPEN, node, (os.O_RDWR,))
    handle = struct.unpack_from("=Q", payload)[0]
    assert served.ask(Op.WRITE, node, (handle, 0, 4), data=b"Hell") == (0, struct.pack("=II", 4, 0))
    assert served.ask(Op.READ, node, (handle, 0, 100)) == (0, b"Hell all,\n")
    assert served.ask(Op.RELEASE, node, (handle,)) == (0, b"")
    said = served.hear(lambda said: isinstance(said, Changed))
    assert isinstance(said, Changed)
    assert said.changes[0].path == b"letter"


def test_what_nobody_knows_is_enosys(served: Served) -> None:
    served.send(HEADER.pack(40, 999, 5, 1, 0, 0, 0, 0, 0))
    assert served.answer() == (5, errno.ENOSYS, b"")


def test_what_no_kernel_sends_is_eio_and_hurts_nobody(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.send(b"short")
    served.send(HEADER.pack(50, Op.LOOKUP, 5, 1, 0, 0, 0, 0, 0))
    assert served.answer() == (5, errno.EIO, b"")
    assert served.ask(Op.INIT, 0, (6, 0, 0, 0))[0] == errno.EPROTO
    assert served.ask(Op.LOOKUP, ROOT_NODE, (), b"letter")[0] == 0
    assert "cannot be read" in capfd.readouterr().err


def test_a_mistake_of_ours_is_one_requests_failure(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    served.ask(Op.STATFS)

    def fail(_fd: int) -> os.statvfs_result:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", fail)
        assert served.ask(Op.STATFS) == (errno.EIO, b"")
    assert served.ask(Op.STATFS)[0] == 0
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_no_answer_is_due_to_some(served: Served) -> None:
    for op in (Op.FORGET, Op.INTERRUPT, Op.DESTROY):
        served.send(compose_request(op, 5, (1,) if op != Op.DESTROY else ()))
    served.send(compose_request(Op.STATFS, unique=8))
    assert served.answer()[0] == 8


def test_others_go_on_while_a_delete_waits(served: Served, source: Path) -> None:
    served.tell(Rule(id=1, deletes="ask", ask_timeout_s=60))
    served.hear(lambda said: isinstance(said, Ruled))
    served.send(compose_request(Op.UNLINK, ROOT_NODE, (), b"letter", unique=50))
    said = served.hear(lambda said: isinstance(said, Asked))
    assert isinstance(said, Asked)
    assert served.ask(Op.LOOKUP, ROOT_NODE, (), b"letter", unique=51)[0] == 0
    served.tell(Verdict(ask=said.ask, allow=True))
    assert served.answer() == (50, 0, b"")
    assert not (source / "letter").exists()


def test_an_interrupted_delete_is_eintr(served: Served, source: Path) -> None:
    served.tell(Rule(id=1, deletes="ask", ask_timeout_s=60))
    served.hear(lambda said: isinstance(said, Ruled))
    served.send(compose_request(Op.UNLINK, ROOT_NODE, (), b"letter", unique=50, pid=0))
    served.hear(lambda said: isinstance(said, Asked))
    served.send(compose_request(Op.INTERRUPT, 0, (50,), unique=51))
    assert served.answer() == (50, errno.EINTR, b"")
    assert (source / "letter").exists()


def test_nobodys_verdict_is_a_refusal_in_time(served: Served) -> None:
    served.tell(Rule(id=1, deletes="ask", ask_timeout_s=0.01))
    served.hear(lambda said: isinstance(said, Ruled))
    assert served.ask(Op.UNLINK, ROOT_NODE, (), b"letter") == (errno.EPERM, b"")


def test_read_only_changes_nothing(source: Path) -> None:
    served = Served(source, read_only=True)
    try:
        node = parse_entry(served.ask(Op.LOOKUP, ROOT_NODE, (), b"letter")[1]).node
        asked = [
            (Op.UNLINK, ROOT_NODE, (), b"letter"),
            (Op.MKDIR, ROOT_NODE, (0o755,), b"d"),
            (Op.CREATE, ROOT_NODE, (os.O_RDONLY, 0o644), b"f"),
            (Op.OPEN, node, (os.O_WRONLY,)),
            (Op.OPEN, node, (os.O_RDONLY | os.O_TRUNC,)),
            (Op.SETATTR, node, (8,)),
            (Op.RENAME, ROOT_NODE, (ROOT_NODE,), b"letter", b"x"),
        ]
        for each in asked:
            assert served.ask(*each) == (errno.EROFS, b""), each
        assert served.ask(Op.OPEN, node, (os.O_RDONLY,))[0] == 0
        assert (source / "letter").read_text() == "Dear all,\n"
    finally:
        served.close()
