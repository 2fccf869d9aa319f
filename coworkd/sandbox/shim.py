"""The shim: runs inside the sandbox, never trusted, standard library only; opens a terminal and becomes the command.

argv: rows cols COMMAND… Descriptors: 8 a socket for the terminal's master, 9 a pipe on which `+` says that the terminal stands and
`stage errno` that the command could not be executed; its end without words is a good exec.
"""

import array
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
import termios

TTY_FD, STATUS_FD = 8, 9
TIOCSPTLCK, TIOCGPTN = 0x40045431, 0x80045430  # ioctl_tty(2); the same on x86_64 and aarch64
NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)


def main() -> None:
    rows, cols, command = int(sys.argv[1]), int(sys.argv[2]), [os.fsencode(word) for word in sys.argv[3:]]
    for fd in (TTY_FD, STATUS_FD):
        os.set_inheritable(fd, False)
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, bytes(4)))[0]
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    with socket.socket(fileno=TTY_FD) as link:
        link.sendmsg([b"m"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
    os.close(master)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.closerange(10, 1024)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores both, and an exec hands that on
        signal.signal(number, signal.SIG_DFL)
    os.write(STATUS_FD, b"+")
    try:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        os.execv("/bin/sh", [b"sh", *command])  # a script without #!, as execvp(3) runs it
    except OSError as error:
        stage = "not_found" if error.errno in NOT_FOUND else "not_executable"
        os.write(STATUS_FD, f"{stage} {error.errno}".encode())
    os._exit(127)


main()
