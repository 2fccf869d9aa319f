"""Streams of real commands: every byte, in order, whatever their number, whoever reads them, and however slowly."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import InvalidState, OutOfRange, StartFailed
from tests.root.conftest import Daemon
from tests.root.live import client_of, exited, fresh_mark, living, session_of, took_at_most, wait_until

MIB = 1024 * 1024
BIG = 250 * MIB
TTY = (24, 80)

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module")
def other(daemon: Daemon) -> Iterator[Client]:
    """A second link."""
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, "streams") as name:
        yield name


def digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


def read_all(process: Process) -> dict[str, bytes]:
    """Every piece to the end, each at the offset it must have."""
    said: dict[str, bytearray] = {}
    for piece in process:
        said.setdefault(piece.stream, bytearray()).extend(piece.data)
    return {name: bytes(data) for name, data in said.items()}


def read_some(process: Process, wanted: int) -> bytes:
    """At least `wanted` bytes of stdout."""
    said = b""
    while len(said) < wanted:
        piece = process.read(timeout_s=60)
        assert piece is not None
        assert piece.stream == "stdout"
        assert piece.offset == len(said)
        said += piece.data
    return said


def stuck(client: Client, process: str) -> bool:
    """Whether the command's output has stopped growing: it waits for room."""
    first = client.process_get(process=process).streams["stdout"]
    second = client.process_get(process=process).streams["stdout"]
    return first == second and second[1] > 0


# -- stdin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 900_000])
def test_input_of_run_comes_back(client: Client, session: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    ran = client.run(session, ["cat"], input=data[:size])
    assert (ran.exit, ran.stdout, ran.bytes.stdout) == (exited(0), data[:size], size)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3 * MIB])
def test_stdin_of_start_comes_back(client: Client, session: str, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    with client.start(session, ["cat"], stdin=True) as process:
        done = process.communicate(data)
    assert done.streams.get("stdout", b"") == data
    assert (done.exit.exit, done.exit.output) == (exited(0), "complete")


def test_stdin_of_64_mib_arrives_whole(client: Client, session: str) -> None:
    data = bytes(range(256)) * (64 * MIB // 256)
    with client.start(session, ["sha256sum"], stdin=True) as process:
        done = process.communicate(data)
    assert done.streams["stdout"].split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_stdin_is_dev_null_unless_asked_for(client: Client, session: str) -> None:
    look = ["sh", "-c", "readlink /proc/self/fd/0; cat; echo end"]
    assert client.run(session, look).stdout == b"/dev/null\nend\n"
    with client.start(session, look) as process:
        assert read_all(process)["stdout"] == b"/dev/null\nend\n"
        with pytest.raises(InvalidState):
            process.write_stdin(b"x")


def test_child_that_never_reads_blocks_nobody(client: Client, other: Client, session: str) -> None:
    with client.start(session, ["sleep", "30"], stdin=True) as process:
        taken = 0
        while count := process.write_some(b"x" * 500_000):
            taken += count
        assert taken >= 65_536
        with took_at_most(5):
            assert other.run(session, ["echo", "here"]).stdout == b"here\n"
            assert client.run(session, ["echo", "here"]).stdout == b"here\n"
        assert process.write_some(b"x") == 0


def test_child_that_ends_without_reading_ends_well(client: Client, session: str) -> None:
    with client.start(session, ["sh", "-c", "head -c 10; exit 4"], stdin=True) as process:
        done = process.communicate(b"0123456789" * 200_000)
    assert (done.streams["stdout"], done.exit.exit) == (b"0123456789", exited(4))
    ran = client.run(session, ["sh", "-c", "exit 5"], input=b"x" * 500_000)
    assert ran.exit == exited(5)


# -- output --------------------------------------------------------------------------------------------------------


def test_250_mib_on_both_streams_at_once(client: Client, session: str) -> None:
    lines = {"stdout": b"what goes to the standard output\n", "stderr": b"and this is what problems are told on\n"}
    script = f"yes '{lines['stdout'][:-1].decode()}' | head -c {BIG} & "
    script += f"yes '{lines['stderr'][:-1].decode()}' | head -c {BIG} >&2 & wait"
    seen = {name: hashlib.sha256() for name in lines}
    with client.start(session, ["sh", "-c", script]) as process:
        for piece in process:
            seen[piece.stream].update(piece.data)
        ended = process.wait(60)
    assert (ended.exit, ended.output, ended.bytes) == (exited(0), "complete", {"stdout": BIG, "stderr": BIG})
    for name, line in lines.items():
        block = line * (MIB // len(line))
        whole, rest = divmod(BIG, len(block))
        tail = (block + line)[:rest]
        assert seen[name].hexdigest() == digest([*[block] * whole, tail]), name


def test_run_keeps_the_first_mib_and_counts_the_rest(client: Client, session: str) -> None:
    script = "seq 1 600000; head -c 1048576 /dev/zero >&2"
    ran = client.run(session, ["sh", "-c", script])
    everything = numbered(1, 600_000)
    assert ran.stdout == everything[:MIB]
    assert ran.stderr == bytes(MIB)
    assert (ran.truncated.stdout, ran.truncated.stderr) == (True, False)
    assert (ran.bytes.stdout, ran.bytes.stderr) == (len(everything), MIB)


def test_last_words_are_not_lost(client: Client, session: str) -> None:
    for number in range(20):
        with client.start(session, ["sh", "-c", f"seq 1 9000; echo last {number} >&2"]) as process:
            said = read_all(process)
        assert said == {"stdout": numbered(1, 9000), "stderr": b"last %d\n" % number}


def test_attach_goes_on_where_another_link_stopped(client: Client, other: Client, session: str) -> None:
    process = client.start(session, ["sh", "-c", "seq 1 20000; read line; seq 20001 40000"], stdin=True)
    first = read_some(process, 1000)
    process.detach()
    with other.attach(process.id, stdout=len(first), stderr=0) as again:
        again.resume_stdin()
        again.write_stdin(b"go\n")
        rest = read_all(again)
    assert first + rest["stdout"] == numbered(1, 40_000)


def test_attach_replays_after_the_end(client: Client, other: Client, session: str) -> None:
    process = client.start(session, ["sh", "-c", "seq 1 1000; echo problem >&2"], attach=False)
    process.wait(60)
    for offset in (0, 1, 3000):
        again = other.attach(process.id, stdout=offset, stderr=0)
        assert read_all(again) == {"stdout": numbered(1, 1000)[offset:], "stderr": b"problem\n"}
        assert again.wait(60).exit == exited(0)
        again.detach()
    with pytest.raises(OutOfRange):
        other.attach(process.id, stdout=100_000)
    process.forget()


def test_output_without_reader_is_dropped_from_the_front_and_told(client: Client, session: str) -> None:
    process = client.start(session, ["seq", "1", "1000000"], attach=False)
    ended = process.wait(60)
    everything = numbered(1, 1_000_000)
    first, end = client.process_get(process=process.id).streams["stdout"]
    assert end == len(everything) == ended.bytes["stdout"]
    assert MIB <= end - first < 2 * MIB
    assert (ended.exit, ended.output) == (exited(0), "truncated")
    with pytest.raises(OutOfRange) as refused:
        client.attach(process.id, stdout=0)
    assert refused.value.details["first"] == first
    again = client.attach(process.id)
    assert read_all(again)["stdout"] == everything[first:]
    process.forget()


def test_on_full_block_waits_for_a_reader(client: Client, session: str) -> None:
    process = client.start(session, ["seq", "1", "1000000"], attach=False, on_full="block")
    wait_until(lambda: stuck(client, process.id), "the command waits for room")
    assert client.process_get(process=process.id).state == "running"
    with client.attach(process.id) as again:
        assert read_all(again)["stdout"] == numbered(1, 1_000_000)
        assert again.wait(60).output == "complete"


def test_on_full_drop_oldest_never_waits(daemon: Daemon, client: Client, session: str) -> None:
    with client_of(daemon) as lazy:
        process = lazy.start(session, ["sh", "-c", f"yes | head -c {40 * MIB}"], on_full="drop_oldest")
        assert client.process_wait(process=process.id, timeout_s=60).exit == exited(0)
        with pytest.raises(OutOfRange):
            read_all(process)


def test_link_that_does_not_read_slows_only_itself(daemon: Daemon, client: Client, session: str) -> None:
    # More than the spool, the socket and every pipe on the way can hold: the command stands until it is read.
    with client_of(daemon) as lazy:
        process = lazy.start(session, ["sh", "-c", f"yes | head -c {24 * MIB}"])
        wait_until(lambda: stuck(client, process.id), "the command waits for its reader")
        with took_at_most(10):
            for number in range(10):
                assert client.run(session, ["echo", str(number)]).stdout == b"%d\n" % number
        assert client.process_get(process=process.id).state == "running"
        assert digest(piece.data for piece in process) == digest([b"y\n" * (12 * MIB)])
        assert process.wait(60).output == "complete"


def test_no_exit_is_lost_to_a_link_that_does_not_read(daemon: Daemon, client: Client, session: str) -> None:
    # 80 that ended and were forgotten while one link still has to read them: the output of the first goes, no exit does.
    size = 300_000
    with client_of(daemon) as lazy:
        running = [lazy.start(session, ["sh", "-c", f"read go; yes | head -c {size}"], stdin=True) for _ in range(80)]
        for process in running:
            client.process_write_stdin(process=process.id, data=b"\n")
        for process in running:
            assert client.process_wait(process=process.id, timeout_s=60).exit == exited(0)
            client.process_forget(process=process.id)
        whole = 0
        for process in running:
            with contextlib.suppress(OutOfRange):
                whole += sum(len(piece.data) for piece in process) == size
            assert read_all(process).get("stdout", b"") == b""
            assert process.finished
            assert process.wait().exit == exited(0)
            assert process.offsets() == {}
    assert 64 <= whole < 80


# -- terminals -----------------------------------------------------------------------------------------------------


def say(process: Process, text: bytes, wanted: bytes) -> bytes:
    """Type `text`, and read until `wanted` comes."""
    process.write_stdin(text)
    return read_to(process, wanted)


def read_to(process: Process, wanted: bytes) -> bytes:
    said = b""
    while wanted not in said:
        piece = process.read(timeout_s=60)
        assert piece is not None, f"{wanted!r} did not come, only {said!r}"
        said += piece.data
    return said


def read_to_length(process: Process, wanted: int) -> bytes:
    said = b""
    while len(said) < wanted:
        piece = process.read(timeout_s=60)
        assert piece is not None
        said += piece.data
    return said


def test_terminal_is_the_sandboxs_own(client: Client, session: str) -> None:
    with client.start(session, ["sh", "-c", "tty; stty size; ls /dev/pts; echo $TERM"], tty=(31, 97)) as process:
        said = read_all(process)["tty"].decode().split()
    assert said[:3] == ["/dev/pts/0", "31", "97"]
    assert set(said[3:-1]) == {"0", "ptmx"}
    assert said[-1]


def test_terminal_is_the_controlling_one(client: Client, session: str) -> None:
    with client.start(session, ["sh", "-c", "echo over > /dev/tty; ps -o tty= -p $$"], tty=TTY) as process:
        assert read_all(process)["tty"].split() == [b"over", b"pts/0"]


def test_resize_reaches_the_command(client: Client, session: str) -> None:
    script = 'trap "stty size; exit 3" WINCH; echo ready; while :; do sleep 0.05; done'
    with client.start(session, ["sh", "-c", script], tty=TTY) as process:
        read_to(process, b"ready")
        process.resize(50, 132)
        read_to(process, b"50 132")
        assert process.wait(60).exit == exited(3)


def test_ctrl_c_interrupts_only_the_foreground(client: Client, session: str) -> None:
    mark, background = fresh_mark(), fresh_mark()
    with client.start(session, ["bash", "--norc", "-i"], tty=TTY, env={"PS1": "> "}) as process:
        say(process, b"sleep %s & echo be''fore\n" % background.encode(), b"before")
        process.write_stdin(b"sleep %s\n" % mark.encode())
        # The interactive shell and bubblewrap do not have it among their arguments: it was typed.
        wait_until(lambda: living(mark), "the foreground command runs")
        say(process, b"\x03", b"^C")
        wait_until(lambda: not living(mark), "the foreground command is interrupted")
        assert living(background)
        say(process, b"echo st''ill $((40 + 2)) $?\n", b"still 42 130")
        process.write_stdin(b"exit 6\n")
        assert process.wait(60).exit == exited(6)
    assert living(background) == []


def test_end_of_file_of_a_terminal(client: Client, session: str) -> None:
    with client.start(session, ["cat"], tty=TTY) as process:
        say(process, b"line\n", b"line\r\nline\r\n")
        process.write_stdin(b"\x04")
        assert process.wait(60).exit == exited(0)


@pytest.mark.parametrize(
    ("argv", "stage"),
    [(["no-such-command"], "not_found"), (["/etc/passwd"], "not_executable"), (["/usr"], "not_executable")],
)
def test_failed_exec_with_a_terminal_is_typed(client: Client, session: str, argv: list[str], stage: str) -> None:
    with took_at_most(5), pytest.raises(StartFailed) as failed:
        client.start(session, argv, tty=TTY)
    assert failed.value.details["stage"] == stage
    assert argv[0] in failed.value.message


def test_much_output_of_a_terminal_comes_whole(client: Client, session: str) -> None:
    # The leader exits while most of its words are still unread.
    with client.start(session, ["sh", "-c", "stty -onlcr; seq 1 200000"], tty=TTY) as process:
        assert read_to_length(process, len(numbered(1, 200_000))) == numbered(1, 200_000)
        assert process.wait(60).output == "complete"


def test_bytes_are_not_text(client: Client, session: str) -> None:
    ran = client.run(session, ["printf", r"\377\000\001\r\n\200"])
    assert ran.stdout == b"\xff\x00\x01\r\n\x80"
