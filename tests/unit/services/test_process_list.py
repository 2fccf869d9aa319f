"""A list of processes always fits into one message."""

from __future__ import annotations

import pytest

from coworkd.model.calls import ProcessList
from coworkd.model.names import OsBytes
from coworkd.model.process import Exit, ExitRecord, ProcessInfo, Rusage
from coworkd.services.process_list import compose_list, compose_start
from coworkd.wire.connection import Connection, Request
from coworkd.wire.convert import compose_answer
from tests.unit.services.test_process_live import make_process

RUSAGE = Rusage(
    user_s=1.5,
    system_s=1.5,
    max_rss_bytes=2**40,
    minor_faults=2**40,
    major_faults=2**40,
    voluntary_switches=2**40,
    involuntary_switches=2**40,
)


def process(number: int, *, ended: bool = True, argv: tuple[bytes, ...] = (b"make", b"\xff")) -> ProcessInfo:
    name = f"{number:064}"
    record = ExitRecord(
        process=name,
        session="s" * 32,
        exit=Exit(code=None, signal="SIGRTMIN+10", reason="signaled", inferred=True),
        output="still_open",
        bytes={"stdout": 2**40, "stderr": 2**40},
        rusage=RUSAGE,
        started_at=1e9 + number,
        ended_at=2e9,
    )
    return ProcessInfo(
        process=name,
        session="s" * 32,
        argv=tuple(map(OsBytes, argv)),
        state="exited" if ended else "running",
        pid=2**22,
        started_at=1e9 + number,
        streams={"stdout": (2**40, 2**40), "stderr": (2**40, 2**40)},
        exit=record if ended else None,
    )


def send(answer: ProcessList) -> None:
    """Raises where a link could not carry it."""
    guest, host = Connection("guest"), Connection("host")
    guest.greeted()
    number, request = host.send_request("process.list", {})
    guest.receive_data(request)
    assert isinstance(guest.next_event(), Request)
    guest.send_response(number, compose_answer(answer))


def test_a_few_are_all_there_oldest_first() -> None:
    answer = compose_list([process(2), process(1, ended=False), process(3)])
    assert [info.started_at - 1e9 for info in answer.processes] == [1, 2, 3]
    assert answer.omitted == 0


@pytest.mark.parametrize("argv", [(b"true",), (b"x",) * 500, (b"x" * 100_000,) * 3, (b"\xff" * 120_000,)])
def test_however_many_there_are_the_answer_can_be_sent(argv: tuple[bytes, ...]) -> None:
    answer = compose_list([process(number, argv=argv) for number in range(3000)])
    send(answer)
    assert answer.processes
    assert answer.omitted == 3000 - len(answer.processes)
    assert answer.processes[-1].process.endswith("2999")


def test_what_runs_is_left_out_last() -> None:
    ended = [process(number) for number in range(10, 3000)]
    answer = compose_list([process(1, ended=False), *ended])
    assert answer.processes[0].state == "running"
    assert answer.omitted > 0


def test_the_event_of_a_start_has_the_beginning_of_a_long_command_line() -> None:
    argv = (b"echo", b"\xff", b"x" * 100_000, b"y")
    told = compose_start(make_process("one", argv=argv, one_shot=True))
    assert told["argv"][:2] == [b"echo", b"\xff"]
    assert len(told["argv"]) == 3
    assert told["argv"][2].endswith(b"...")
    assert sum(map(len, told["argv"])) < 5000
    assert (told["process"], told["one_shot"]) == ("one", True)
