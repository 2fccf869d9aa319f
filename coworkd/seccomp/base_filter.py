"""The base filter: a fixed deny-list, as data, in two profiles.

Rules
- Whatever is not named here is allowed; the admin's filter and the view of the sandbox narrow it further.
- A refusal looks like what a kernel without the thing would say, where programs know how to go on without it (ENOSYS),
  else like a lack of privilege (EPERM). Nothing is killed but a foreign architecture: libuv probes io_uring.
- Sockets are listed by what is allowed, so a family or protocol that a later kernel adds is refused.
- No set-user-id or set-group-id bit is ever given to a file: a shared folder's files may belong to root outside (docs/adr/0005).
- `dev` lets a debugger work inside the sandbox, but not on its init (pid 1); `strict` does not at all.

What it does not do: paths, memory and the contents of structures are not visible to a filter, hence clone3 and openat2 are
refused as a whole (glibc, Go and Java fall back to clone, callers of openat2 to openat), and so is io_uring.

Sources: the man page of each call, linux/socket.h, linux/net.h (`SOCK_TYPE_MASK`), net/socket.c (`__sock_create`, which
turns AF_INET with SOCK_PACKET into AF_PACKET), fs/open.c (`build_open_how`: a mode counts
only where the flags create), asm-generic/ioctls.h, linux/personality.h, linux/sched.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT

from coworkd.model.policy import SeccompBase
from coworkd.seccomp.numbers import Arch, exists_elsewhere, numbers
from coworkd.seccomp.rules import ALLOW, INT_MASK, Action, Condition, Kind, Op, Rule, RuleSet

_EVERYWHERE: tuple[tuple[str, int, str], ...] = (
    ("clone3", ENOSYS, "its flags lie in memory, where no filter can see them; callers fall back to clone"),
    (
        "openat2",
        ENOSYS,
        "its mode lies in memory, where no filter can see a set-user-id bit; callers fall back to openat",
    ),
    ("unshare setns", EPERM, "new or other namespaces"),
    ("mount umount2 pivot_root chroot", EPERM, "changes the file tree"),
    (
        "open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr statmount listmount listns",
        ENOSYS,
        "the new mount interface",
    ),
    ("keyctl add_key request_key", EPERM, "the kernel's keyrings are not divided by namespaces"),
    ("bpf perf_event_open userfaultfd", EPERM, "a tool of kernel exploits"),
    ("io_uring_setup io_uring_enter io_uring_register", EPERM, "does its work past the filters"),
    ("pidfd_getfd kcmp process_madvise", EPERM, "reaches into other processes"),
    ("init_module finit_module delete_module", EPERM, "kernel modules"),
    ("kexec_load kexec_file_load reboot", EPERM, "another kernel, or none"),
    ("swapon swapoff", EPERM, "swap"),
    ("acct quotactl quotactl_fd syslog", EPERM, "the administration of the machine"),
    ("settimeofday clock_settime adjtimex clock_adjtime", EPERM, "sets the clock"),
    ("sethostname setdomainname", EPERM, "names the machine"),
    ("open_by_handle_at", EPERM, "opens files past the paths that lead to them"),
    ("fanotify_init fanotify_mark", EPERM, "watches and answers for other processes' files"),
    (
        "mbind set_mempolicy get_mempolicy migrate_pages move_pages set_mempolicy_home_node",
        EPERM,
        "the placement of memory on the machine",
    ),
    ("modify_ldt iopl ioperm vhangup", EPERM, "the hardware of the machine"),
    ("vmsplice memfd_secret", ENOSYS, "shares pages with the kernel in ways that exploits like"),
    (
        "uselib ustat sysfs _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall"
        " tuxcall security vserver epoll_ctl_old epoll_wait_old lookup_dcookie",
        ENOSYS,
        "a dead call",
    ),
)
_STRICT: tuple[tuple[str, int, str], ...] = (
    ("ptrace process_vm_readv process_vm_writev", EPERM, "reaches into other processes; the profile `dev` allows it"),
)

CLONE_NEW_FLAGS = 0x7E02_0000
"""NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME is not one of clone's: its bit is in the signal."""

_REFUSED_IOCTLS = (
    (0x5412, "TIOCSTI types into the terminal"),
    (0x541C, "TIOCLINUX pastes into the console"),
    (0x5423, "TIOCSETD loads a line discipline"),
    (0x541D, "TIOCCONS takes the console's output"),
)

SET_ID_BITS = 0o6000
"""S_ISUID, S_ISGID. mkdir is not in the lists below: the kernel cuts them from its mode."""
_MODE_AT = (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1), ("mknod", 1), ("mknodat", 2))
_FLAGS_AND_MODE_AT = (("open", 1, 2), ("openat", 2, 3))
OPEN_CREATES = 0o2000_0100
"""O_CREAT and __O_TMPFILE, the same on both architectures. Without one of them the mode's register holds whatever it held."""

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_TYPE_MASK, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW = 0xF, 1, 2, 3
_IP_PROTOCOLS = (0, 1, 6, 17, 58)
"""Whatever fits, ICMP and ICMPv6 (the unprivileged `ping` socket), TCP, UDP."""

PER_LINUX32, UNAME26, ADDR_NO_RANDOMIZE = 0x0008, 0x002_0000, 0x004_0000
_TOP_BIT = 0x8000_0000


def load_base(profile: SeccompBase, arch: Arch) -> RuleSet:
    """The base filter of `profile` for `arch`: default ALLOW. Pure; cannot fail."""
    rules: list[Rule] = []
    for names, errno, reason in _EVERYWHERE + (_STRICT if profile == "strict" else ()):
        for name in names.split():
            rules.extend(_rules(arch, name, errno, reason))
    rules.extend(_conditional(arch, profile))
    return RuleSet(source=f"base:{profile}", arch=arch, default=ALLOW, rules=tuple(rules))


def _rules(arch: Arch, name: str, errno: int, reason: str, *conditions: Condition) -> Iterator[Rule]:
    """One rule where `arch` has the call, none where only another has it."""
    number = numbers(arch).get(name)
    if number is not None:
        action = Action(Kind.ERRNO, errno)
        yield Rule(syscall=name, number=number, action=action, conditions=conditions, reason=reason)
    elif not exists_elsewhere(name):
        raise AssertionError(f"the base filter names {name}, which no architecture has")


def _int(index: int, op: Op, value: int, mask: int = INT_MASK) -> Condition:
    return Condition(index, op, value, mask)


def _conditional(arch: Arch, profile: SeccompBase) -> Iterator[Rule]:
    new_flags = _int(0, Op.NE, 0, CLONE_NEW_FLAGS)
    yield from _rules(arch, "clone", EPERM, "new namespaces", new_flags)
    for command, reason in _REFUSED_IOCTLS:
        yield from _rules(arch, "ioctl", EPERM, reason, _int(1, Op.EQ, command))
    known = PER_LINUX32 | UNAME26 | (ADDR_NO_RANDOMIZE if profile == "dev" else 0)
    reason = "an execution domain that weakens protections"
    # 0xffffffff only asks. The top bit tells it from the rest, so two rules say what one with a hole would.
    odd = (_int(0, Op.EQ, 0, _TOP_BIT), _int(0, Op.NE, 0, INT_MASK & ~_TOP_BIT & ~known))
    yield from _rules(arch, "personality", EPERM, reason, *odd)
    yield from _rules(arch, "personality", EPERM, reason, _int(0, Op.GE, _TOP_BIT), _int(0, Op.LT, INT_MASK))
    yield from _set_id_rules(arch)
    if profile == "dev":
        yield from _init_rules(arch)
    for call in ("socket", "socketpair"):
        yield from _socket_rules(arch, call)


def _set_id_rules(arch: Arch) -> Iterator[Rule]:
    reason = "a set-user-id or set-group-id bit, which would count outside where the file is shared"
    for call, mode in _MODE_AT:
        yield from _rules(arch, call, EPERM, reason, _int(mode, Op.NE, 0, SET_ID_BITS))
    for call, flags, mode in _FLAGS_AND_MODE_AT:
        creates = _int(flags, Op.NE, 0, OPEN_CREATES)
        yield from _rules(arch, call, EPERM, reason, creates, _int(mode, Op.NE, 0, SET_ID_BITS))


def _init_rules(arch: Arch) -> Iterator[Rule]:
    reason = "reaches into the sandbox's init, which for a moment has no filters yet"
    for call, pid in (("ptrace", 1), ("process_vm_readv", 0), ("process_vm_writev", 0)):
        yield from _rules(arch, call, EPERM, reason, _int(pid, Op.EQ, 1))


def _socket_rules(arch: Arch, call: str) -> Iterator[Rule]:
    """Family, type and protocol are ints; the rules for IP sockets do not overlap, so each refusal has one reason."""
    families = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)
    yield from _rules(
        arch,
        call,
        EAFNOSUPPORT,
        "an address family other than UNIX, INET, INET6 and NETLINK (AF_VSOCK reaches the host)",
        *(_int(0, Op.NE, family) for family in families),
    )
    yield from _rules(
        arch,
        call,
        EAFNOSUPPORT,
        "a netlink protocol other than NETLINK_ROUTE",
        _int(0, Op.EQ, AF_NETLINK),
        _int(2, Op.NE, 0),
    )
    for family in (AF_INET, AF_INET6):
        of_family = _int(0, Op.EQ, family)
        raw = _int(1, Op.EQ, SOCK_RAW, SOCK_TYPE_MASK)
        yield from _rules(arch, call, EPERM, "raw packets", of_family, raw)
        odd_type = [_int(1, Op.NE, known, SOCK_TYPE_MASK) for known in (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW)]
        yield from _rules(arch, call, ESOCKTNOSUPPORT, "an odd type of IP socket", of_family, *odd_type)
        usual = (_int(1, Op.GE, SOCK_STREAM, SOCK_TYPE_MASK), _int(1, Op.LE, SOCK_DGRAM, SOCK_TYPE_MASK))
        odd_protocol = [_int(2, Op.NE, protocol) for protocol in _IP_PROTOCOLS]
        yield from _rules(arch, call, EPROTONOSUPPORT, "an odd IP protocol", of_family, *usual, *odd_protocol)
