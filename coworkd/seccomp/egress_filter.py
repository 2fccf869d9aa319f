"""The filter of coworkd-egress itself: a list of what its work takes, and EPERM for everything else.

Rules
- It may accept and connect, never bind or listen: its listeners come from the launcher. It starts no program and makes no
  process, only threads.
- Stream and datagram sockets of UNIX, INET, INET6 and VSOCK (the way out through the host); no raw, no netlink, no packet sockets.
- Files are opened to read; what may be read is Landlock's to say. The flags of openat lie in a register, so writing is refused
  here as well.
- A refusal is an errno, not a kill: a library that probes for something (glibc for netlink, Python for statx) goes on without it.

Sources: the man page of each call; glibc's getaddrinfo (its netlink probe may fail).
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EAFNOSUPPORT, ENOSYS, EPERM

from coworkd.seccomp.numbers import Arch, exists_elsewhere, numbers
from coworkd.seccomp.rules import ALLOW, INT_MASK, LONG_MASK, Action, Condition, Kind, Op, Rule, RuleSet

_ALLOWED: tuple[tuple[str, str], ...] = (
    ("read readv pread64 write writev pwrite64 lseek close close_range dup dup2 dup3 fcntl", "descriptors"),
    ("pipe pipe2 splice tee", "the relay"),
    (
        "accept4 accept connect shutdown getsockname getpeername getsockopt setsockopt"
        " recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg",
        "sockets that are there",
    ),
    ("epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 eventfd2", "waiting"),
    ("mmap munmap mremap brk madvise membarrier", "memory"),
    (
        "newfstatat fstat stat lstat statx access faccessat faccessat2 readlink readlinkat getdents64 getcwd fstatfs",
        "looking at files",
    ),
    ("memfd_create ftruncate", "a certificate in memory, for a library that only reads files"),
    ("futex set_robust_list rseq sched_yield sched_getaffinity gettid set_tid_address", "threads"),
    (
        "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigtimedwait restart_syscall exit exit_group",
        "signals, and the end",
    ),
    ("clock_gettime clock_getres gettimeofday time nanosleep clock_nanosleep", "time"),
    (
        "getpid getppid getuid geteuid getgid getegid getresuid getresgid getgroups uname sysinfo getrusage times getrandom"
        " getrlimit",
        "asking who and what",
    ),
)
_CLONE_THREAD = 0x0001_0000
_CLONE_NEW_FLAGS = 0x7E02_0000
_OPEN_WRITES = 0o3 | 0o100 | 0o2000_0000 | 0o1000
"""O_ACCMODE, O_CREAT, __O_TMPFILE, O_TRUNC: none of them for reading; the same on both architectures."""
_PROT_WRITE, _PROT_EXEC = 0x2, 0x4
_FAMILIES = (1, 2, 10, 40)
"""AF_UNIX, AF_INET, AF_INET6, AF_VSOCK."""
_SOCK_TYPE_MASK, _SOCK_STREAM, _SOCK_DGRAM = 0xF, 1, 2
_FIONREAD, _FIONBIO, _SIOCOUTQ, _TCGETS = 0x541B, 0x5421, 0x5411, 0x5401
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA, _PR_GET_DUMPABLE, _PR_GET_NO_NEW_PRIVS = 15, 16, 0x5356_4D41, 3, 39


def load_egress_filter(arch: Arch) -> RuleSet:
    """The filter for `arch`: default EPERM. Pure; cannot fail."""
    rules = (*_plain(arch), *_conditional(arch))
    return RuleSet(source="egress", arch=arch, default=Action(Kind.ERRNO, EPERM), rules=rules)


def _plain(arch: Arch) -> Iterator[Rule]:
    for names, reason in _ALLOWED:
        for name in names.split():
            yield from _rules(arch, name, reason)


def _rules(
    arch: Arch, name: str, reason: str, *conditions: Condition, action: Action = ALLOW
) -> Iterator[Rule]:  # fmt: skip
    number = numbers(arch).get(name)
    if number is not None:
        yield Rule(syscall=name, number=number, action=action, conditions=conditions, reason=reason)
    elif not exists_elsewhere(name):
        raise AssertionError(f"the egress filter names {name}, which no architecture has")


def _int(index: int, op: Op, value: int, mask: int = INT_MASK) -> Condition:
    return Condition(index, op, value, mask)


def _conditional(arch: Arch) -> Iterator[Rule]:
    for family in _FAMILIES:
        for kind in (_SOCK_STREAM, _SOCK_DGRAM):
            of_kind = (_int(0, Op.EQ, family), _int(1, Op.EQ, kind, _SOCK_TYPE_MASK))
            yield from _rules(arch, "socket", "a way out, or a question to a name server", *of_kind)
    not_ours = [_int(0, Op.NE, family) for family in _FAMILIES]
    yield from _rules(arch, "socket", "no such family here", *not_ours, action=Action(Kind.ERRNO, EAFNOSUPPORT))
    yield from _rules(arch, "socketpair", "waking the loop", _int(0, Op.EQ, 1))
    yield from _rules(arch, "open", "reading", _int(1, Op.EQ, 0, _OPEN_WRITES))
    yield from _rules(arch, "openat", "reading", _int(2, Op.EQ, 0, _OPEN_WRITES))
    thread = (Condition(0, Op.EQ, _CLONE_THREAD, _CLONE_THREAD), Condition(0, Op.EQ, 0, _CLONE_NEW_FLAGS))
    yield from _rules(arch, "clone", "a thread", *thread)
    yield from _rules(arch, "clone3", "threads are made by clone", action=Action(Kind.ERRNO, ENOSYS))
    # A library that is loaded late maps executable pages; nobody gets pages that are writable and executable, or become executable.
    writable_code = _int(2, Op.EQ, _PROT_WRITE | _PROT_EXEC, _PROT_WRITE | _PROT_EXEC)
    yield from _rules(arch, "mmap", "writable code", writable_code, action=Action(Kind.ERRNO, EPERM))
    yield from _rules(arch, "mprotect", "memory", _int(2, Op.EQ, 0, _PROT_EXEC))
    for request in (_FIONREAD, _FIONBIO, _SIOCOUTQ, _TCGETS):
        yield from _rules(arch, "ioctl", "how much is there", _int(1, Op.EQ, request))
    for option in (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA, _PR_GET_DUMPABLE, _PR_GET_NO_NEW_PRIVS):
        yield from _rules(arch, "prctl", "naming", _int(0, Op.EQ, option))
    # Limits are looked at, never set: the pointer to new ones is null.
    yield from _rules(arch, "prlimit64", "asking for limits", Condition(2, Op.EQ, 0, LONG_MASK))
