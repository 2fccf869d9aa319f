import errno
import os
from pathlib import Path

import msgspec
import pytest

from coworkd.folderfs.control import Control
from coworkd.folderfs.folder import Answer
from coworkd.folderfs.fuse_words import ROOT_NODE, Op
from coworkd.model.folder import Asked, DeleteRule, ListBelow, Listed, Rule, Ruled, Verdict, Withdrawn
from coworkd.system import packet
from tests.unit.folderfs.folder_room import Room


class Desk(Room):
    """A folder where deletes are asked about, and who hears the answers."""

    def __init__(self, source: Path) -> None:
        super().__init__(source, deletes="ask")
        self.answers: list[tuple[int, Answer]] = []
        self.control = Control(
            self._theirs,
            source_fd=self.source_fd,
            told=self.told,
            asks=self.asks,
            removals=self.removals,
            answer=lambda unique, answer: self.answers.append((unique, answer)),
        )

    def tell(self, message: object) -> None:
        self.ours.setblocking(True)
        data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(message))
        self.ours.sendmsg(data, ancillary)
        if memfd >= 0:
            os.close(memfd)
        assert self.control.receive()

    def delete(self, name: bytes) -> int:
        """Ask; the number of the question."""
        assert self.ask(Op.UNLINK, ROOT_NODE, (), name) is None
        said = self.hear()[-1]
        assert isinstance(said, Asked)
        return said.ask


@pytest.fixture
def desk(source: Path) -> Desk:
    return Desk(source)


def test_a_verdict_is_carried_out(desk: Desk) -> None:
    number = desk.delete(b"letter")
    desk.tell(Verdict(ask=number, allow=True))
    desk.tell(Verdict(ask=number, allow=True))
    assert desk.answers == [(desk.unique, b"")]
    assert not (desk.source / "letter").exists()
    desk.close()


@pytest.mark.parametrize(("rule", "answer"), [("allow", b""), ("deny", errno.EPERM)])
def test_a_rule_decides_what_waits(desk: Desk, rule: DeleteRule, answer: Answer) -> None:
    number = desk.delete(b"letter")
    desk.tell(Rule(id=3, deletes=rule, ask_timeout_s=5))
    assert desk.answers == [(desk.unique, answer)]
    assert [said for said in desk.hear() if isinstance(said, (Ruled, Withdrawn))] == [
        Ruled(id=3),
        Withdrawn(ask=number),
    ]
    assert desk.removals.deletes == rule
    desk.close()


def test_asking_goes_on_and_is_told_again(desk: Desk) -> None:
    number = desk.delete(b"letter")
    desk.tell(Rule(id=3, deletes="ask", ask_timeout_s=5))
    heard = desk.hear()
    assert heard[0] == Ruled(id=3)
    assert [said.ask for said in heard if isinstance(said, Asked)] == [number]
    assert desk.asks.timeout_s == 5
    assert desk.answers == []
    desk.close()


def test_time_runs_out(desk: Desk) -> None:
    number = desk.delete(b"letter")
    desk.control.refuse_overdue()
    assert desk.answers == []
    desk.clock += 60
    desk.control.refuse_overdue()
    assert desk.answers == [(desk.unique, errno.EPERM)]
    assert desk.hear() == [Withdrawn(ask=number)]
    desk.close()


def test_what_lies_below_is_listed(desk: Desk) -> None:
    desk.tell(ListBelow(id=9, path=b"kept", limit=10))
    assert desk.hear() == [Listed(id=9, paths=(b"kept/photo",), more=False)]
    desk.close()


@pytest.mark.parametrize(
    "rubbish", [b"rubbish", b"\x00", msgspec.msgpack.encode({"type": "verdict"}), b"\xc1" * 70_000]
)
def test_what_is_none_of_ours_is_left_out(desk: Desk, rubbish: bytes) -> None:
    number = desk.delete(b"letter")
    desk.ours.setblocking(True)
    desk.ours.send(rubbish)
    desk.tell(Verdict(ask=number, allow=False))
    assert desk.answers == [(desk.unique, errno.EPERM)]
    desk.close()


def test_descriptors_that_come_along_are_closed(desk: Desk) -> None:
    desk.ours.setblocking(True)
    data, ancillary, _ = packet.pack(msgspec.msgpack.encode(Verdict(ask=5, allow=True)), [desk.source_fd])
    before = len(os.listdir("/proc/self/fd"))
    desk.ours.sendmsg(data, ancillary)
    assert desk.control.receive()
    assert len(os.listdir("/proc/self/fd")) == before
    desk.close()


def test_the_end_of_file_is_the_end(desk: Desk) -> None:
    assert desk.control.receive()
    desk.ours.close()
    assert not desk.control.receive()
    desk.close()
