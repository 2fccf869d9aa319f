"""The shim: runs inside the sandbox, never trusted, standard library only; waits for a command and becomes it.

Descriptors: 7 a SEQPACKET socket of the launcher's, 8 this source. It says `ready` with what it has used so far, once it has gone through
all that a command will ask of it. One message then brings the command, NUL between words: how many words argv has, cwd, the
terminal's `rows cols` or nothing, the head of a native ELF file in hexadecimal or nothing, argv, variables. With it come the pipe that
says how it went, the gate, and stdin, stdout and stderr, or for a terminal the socket for its master. A message that is one zero byte has
its words in a file, which comes last. All is made ready for the exec, which waits for a byte in the gate; of a terminal nothing is: its
master is sent but once, though another shim may stand in for this one at the gate. On the pipe `+`, the time in
nanoseconds and a blank say that only the exec is left, `stage errno` what failed; its end without that is a good exec.

The command is looked for as execvp(3) does it, so that it starts as it would from bubblewrap; a binary that is not the kernel's own is
no script. Every import costs a waiting sandbox time and memory: `posix`, `_socket` and `_signal` are what `os`, `socket` and `signal` wrap;
`time` is loaded anyway.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import fcntl
import posix
import resource
import sys
import time

LINK_FD, SOURCE_FD = 7, 8
MESSAGE_BYTES, DESCRIPTORS_BYTES = 32 * 1024, 256
TIOCSPTLCK, TIOCGPTN = 0x40045431, 0x80045430  # ioctl_tty(2); these are the same on x86_64 and aarch64
TIOCSCTTY, TIOCSWINSZ = 0x540E, 0x5414
TCGETS, TCSETS, IUTF8 = 0x5401, 0x5402, 0x4000  # termios(3); the input flags come first
TRY_NEXT = (errno.EACCES, errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ENODEV, errno.ETIMEDOUT)


def main() -> None:
    link = _socket.socket(fileno=LINK_FD)
    posix.set_inheritable(LINK_FD, False)
    posix.close(SOURCE_FD)
    for number in (_signal.SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ):  # Python's own; an exec hands on what is ignored
        _signal.signal(number, _signal.SIG_DFL)
    rehearse()
    link.send(b"ready %d %d %d %d %d %d %d" % usage())
    words, fds = receive(link)
    status, gate, *streams = fds
    try:
        become(words, status, gate, streams)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told there, and never in the command's own output
        posix.write(status, b" %d" % (getattr(error, "errno", None) or 0))
    posix._exit(127)


def usage() -> tuple[int, ...]:
    """Microseconds of the user's and the system's, faults, switches, and the largest resident set in KiB."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = (int(used.ru_utime * 1e6), int(used.ru_stime * 1e6))
    return (*seconds, used.ru_minflt, used.ru_majflt, used.ru_nvcsw, used.ru_nivcsw, used.ru_maxrss)


def rehearse() -> None:
    """Go once through what a command will want: the first time costs a page fault at every other step.

    Raises where a step fails, of which an admin's filter may be the reason: bubblewrap has done all that before its filters are on.
    """
    said, status = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    gate, opener = posix.pipe2(posix.O_CLOEXEC)
    posix.write(opener, b"g")
    copies = [posix.dup(fd) for fd in (0, 1, 2)]
    try:
        become([b"1", b"/", b"", b"", b"/", b"A=b"], status, gate, copies)
    except OSError:  # a directory is no command
        if not posix.read(said, 64).endswith(b" exec"):
            raise
    for fd in (said, status, gate, opener, *copies):
        posix.close(fd)


def receive(link: "_socket.socket") -> tuple[list[bytes], list[int]]:
    """Wait for the command. Nobody has one any more where the launcher's end has gone."""
    data, ancillary, _, _ = link.recvmsg(MESSAGE_BYTES, DESCRIPTORS_BYTES, _socket.MSG_CMSG_CLOEXEC)
    if not data:
        posix._exit(0)
    sent = ancillary[0][2]
    fds = [int.from_bytes(sent[at : at + 4], sys.byteorder) for at in range(0, len(sent), 4)]
    if data == b"\0":
        message = fds.pop()
        data = posix.pread(message, posix.fstat(message).st_size, 0)
        posix.close(message)
    return data.split(b"\0"), fds


def become(words: list[bytes], status: int, gate: int, fds: list[int]) -> None:
    """Execute the command, once the gate is open. Raises, and has written to `status` at which stage."""
    count, cwd, size, native, *rest = words
    argv, variables = rest[: int(count)], rest[int(count) :]
    stage = b"terminal" if size else b"streams"
    try:
        if size:
            posix.read(gate, 1)
            open_terminal(fds[0], *(int(number) for number in size.split()))
        else:
            for number, fd in enumerate(fds):
                posix.dup2(fd, number)
        stage = b"cwd"
        posix.chdir(cwd)
        stage = b"exec"
        environment = dict(word.split(b"=", 1) for word in variables)
        environment[b"PWD"] = cwd
        head = bytes.fromhex(native.decode())
        if not size:
            posix.read(gate, 1)
        posix.write(status, b"+%d " % time.time_ns())
        execute(argv, environment, head)
    except BaseException:
        posix.write(status, stage)
        raise


def open_terminal(link_fd: int, rows: int, cols: int) -> None:
    """Make one in the sandbox's own devpts, send its master out, and have it as the controlling terminal and 0, 1, 2."""
    master = posix.open("/dev/ptmx", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, bytes(4))
    number = int.from_bytes(fcntl.ioctl(master, TIOCGPTN, bytes(4)), sys.byteorder)
    slave = posix.open(f"/dev/pts/{number}", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
    fcntl.ioctl(slave, TIOCSWINSZ, b"".join(each.to_bytes(2, sys.byteorder) for each in (rows, cols, 0, 0)))
    settings = fcntl.ioctl(slave, TCGETS, bytes(64))
    flags = int.from_bytes(settings[:4], sys.byteorder) | IUTF8  # Backspace takes a letter, not a byte
    fcntl.ioctl(slave, TCSETS, flags.to_bytes(4, sys.byteorder) + settings[4:])
    posix.setsid()
    fcntl.ioctl(slave, TIOCSCTTY, 0)
    link = _socket.socket(fileno=link_fd)
    link.sendmsg([b"m"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))])
    for fd in (0, 1, 2):
        posix.dup2(slave, fd)


def execute(argv: list[bytes], environment: dict[bytes, bytes], native: bytes) -> None:
    """execvpe(3). Raises `OSError`."""
    command = argv[0]
    if b"/" in command:
        execute_file(command, argv, environment, native)
    denied: OSError | None = None
    failed = OSError(errno.ENOENT, "")
    for directory in environment.get(b"PATH", b"/bin:/usr/bin").split(b":"):
        try:
            execute_file(directory + b"/" + command if directory else command, argv, environment, native)
        except OSError as error:
            if error.errno not in TRY_NEXT:
                raise
            failed = error
            denied = error if error.errno == errno.EACCES else denied
    raise denied or failed


def execute_file(path: bytes, argv: list[bytes], environment: dict[bytes, bytes], native: bytes) -> None:
    """execve(2), and what execvp(3) makes of a file that the kernel has no format for: a script for /bin/sh."""
    try:
        posix.execve(path, argv, environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC or (native and is_foreign(path, native)):
            raise
    posix.execve(b"/bin/sh", [b"/bin/sh", path, *argv[1:]], environment)


def is_foreign(path: bytes, native: bytes) -> bool:
    """As `launcher.formats` tells it: no text, or another machine's."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC)
    except OSError:
        return False
    head = posix.pread(fd, 256, 0)
    posix.close(fd)
    if head[:4] == b"\x7fELF":
        return head[4:6] + head[18:20] != native
    return head[:2] != b"#!" and b"\0" in head.partition(b"\n")[0]


main()
