"""What commands do to their own sandbox: programs that are run inside it, and how each must be told to have ended.

Each is Python source that gets a mark as its first argument, by which what it leaves is found. It says `ready` once it has done what it
does; what it does not manage to do it prints, so that a test sees that the attack took place.
"""

from __future__ import annotations

from msgspec import Struct

from coworkd.model.process import Exit
from tests.root.live import exited


class Hostile(Struct, frozen=True, kw_only=True):
    """One program. `ends` is None where it has to be killed."""

    name: str
    source: str
    ends: Exit | None = None
    says: bytes = b""
    """What must be in what it prints besides `ready`."""


_HEAD = """
import ctypes, errno, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
mark = sys.argv[1]
def ready():
    os.write(1, b"ready\\n")
def failing(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
"""

HOSTILE = (
    Hostile(
        name="closes-all",
        source="ready(); os.closerange(0, 1 << 16); os._exit(7)",
        ends=exited(7),
    ),
    Hostile(
        name="closes-all-and-stays",
        source="ready(); os.closerange(0, 1 << 16); time.sleep(1000)",
    ),
    Hostile(
        name="daemons",
        source="""
for number in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", mark])
        os._exit(0)
    os.wait()
ready()
os._exit(3)
""",
        ends=exited(3),
    ),
    Hostile(
        name="ignores-all-signals",
        source="""
for number in range(1, signal.NSIG):
    failing(signal.signal, number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
if os.fork() == 0:
    os.setsid()
ready()
while True:
    time.sleep(1000)
""",
    ),
    Hostile(
        name="ten-thousand-orphans",
        source="""
for number in range(100):
    if os.fork() == 0:
        for number in range(100):
            if os.fork() == 0:
                os._exit(0)
        os._exit(0)
    os.wait()
ready()
os._exit(4)
""",
        ends=exited(4),
    ),
    Hostile(
        name="zombies-up-to-its-limit",
        source="""
count = 0
try:
    while count < 10_000:
        if os.fork() == 0:
            os._exit(0)
        count += 1
except OSError as error:
    os.write(1, b"refused " + errno.errorcode[error.errno].encode() + b"\\n")
ready()
os._exit(0 if count < 2_000 else 9)
""",
        ends=exited(0),
        says=b"refused EAGAIN",
    ),
    Hostile(
        name="fork-bomb",
        source="""
if os.fork() == 0:
    while True:
        try:
            os.posix_spawn("/bin/sleep", ["sleep", mark], {})
            os.fork()
        except OSError:
            time.sleep(0.01)
time.sleep(0.5)
ready()
time.sleep(1000)
""",
    ),
    Hostile(
        name="fills-tmp",
        source="""
with open("/tmp/full", "wb") as file:
    try:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError as error:
        os.write(1, errno.errorcode[error.errno].encode() + b"\\n")
        os.unlink("/tmp/full")
        ready()
        os._exit(5)
""",
        ends=exited(5),
        says=b"ENOSPC",
    ),
    Hostile(
        name="renames-itself",
        source="""
for name in (b"bwrap", b"coworkd-launch", b") Z 1 1 (", b"\\n\\n 0 (", b"\\xff\\xfe"):
    assert libc.prctl(15, name, 0, 0, 0) == 0
ready()
os._exit(6)
""",
        ends=exited(6),
    ),
    Hostile(
        name="execs-again-and-again",
        source="""
round = int(sys.argv[2]) if len(sys.argv) > 2 else 0
if round < 100:
    os.execv("/bin/sh", ["sh", "-c", 'exec "$@"', "sh", *sys.orig_argv[:5], mark, str(round + 1)])
ready()
os._exit(8)
""",
        ends=exited(8),
    ),
    Hostile(
        name="writes-into-every-descriptor",
        source="""
said = b'{"exit-code": 0, "child-pid": 1}\\n+'
taken = [fd for fd in range(3, 1 << 12) if failing(os.write, fd, said) != "EBADF"]
os.write(1, b"taken %d\\n" % len(taken))
ready()
os._exit(11)
""",
        ends=exited(11),
        says=b"taken 0",
    ),
    Hostile(
        name="writes-into-what-its-init-holds",
        source="""
said = b'{"exit-code": 0}\\n+'
opened = failing(os.listdir, "/proc/1/fd")
for name in opened if isinstance(opened, list) else ():
    try:
        with open(f"/proc/1/fd/{name}", "wb", buffering=0) as file:
            os.set_blocking(file.fileno(), False)
            file.write(said * 10)
    except OSError:
        pass
ready()
os._exit(12)
""",
        ends=exited(12),
    ),
    Hostile(
        name="is-its-own-subreaper",
        source="""
assert libc.prctl(36, 1, 0, 0, 0) == 0
for number in range(10):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.01)
            os._exit(1)
        os._exit(0)
reaped = 0
try:
    while True:
        os.wait()
        reaped += 1
except ChildProcessError:
    os.write(1, b"reaped %d\\n" % reaped)
ready()
os._exit(13)
""",
        ends=exited(13),
        says=b"reaped 20",
    ),
    Hostile(
        name="kills-its-init",
        source="""
for number in range(1, signal.NSIG):
    failing(os.kill, 1, number)
ready()
os._exit(14)
""",
        ends=exited(14),
    ),
    Hostile(
        name="kills-all-others",
        source="""
if os.fork() == 0:
    time.sleep(1000)
os.kill(-1, signal.SIGKILL)
ready()
os._exit(15)
""",
        ends=exited(15),
    ),
    Hostile(
        name="kills-itself-hard",
        source="ready(); os.kill(os.getpid(), signal.SIGKILL)",
        ends=Exit(code=None, signal="KILL", reason="signaled"),
    ),
    Hostile(
        name="traces-its-init",
        source="""
attached = libc.ptrace(16, 1, 0, 0)
os.write(1, b"attached %d\\n" % attached)
ready()
os._exit(16)
""",
        ends=exited(16),
    ),
    Hostile(
        name="leaves-a-tracer-on-its-init",
        source="""
if os.fork() == 0:
    os.setsid()
    attached = libc.ptrace(16, 1, 0, 0)
    os.write(1, b"attached %d\\n" % attached)
    ready()
    time.sleep(1000)
time.sleep(1000)
""",
    ),
    Hostile(
        name="plays-init-in-a-namespace-of-its-own",
        source="""
os.write(1, b"unshare %d\\n" % libc.unshare(0x20000000 | 0x10000000))
ready()
os._exit(17)
""",
        ends=exited(17),
        says=b"unshare -1",
    ),
    Hostile(
        name="stops-all-it-can",
        source="""
for number in range(3):
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(1000)
ready()
failing(os.kill, 1, signal.SIGSTOP)
os.kill(0, signal.SIGSTOP)
""",
    ),
)


def program(hostile: Hostile, mark: str) -> list[str]:
    """The argv of one."""
    return ["/usr/bin/python3", "-I", "-S", "-c", _HEAD + hostile.source, mark]
