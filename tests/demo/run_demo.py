"""The main job, shown on real input: `make demo`, and in a virtual machine `make demo-vm`. Needs root; leaves nothing behind.

A coworkd of its own on a temporary directory, or in a guest that is built and booted for it; a session with three folders; a C
program compiled in it and run on a real text, its output streamed; what it is refused, and why; the audit log, copied out, proven
whole and caught when it was changed. Every step asserts what it shows, and counts again by other means what the program counted.
Exit status 0 where every step worked, else 1.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from coworkd.auditlog.rotation import log_files
from coworkd.client.sync import connect
from coworkd.model.errors import CoworkError
from coworkd.model.process import ExitRecord
from tests.demo.guests import (
    HERE,
    ROOT,
    SESSION,
    DemoFailed,
    Guest,
    check,
    check_nothing_left,
    open_embedded,
    open_machine,
    say,
    show,
)

UNREACHABLE = "198.51.100.1"
"""TEST-NET-2: an address for documentation, which belongs to nobody (RFC 5737)."""
VSOCK = "40"
"""AF_VSOCK (linux/socket.h)."""
LINGERER = f"47113.{os.getpid()}"
"""Seconds of a sleep that is told from every other by this number."""

FORBIDDEN, ALLOWED = "files.example.org", "api.anthropic.com"
ASK_PROXY = (
    f"exec 3<>/dev/tcp/127.0.0.1/3128; to={FORBIDDEN}:443; "
    r"printf 'CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n' $to $to >&3; cat <&3"
)
CONNECT = f"exec 3<>/dev/tcp/{UNREACHABLE}/80"
OPEN_VSOCK = f"import socket; socket.socket({VSOCK}, socket.SOCK_STREAM)"
LEAVE_BEHIND = f"setsid sh -c 'sleep {LINGERER} & exec sleep {LINGERER}' & echo 'left one behind'"


# -- the steps ----------------------------------------------------------------------------------------------------


def make_session(guest: Guest) -> None:
    """a session with three folders: the program's sources and the docs to read, a build folder to write"""
    sources = (guest.offer(HERE / "project"), guest.offer(ROOT / "docs"), guest.offer(guest.build))
    folders = [f"{source}:{mode}" for source, mode in zip(sources, ("project:ro", "docs:ro", "build:rwd"), strict=True)]
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
    guest.ctl("folder", "mount", SESSION, f"{guest.offer(thesis)}:thesis:rw")
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
    guest.ctl("folder", "mount", SESSION, f"{guest.offer(thesis)}:draft:staged")
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
    thesis = guest.shared / name
    (thesis / "chapters").mkdir(parents=True)
    (thesis / "thesis.txt").write_text("one\n")
    return thesis


def leave_nothing(guest: Guest) -> None:
    """what a command leaves running ends with it, and a timeout ends the whole tree"""
    guest.run("sh", "-c", LEAVE_BEHIND)
    guest.ctl("run", "--session", SESSION, "--timeout", "0.5", "--", "sh", "-c", f"sleep {LINGERER}; true", status=124)
    left = guest.running_with(LINGERER)
    check(not left, f"still running: {left}")
    say("    No process of either is left.")


def prove_log(guest: Guest) -> None:
    """the audit log tells all of this, is whole, and a changed copy is found out"""
    tail = guest.ctl("audit", "tail", "--limit", "4", "--session", SESSION)
    check("process.start" in tail and "process.exit" in tail, "the log does not tell of the commands")
    check("is whole" in guest.ctl("audit", "verify"), "the log is not whole")
    copy = guest.files / "copy"
    check("is whole" in guest.ctl("audit", "export", str(copy)), "the untouched copy is not whole")
    newest = copy / log_files(os.listdir(copy))[-1]
    newest.write_bytes(newest.read_bytes().replace(b'"touch","/usr/bin/planted"', b'"touch","/tmp/harmless"', 1))
    say("    In the copy, the attempt on /usr/bin was changed into something harmless. Verifying the copy says:")
    said = guest.ctl("audit", "verify", "--copy", str(copy), status=1)
    check("BROKEN" in said and "line" in said, "a changed record was not found")


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


def tell(open_guest: Callable[[], AbstractContextManager[Guest]], first: str) -> None:
    began = time.monotonic()
    say("coworkd, the main job. Commands are shown as you would type them; each step checks what it shows.\n")
    say(f"[1] {first}")
    with open_guest() as guest:
        say(f"    ready after {time.monotonic() - began:.2f} s")
        for number, step in enumerate(STEPS, start=2):
            say(f"\n[{number}] {step.__doc__}")
            step(guest)
        say(f"\n[{len(STEPS) + 2}] coworkd is told to stop, and nothing of it is left")
    check_nothing_left(guest.files)
    say(f"    no process, no mount, no file\n\neverything above worked ({time.monotonic() - began:.1f} s)")


def main(argv: list[str]) -> int:
    """Run the demo; 0 where every step worked, 1 where one did not, which is then named."""
    if os.geteuid() != 0:
        print("the demo needs root: sudo make demo", file=sys.stderr)
        return 1
    try:
        if argv == ["--vm"]:
            tell(open_machine, "a guest is built, and booted by QEMU, with a share and a session disk of its own")
        else:
            tell(open_embedded, "a coworkd of its own starts, on a temporary directory")
    except (DemoFailed, CoworkError, OSError, subprocess.SubprocessError) as error:
        print(f"\nthe last step above did not work: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
