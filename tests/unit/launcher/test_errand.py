"""A child that does one thing: what it tells, what it holds, and its ends. Each child is real."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from coworkd.launcher.errand import Errand, ErrandError, Report, Teller
from tests.unit.launcher.launcher_room import open_fds


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


def take(errand: Errand) -> tuple[Report, list[int]]:
    """What it tells; it is reaped and closed."""
    assert select.select([errand], [], [], 20)[0]
    told = errand.take()
    os.waitpid(errand.pid, 0)
    errand.reaped()
    errand.close()
    return told


def test_a_report_comes_with_descriptors() -> None:
    def work(teller: Teller) -> None:
        fd = os.memfd_create("made")
        os.write(fd, b"inside")
        teller.tell(Report(mounted_as="guarded", degraded=("slow",)), (fd,))

    report, (fd,) = take(Errand(work, name="test", deadline_s=5))
    assert report == Report(mounted_as="guarded", degraded=("slow",))
    assert os.pread(fd, 10, 0) == b"inside"
    os.close(fd)


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (ErrandError("probe", errno.ESTALE, "gone"), Report(failed="probe", errno=errno.ESTALE, message="gone")),
        (
            OSError(errno.EIO, "bad disk", "/there"),
            Report(failed="system", errno=errno.EIO, message="/there: bad disk"),
        ),
        (ValueError("odd"), Report(failed="errand", message="ValueError('odd')")),
    ],
)
def test_a_failure_is_told_in_words(error: Exception, report: Report) -> None:
    def work(teller: Teller) -> None:
        raise error

    assert take(Errand(work, name="test", deadline_s=5)) == (report, [])


def test_words_are_cut_to_what_a_message_takes() -> None:
    def work(teller: Teller) -> None:
        raise ErrandError("probe", None, "x" * 1_000_000)

    report, _ = take(Errand(work, name="test", deadline_s=5))
    assert len(report.message) == 4096


def test_a_child_that_dies_has_told_so() -> None:
    def work(teller: Teller) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    report, fds = take(Errand(work, name="test", deadline_s=5))
    assert (report.failed, report.message, fds) == ("errand", "the child died without an answer", [])


def test_a_failure_after_the_report_is_told_no_more() -> None:
    def work(teller: Teller) -> None:
        teller.tell(Report())
        raise OSError(errno.EIO, "later")

    assert take(Errand(work, name="test", deadline_s=5)) == (Report(), [])


def test_the_child_holds_what_it_was_made_for_and_nothing_else() -> None:
    kept, other = os.pipe()
    held = os.memfd_create("held")

    def work(teller: Teller) -> None:
        fds = [fd for fd in range(3, 300) if _is_open(fd)]
        teller.tell(Report(leftovers=tuple(os.readlink(f"/proc/self/fd/{fd}") for fd in fds)))

    report, _ = take(Errand(work, name="test", keep=(kept,), deadline_s=5))
    assert sorted(name.partition(":")[0] for name in report.leftovers) == ["pipe", "socket"]
    for fd in (kept, other, held):
        os.close(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_child_has_a_name_and_dies_with_the_launcher() -> None:
    def work(teller: Teller) -> None:
        with open("/proc/self/comm") as file:
            teller.tell(Report(message=file.read().strip()))

    report, _ = take(Errand(work, name="coworkd-test", deadline_s=5))
    assert report.message == "coworkd-test"


def test_kill_ends_it_and_never_anybody_else() -> None:
    def work(teller: Teller) -> None:
        time.sleep(60)

    errand = Errand(work, name="test", deadline_s=5)
    assert not errand.gone
    errand.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(errand.pid, 0)[1]) == -signal.SIGKILL
    errand.reaped()
    errand.pid = os.getpid()  # its number is another's now
    errand.kill()
    errand.close()


def test_a_deadline_counts_from_the_fork() -> None:
    before = time.monotonic()
    errand = Errand(lambda teller: teller.tell(Report()), name="test", deadline_s=7)
    assert before + 7 <= errand.deadline <= time.monotonic() + 7
    take(errand)


def test_no_child_to_be_had_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OSError, match="no more"):
        Errand(lambda teller: None, name="test", deadline_s=5)


@pytest.mark.parametrize("said", [b"\xc1", b"\x81\xa7message\xa1\xff"])
def test_a_child_that_breaks_the_words_is_a_failure_and_its_descriptors_are_closed(said: bytes) -> None:
    """The second has a text that is no UTF-8: the child may have rights of somebody else by then."""

    def work(teller: Teller) -> None:
        fd = os.memfd_create("made")
        socket.send_fds(teller._link, [said], [fd])

    report, fds = take(Errand(work, name="test", deadline_s=5))
    assert (report.failed, fds) == ("errand", [])
    assert "cannot be read" in report.message
