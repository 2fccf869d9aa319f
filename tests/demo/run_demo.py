"""The main job, shown on real input: `make demo`. Needs root; leaves nothing behind.

A coworkd of its own on a temporary directory; a session with three folders; a C program compiled in it and run on a real text, its
output streamed; what it is refused, and why; the audit log, proven whole and caught when it was changed. Every step
asserts what it shows, and counts again by other means what the program counted. Exit status 0 where every step worked, else 1.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from coworkd.auditlog import verify
from coworkd.auditlog.rotation import log_files
from coworkd.auditlog.verify import Verdict
from coworkd.client.sync import connect
from coworkd.model.errors import CoworkError
from coworkd.model.process import ExitRecord

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
SESSION = "demo"
READY_S = 20
STOP_S = 20
COMMAND_S = 60
SHOWN_COLUMNS = 180
UNREACHABLE = "198.51.100.1"
"""TEST-NET-2: an address for documentation, which belongs to nobody (RFC 5737)."""
VSOCK = "40"
"""AF_VSOCK (linux/socket.h)."""
LINGERER = "47113"
"""Seconds of a sleep that is told from every other by this number."""

FORBIDDEN, ALLOWED = "files.example.org", "api.anthropic.com"
ASK_PROXY = (
    f"exec 3<>/dev/tcp/127.0.0.1/3128; to={FORBIDDEN}:443; "
    r"printf 'CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n' $to $to >&3; cat <&3"
)
CONNECT = f"exec 3<>/dev/tcp/{UNREACHABLE}/80"
OPEN_VSOCK = f"import socket; socket.socket({VSOCK}, socket.SOCK_STREAM)"
LEAVE_BEHIND = f"setsid sh -c 'sleep {LINGERER} & exec sleep {LINGERER}' & echo 'left one behind'"


class DemoFailed(Exception):
    """A step did not show what it must."""


def check(right: bool, otherwise: str) -> None:
    if not right:
        raise DemoFailed(otherwise)


def say(text: str) -> None:
    print(text, flush=True)


def show(text: str) -> None:
    """What a program said, set off from what the demo says."""
    for line in text.splitlines():
        say(f"      {line if len(line) <= SHOWN_COLUMNS else line[: SHOWN_COLUMNS - 1] + '…'}")


class Guest:
    """The coworkd of this demo. `files` holds its state, its socket and the folder that is built into."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self.state = files / "state"
        self.build = files / "build"
        self.uri = f"unix://{files / 'socket'}"

    def ctl(self, *words: str, status: int = 0) -> str:
        """Run coworkctl, show what it was asked and what it said, and insist on its exit status; returns both streams' text."""
        say(f"    $ coworkctl {shlex.join(words)}")
        command = [str(BIN / "coworkctl"), "--to", self.uri, *words]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_S
        )
        said = done.stdout.decode("utf-8", "replace")
        show(said)
        check(done.returncode == status, f"coworkctl ended with {done.returncode}, and {status} was right")
        return said

    def run(self, *argv: str, status: int = 0) -> str:
        """`coworkctl run` in the demo's session."""
        return self.ctl("run", "--session", SESSION, "--", *argv, status=status)


@contextlib.contextmanager
def open_guest() -> Iterator[Guest]:
    """Start coworkd, stop it by TERM, remove its files."""
    files = Path(tempfile.mkdtemp(prefix="coworkd-demo-"))
    guest = Guest(files)
    guest.build.mkdir()
    # The directory above is root's alone. Where the kernel cannot map owners on this file system, the session's own user
    # needs the right to write here.
    guest.build.chmod(0o777)
    command = [str(BIN / "coworkd"), "local", "--state", str(guest.state), "--socket", str(files / "socket")]
    try:
        with (
            (files / "log").open("wb") as log,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            ) as child,
        ):
            try:
                assert child.stdout is not None
                line = child.stdout.readline().decode()
                check(line.startswith("ready "), f"coworkd did not start:\n{(files / 'log').read_text()}")
                yield guest
            finally:
                stop(child)
    finally:
        shutil.rmtree(files)


def stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        raise


# -- the steps ----------------------------------------------------------------------------------------------------


def make_session(guest: Guest) -> None:
    """a session with three folders: the program's sources and the docs to read, a build folder to write"""
    folders = [f"{HERE / 'project'}:project:ro", f"{ROOT / 'docs'}:docs:ro", f"{guest.build}:build:rwd"]
    guest.ctl("session", "ensure", SESSION, *(word for folder in folders for word in ("--folder", folder)))
    shown = guest.ctl("session", "show", SESSION)
    for name, mode in (("project", "ro"), ("docs", "ro"), ("build", "rwd")):
        check(re.search(rf"^folder {name}\s+{mode} ", shown, re.M) is not None, f"folder {name} is not shown as {mode}")
    said = guest.run("sh", "-c", "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp_filters)' /proc/self/status")
    uid, *facts = said.splitlines()
    check(int(uid) >= 1001, f"the command's uid is {uid}")
    right = {"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp_filters": "2"}
    check(dict(re.split(r":\s+", line) for line in facts) == right, "the command has privileges, or lacks a filter")


def compile_program(guest: Guest) -> None:
    """make and gcc run inside, from the read-only sources into the build folder; their output comes as it is written"""
    exit_record, said, first_s, last_s = stream(["make", "-C", "mnt/project", "OUT=../build"], guest)
    check(exit_record.exit.code == 0, f"make ended with {exit_record.exit}")
    check(said.count("gcc ") == 2, "make did not compile and link")
    check(first_s < last_s, "the output did not come before the end")
    check((guest.build / "wordcount").read_bytes()[:4] == b"\x7fELF", "no program came out")
    say(f"    first output after {first_s * 1000:.0f} ms, the end after {last_s * 1000:.0f} ms")


def run_program(guest: Guest) -> None:
    """the program that was built counts the words of docs/protocol.md; Python counts them again, outside"""
    record, said, _, _ = stream(["mnt/build/wordcount", "mnt/docs/protocol.md", "5"], guest)
    check(record.exit.code == 0, f"it ended with {record.exit}")
    check(record.bytes == {"stdout": len(said), "stderr": 0}, f"its bytes were counted as {record.bytes}")
    check(said == counted(ROOT / "docs" / "protocol.md", 5), "Python counts otherwise")
    rusage = record.rusage
    check(rusage is not None and rusage.max_rss_bytes > 0, "its use of the machine is not known")
    assert rusage is not None
    say(f"    exit 0, output {record.output}, {record.bytes['stdout']} bytes; Python counts the same")
    say(f"    used {(rusage.user_s + rusage.system_s) * 1000:.0f} ms of CPU, {rusage.max_rss_bytes >> 10} KiB at most")


def stream(argv: list[str], guest: Guest) -> tuple[ExitRecord, str, float, float]:
    """Start `argv` over a link and show its output as it comes: (exit record, output, seconds to first byte, to the end)."""
    say(f"    process.start {shlex.join(argv)}")
    said, first_s, began = b"", 0.0, time.monotonic()
    with connect(guest.uri, client_name="demo") as client, client.start(SESSION, argv) as process:
        for piece in process:
            first_s = first_s or time.monotonic() - began
            said += piece.data
            show(piece.data.decode("utf-8", "replace"))
        return process.wait(), said.decode(), first_s, time.monotonic() - began


def counted(path: Path, top: int) -> str:
    """What wordcount.c must say of the text."""
    data = path.read_bytes()
    words = Counter(word[:63].lower() for word in re.findall(rb"[A-Za-z]+", data))
    frequent = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:top]
    head = f"{data.count(10)} lines, {words.total()} words, {len(words)} distinct"
    return "\n".join([head, *(f"{count:6} {word.decode()}" for word, count in frequent)]) + "\n"


def refuse_network(guest: Guest) -> None:
    """a connection is refused: the session's network is its loopback and nothing else"""
    said = guest.run("bash", "-c", CONNECT, status=1)
    check("Network is unreachable" in said, "the connection failed for another reason than having no way out")
    say("    Why: there is no interface and no route but lo in its network namespace.")
    links = guest.run("sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1")
    check(links.split() == ["lo"], f"it has the interfaces {links.split()}")


def refuse_hosts(guest: Guest) -> None:
    """the only way out are the proxies: what the policy does not allow is refused, with the reason, and recorded"""
    said = guest.run("bash", "-c", ASK_PROXY)
    check("403" in said and "not on the allow list" in said, "the proxy did not refuse the host")
    allowed = guest.ctl("egress", "check", "--session", SESSION, ALLOWED)
    check("allowed" in allowed and "preset" in allowed, f"{ALLOWED} is not allowed by the policy's presets")
    guest.ctl("egress", "check", "--session", SESSION, FORBIDDEN, status=1)
    log = guest.ctl("egress", "log", "--session", SESSION, "--refused")
    check(FORBIDDEN in log, "the refusal is not in the log")


def refuse_vsock(guest: Guest) -> None:
    """a vsock socket, the way to the host of a virtual machine, is refused by the filters; and which rule it was"""
    said = guest.run("python3", "-c", OPEN_VSOCK, status=1)
    check("Address family not supported" in said, "the filter did not answer EAFNOSUPPORT")
    why = guest.ctl("policy", "explain", "--syscall", "socket", "--arg", f"0={VSOCK}", "--arg", "1=1", "--arg", "2=0")
    check("is refused" in why and "EAFNOSUPPORT" in why and "rule" in why, "the refusal was not explained")


def refuse_writes(guest: Guest) -> None:
    """writes into a read-only folder and into /usr are refused"""
    for target in ("mnt/project/planted", "/usr/bin/planted"):
        said = guest.run("touch", target, status=1)
        check("Read-only file system" in said, f"{target} was refused for another reason, or not at all")
    planted = [path for path in (HERE / "project" / "planted", Path("/usr/bin/planted")) if path.exists()]
    check(not planted, f"these were written all the same: {planted}")
    say(
        "    Why: folder project was granted with mode ro, and /usr is read-only in every sandbox (session show, above)."
    )


def guard_folder(guest: Guest) -> None:
    """a folder with mode rw: the command saves and tidies up after itself, and cannot delete what was there before it"""
    thesis = make_thesis(guest, "guarded")
    guest.ctl("folder", "mount", SESSION, f"{thesis}:thesis:rw")
    guest.run(
        "sh",
        "-c",
        "cd mnt/thesis && cp thesis.txt .tmp && echo more >>.tmp && mv .tmp thesis.txt && touch lock && rm lock",
    )
    said = guest.run("rm", "-rf", "mnt/thesis/thesis.txt", "mnt/thesis/chapters", status=1)
    check("Operation not permitted" in said, "rm failed for another reason than the rule")
    check((thesis / "thesis.txt").read_text() == "one\nmore\n", "what was saved did not arrive")
    check(sorted(os.listdir(thesis)) == ["chapters", "thesis.txt"], f"the folder holds {os.listdir(thesis)}")
    guest.ctl("folder", "unmount", SESSION, "thesis")


def stage_folder(guest: Guest) -> None:
    """a folder with mode staged: every change is held back until its owner has looked at it and takes it"""
    thesis = make_thesis(guest, "staged")
    guest.ctl("folder", "mount", SESSION, f"{thesis}:draft:staged")
    guest.run("sh", "-c", "cd mnt/draft && echo two >>thesis.txt && echo note >note && rm -r chapters")
    check(
        (thesis / "thesis.txt").read_text() == "one\n" and (thesis / "chapters").is_dir(),
        "the folder itself has changed",
    )
    said = guest.ctl("changes", SESSION, "draft", "--diff", "thesis.txt")
    check("+two" in said, "the difference is not shown")
    guest.ctl("commit", SESSION, "draft", "thesis.txt", "note")
    guest.ctl("discard", SESSION, "draft", "--yes")
    check(
        (thesis / "thesis.txt").read_text() == "one\ntwo\n" and (thesis / "note").exists(),
        "what was committed did not arrive",
    )
    check((thesis / "chapters").is_dir(), "what was discarded was deleted")


def make_thesis(guest: Guest, name: str) -> Path:
    """A user's folder, the user being nobody's session."""
    thesis = guest.files / name
    (thesis / "chapters").mkdir(parents=True)
    (thesis / "thesis.txt").write_text("one\n")
    return thesis


def leave_nothing(guest: Guest) -> None:
    """what a command leaves running ends with it, and a timeout ends the whole tree"""
    guest.run("sh", "-c", LEAVE_BEHIND)
    guest.ctl("run", "--session", SESSION, "--timeout", "0.5", "--", "sh", "-c", f"sleep {LINGERER}; true", status=124)
    left = processes_with(LINGERER)
    check(not left, f"still running: {left}")
    say("    No process of either is left.")


def prove_log(guest: Guest) -> None:
    """the audit log tells all of this, is whole, and a changed copy is found out"""
    tail = guest.ctl("audit", "tail", "--limit", "4", "--session", SESSION)
    check("process.start" in tail and "process.exit" in tail, "the log does not tell of the commands")
    check("is whole" in guest.ctl("audit", "verify"), "the log is not whole")
    copy = guest.files / "copy"
    shutil.copytree(guest.state / ".coworkd" / "audit", copy)
    check(judge(copy).problem is None, "the untouched copy is not whole")
    newest = copy / log_files(os.listdir(copy))[-1]
    newest.write_bytes(newest.read_bytes().replace(b'"touch","/usr/bin/planted"', b'"touch","/tmp/harmless"', 1))
    problem = judge(copy).problem
    check(problem is not None and "line" in problem, "a changed record was not found")
    say("    In a copy, the attempt on /usr/bin was changed into something harmless. Verifying the copy says:")
    show(f"{problem}")


def judge(directory: Path) -> Verdict:
    names = log_files(os.listdir(directory))
    return verify((name, [(directory / name).read_bytes()]) for name in names)


STEPS: tuple[Callable[[Guest], None], ...] = (
    make_session,
    compile_program,
    run_program,
    refuse_network,
    refuse_hosts,
    refuse_vsock,
    refuse_writes,
    guard_folder,
    stage_folder,
    leave_nothing,
    prove_log,
)


# -- the end ------------------------------------------------------------------------------------------------------


def processes_with(word: str) -> list[str]:
    """Command lines of this machine that hold `word`, our own left out."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path("/proc", pid, "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
            if word in command and int(pid) != os.getpid():
                found.append(f"{pid} {command}")
    return found


def check_nothing_left(files: Path) -> None:
    check(not files.exists(), f"{files} was not removed")
    check(not (left := processes_with(str(files))), f"still running: {left}")
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(files) in line]
    check(not mounts, f"still mounted: {mounts}")


def tell() -> None:
    began = time.monotonic()
    say("coworkd, the main job. Commands are shown as you would type them; each step checks what it shows.\n")
    say("[1] a coworkd of its own starts, on a temporary directory")
    with open_guest() as guest:
        say(f"    ready after {time.monotonic() - began:.2f} s")
        for number, step in enumerate(STEPS, start=2):
            say(f"\n[{number}] {step.__doc__}")
            step(guest)
        say(f"\n[{len(STEPS) + 2}] coworkd is told to stop, and nothing of it is left")
    check_nothing_left(guest.files)
    say(f"    no process, no mount, no file\n\neverything above worked ({time.monotonic() - began:.1f} s)")


def main() -> int:
    """Run the demo; 0 where every step worked, 1 where one did not, which is then named."""
    if os.geteuid() != 0:
        print("the demo needs root: sudo make demo", file=sys.stderr)
        return 1
    try:
        tell()
    except (DemoFailed, CoworkError, OSError, subprocess.SubprocessError) as error:
        print(f"\nthe last step above did not work: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
